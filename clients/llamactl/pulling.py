"""Fetching a model and giving it to the service: the work of ``pull`` and ``run``.

This process downloads, as the user who asked, and streams the bytes to the service: the service has
no network, and nothing that runs as root looks at what comes from the internet. The service checks
the size, the space on the disk, the sha256 and the file's header, and names the file only then.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from llamactl import hub
from llamactl.catalogue import Entry, read_catalogue
from llamactl.download import Download
from llamactl.output import bytes_text
from llamactl.progress import Progress
from llamactl.source import BeginAgain, LocalFile, Source, model_name, path_of
from llamad_client import AddedModel, Client, Failed, Refused

MAX_BYTES = 100_000_000_000
WAIT_SECONDS, MOST_WAITS = 0.2, 25


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched from where. sha256: empty when nobody said.

    name: empty where the source suggests none, or only the hub can say it. entry: of the catalogue,
    None for what it does not know.
    """

    name: str
    where: str | Path | hub.Reference  # an URL, a file, or a repository of the hub
    sha256: str = ""
    entry: Entry | None = None


def find(text: str) -> Wanted:
    """Return what a source means: a repository, an URL, a path, or a name of the catalogue.

    Asks nobody. Raises Refused for a name that the catalogue does not have.
    """
    reference = hub.parse(text)
    if reference is not None:
        return Wanted("", reference)
    path = path_of(text)
    if path is not None:
        return Wanted(model_name(path.name), path)
    if "://" in text:
        return Wanted(model_name(urlsplit(text).path), text)
    entry = read_catalogue().find(text)
    return Wanted(entry.name, entry.url, entry.sha256, entry)


def resolve(wanted: Wanted) -> Wanted:
    """Return it with a source that can be opened: asks the hub for the file of a repository."""
    if not isinstance(wanted.where, hub.Reference):
        return wanted
    found = hub.find(wanted.where)
    return replace(wanted, name=wanted.name or found.name, where=found.url)


def fetch(
    client: Client,
    wanted: Wanted,
    progress: Progress,
    *,
    max_bytes: int = MAX_BYTES,
    replace_model: bool = False,
) -> AddedModel:
    """Fetch what was resolved and add it. An interruption says how it goes on, and is raised."""
    _tell(wanted.entry, progress)
    try:
        with contextlib.closing(_open(wanted, max_bytes, progress)) as source:
            if source.file_bytes == 0:
                raise Refused("INVALID_SOURCE", f"{wanted.name}: the file is empty")
            _prove(client, wanted, source, progress)
            return _add(client, wanted, source, progress, replace_model=replace_model)
    except KeyboardInterrupt:
        progress.erase()
        if progress.done_bytes:
            kept = bytes_text(progress.done_bytes)
            progress.note(f"interrupted after {kept}: the same command goes on about there")
        raise
    finally:
        progress.erase()


def is_same_file(path: Path, other: str) -> bool:
    """Whether two paths are one file, as far as this user can see."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def delete_source(path: Path, added: AddedModel) -> bool:
    """Delete the file that the service has now; False when it is the service's very file.

    Raises Failed when it cannot be deleted.
    """
    if is_same_file(path, added.path):
        return False
    try:
        path.unlink()
    except OSError as error:
        message = f"{path}: was added and could not be deleted: {error.strerror}"
        raise Failed("DELETE_FAILED", message) from None
    return True


def _tell(entry: Entry | None, progress: Progress) -> None:
    """Say what the catalogue has to say about a model before it is fetched."""
    if entry is None:
        return
    if entry.conditions:
        progress.note(f"{entry.name}: {entry.licence}: {entry.conditions}")
    if entry.note:
        progress.note(f"{entry.name}: {entry.note}")


def _open(wanted: Wanted, max_bytes: int, progress: Progress) -> Source:
    """Open the source as far as its size is known. Raises Refused and Failed."""
    where = wanted.where
    if isinstance(where, Path):
        return LocalFile(where, max_bytes=max_bytes)
    assert isinstance(where, str), "resolve() comes first"
    if where.lower().startswith("http:") and not wanted.sha256:
        progress.note("http:// and no --sha256: nothing proves that this is the right file")
    return Download(where, max_bytes=max_bytes, note=progress.note)


def _prove(client: Client, wanted: Wanted, source: Source, progress: Progress) -> None:
    """Find out the sha256 of a local file where the service may have it already."""
    if not isinstance(source, LocalFile) or wanted.sha256:
        return
    size = source.file_bytes
    if any(model.name == wanted.name and model.file_bytes == size for model in client.models()):
        progress.note(f"comparing with the model {wanted.name} that is there")
        source.prove()


def _add(
    client: Client, wanted: Wanted, source: Source, progress: Progress, *, replace_model: bool
) -> AddedModel:
    """Give the source's bytes to the service, from the beginning again where that is needed."""

    def open_at(kept: int) -> tuple[int, Iterable[bytes]]:
        offset, pieces = source.open_at(kept)
        return offset, progress.watch(offset, source.file_bytes, pieces)

    waits = MOST_WAITS
    while True:
        if wanted.sha256 and source.sha256 and wanted.sha256 != source.sha256:
            message = f"the server has a file of sha256 {source.sha256}, not {wanted.sha256}"
            raise Refused("CHECKSUM_MISMATCH", message)
        try:
            return client.add_model(
                wanted.name,
                open_at,
                file_bytes=source.file_bytes,
                sha256=wanted.sha256 or source.sha256,
                source=source.identity,
                replace=replace_model,
                recommended_sampling=wanted.entry.sampling if wanted.entry else None,
            )
        except BeginAgain:
            pass  # the source gives up when that leads nowhere
        except Refused as error:
            if error.reason != "TRANSFER_RUNNING" or not waits:
                raise
            waits -= 1  # it may be ours from a moment ago, which the service has not left yet
            time.sleep(WAIT_SECONDS)
