"""``llamactl pull``: fetch a model and give it to the service.

This process downloads, as the user who asked, and streams the bytes to the service: the service has
no network, and nothing that runs as root looks at what comes from the internet. The service checks
the size, the space on the disk, the sha256 and the file's header, and names the file only then.
"""

import argparse
import contextlib
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llamactl.catalogue import Entry, read_catalogue
from llamactl.commands import Commands
from llamactl.download import Download
from llamactl.output import bytes_text, print_json, print_line
from llamactl.progress import Progress
from llamactl.source import BeginAgain, LocalFile, Source, model_name, path_of
from llamad_client import AddedModel, Client, Refused

MAX_BYTES = 100_000_000_000
WAIT_SECONDS, MOST_WAITS = 0.2, 25
WITHOUT_MODEL = ("no_model", "failed")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched from where. sha256: empty when nobody said.

    entry: of the catalogue, None for what it does not know.
    """

    name: str
    where: str | Path  # an URL or a file
    sha256: str
    entry: Entry | None = None


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "pull",
        help="fetch a model and give it to the service",
        description="Fetch a model from an URL, a file or the catalogue (`llamactl models"
        " --catalogue`) and give it to the service. The same command goes on where an interrupted"
        " one stopped.",
    )
    parser.add_argument("source", metavar="SOURCE", help="an URL, a file, a name of the catalogue")
    parser.add_argument("--name", metavar="NAME", help="the model's name; default: the file's")
    parser.add_argument("--sha256", type=_sha256, metavar="HEX", help="what the file must hash to")
    parser.add_argument(
        "--replace", action="store_true", help="take the place of a model of this name"
    )
    parser.add_argument(
        "--no-use", action="store_true", help="do not load it, even if no model is loaded"
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        metavar="N",
        default=MAX_BYTES,
        help=f"refuse a larger file; default: {MAX_BYTES}",
    )
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a sha256 has 64 hexadecimal digits")
    return text.lower()


def run(arguments: argparse.Namespace) -> int:
    """Fetch, add and, when the service has no model loaded, use it."""
    if arguments.max_bytes < 1:
        arguments.usage_error(f"--max-bytes {arguments.max_bytes}: must be at least 1")
    wanted = _find(arguments)
    progress = Progress(as_json=arguments.json)
    with Client(arguments.socket) as client:
        client.status()  # is anybody there, before anything is asked of the network
        _tell(wanted.entry, progress)
        try:
            with contextlib.closing(_open(wanted, arguments.max_bytes, progress)) as source:
                if source.file_bytes == 0:
                    raise Refused("INVALID_SOURCE", f"{wanted.name}: the file is empty")
                _prove(client, wanted, source, progress)
                added = _add(client, wanted, source, progress, replace=arguments.replace)
        except KeyboardInterrupt:
            progress.erase()
            if progress.done_bytes:
                kept = bytes_text(progress.done_bytes)
                progress.note(f"interrupted after {kept}: the same command goes on about there")
            return 128 + signal.SIGINT
        finally:
            progress.erase()
        _print_added(added, as_json=arguments.json)
        status = client.status()
        if not arguments.no_use and status.state in WITHOUT_MODEL:
            _use(client, added.name, as_json=arguments.json)
        elif not arguments.json and (status.model is None or status.model.name != added.name):
            print_line(f'"llamactl use {added.name}" loads it')
    return 0


def _find(arguments: argparse.Namespace) -> Wanted:
    """Return what the source means: an URL, a path, or a name of the catalogue."""
    text = arguments.source
    path, entry = path_of(text), None
    where: str | Path
    if path is not None:
        name, where = model_name(path.name), path
    elif "://" in text:
        name, where = model_name(urlsplit(text).path), text
    else:
        entry = read_catalogue().find(text)
        name, where = entry.name, entry.url
    name = arguments.name if arguments.name is not None else name
    if not name:
        arguments.usage_error("the source suggests no name for the model: give --name")
    sha256 = arguments.sha256 or (entry.sha256 if entry is not None else "")
    return Wanted(name, where, sha256, entry)


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
    if isinstance(wanted.where, Path):
        return LocalFile(wanted.where, max_bytes=max_bytes)
    if wanted.where.lower().startswith("http:") and not wanted.sha256:
        progress.note("http:// and no --sha256: nothing proves that this is the right file")
    return Download(wanted.where, max_bytes=max_bytes, note=progress.note)


def _prove(client: Client, wanted: Wanted, source: Source, progress: Progress) -> None:
    """Find out the sha256 of a local file where the service may have it already."""
    if not isinstance(source, LocalFile) or wanted.sha256:
        return
    size = source.file_bytes
    if any(model.name == wanted.name and model.file_bytes == size for model in client.models()):
        progress.note(f"comparing with the model {wanted.name} that is there")
        source.prove()


def _add(
    client: Client, wanted: Wanted, source: Source, progress: Progress, *, replace: bool
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
                replace=replace,
            )
        except BeginAgain:
            pass  # the source gives up when that leads nowhere
        except Refused as error:
            if error.reason != "TRANSFER_RUNNING" or not waits:
                raise
            waits -= 1  # it may be ours from a moment ago, which the service has not left yet
            time.sleep(WAIT_SECONDS)


def _print_added(added: AddedModel, *, as_json: bool) -> None:
    if as_json:
        fields = ("name", "path", "file_bytes", "sha256", "unchanged")
        print_json({"type": "added", **{field: getattr(added, field) for field in fields}})
        return
    what = "was there already" if added.unchanged else "added"
    size = bytes_text(added.file_bytes)
    print_line(f"{added.name}: {what}, {size}, sha256 {added.sha256}")


def _use(client: Client, name: str, *, as_json: bool) -> None:
    """Load the model, as the first one."""
    used = client.use_model(name)
    if as_json:
        print_json({"type": "used", "name": name, "load_seconds": used.load_seconds})
    else:
        print_line(f"{name}: loaded in {used.load_seconds:.1f} s, and at every start")
