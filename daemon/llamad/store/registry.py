"""The model directory: which files it holds, which one a name means, which one is selected.

Owns names and paths; opens no model, but asks which files are adapters (LoRA): these have names
like models, and none is ever the model to load. A name is the file's name without ``.gguf``. A
link that leads out of the directory is not a model of the directory, whatever it points to. Hidden
files are none: partial files of transfers, and the name of the model that is loaded at every start.
Nor are files whose names no request can hold or no terminal show.

Blocking: not for the event loop's thread.
"""

import contextlib
import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.logs import fields
from llamad.small_file import read_small, replace_small
from llamad.store import recommended
from llamad.store.adapter_files import is_adapter
from llamad.store.partial_file import disk_error, remove_partial_file

log = logging.getLogger(__name__)

SUFFIX = ".gguf"
SELECTED = ".selected"
MAX_NEW_NAME = 128
MAX_NAME = 240  # bytes; a file name has 255

_NEW_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)


def check_new_name(name: str) -> str:
    """Return the name of a model that is to be added. Raises INVALID_NAME."""
    if not 1 <= len(name) <= MAX_NEW_NAME:
        raise invalid("name", f"has {len(name)} characters, must have 1 to {MAX_NEW_NAME}")
    if not _NEW_NAME.fullmatch(name):
        raise invalid("name", f"{name!r} must be letters, digits and ._-, and begin with no dot")
    return name


def check_name(name: str) -> str:
    """Return a name that a file of the directory may have, and no path. Raises INVALID_NAME."""
    size = len(os.fsencode(name))
    if not 1 <= size <= MAX_NAME:
        raise invalid("name", f"has {size} bytes, must have 1 to {MAX_NAME}")
    if "/" in name or name[0] == "." or not name.isprintable():
        raise invalid("name", f"{name!r} is no name of a model")
    return name


def _can_be_named(path: Path) -> bool:
    try:
        check_name(path.name.removesuffix(SUFFIX))
    except LlamadError:
        return False
    return True


def comparable_path(path: Path) -> Path:
    """Return the path with no link in its folder, to compare by; its last part may be one."""
    return path.parent.resolve() / path.name


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file; ``name`` is what a request may call it."""

    name: str
    path: Path
    file_bytes: int


class ModelRegistry:
    """The regular ``.gguf`` files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def scan(self) -> list[ModelFile]:
        """Return the models of the directory by name; a directory that does not exist has none.

        Raises MODEL_DIRECTORY_UNREADABLE.
        """
        try:
            root = self.directory.resolve(strict=True)
            files = (path for path in root.iterdir() if path.name.endswith(SUFFIX))
            paths = sorted(path for path in files if _can_be_named(path))
            found = [self._model(path, root) for path in paths]
        except FileNotFoundError:
            return []
        except (OSError, RuntimeError) as error:  # the latter: links that lead to themselves
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_DIRECTORY_UNREADABLE",
                f"model directory {self.directory}: {getattr(error, 'strerror', None) or error}",
            ) from error
        return [model for model in found if model is not None]

    def adapters(self) -> list[ModelFile]:
        """Return the adapters of the directory by name; ``scan`` has them, too."""
        return [file for file in self.scan() if is_adapter(file.path)]

    def adapter_times(self) -> dict[str, int]:
        """Return when each adapter's file was last written, nanoseconds since 1970, by name."""
        times = {}
        for file in self.adapters():
            with contextlib.suppress(OSError):  # just removed
                times[file.name] = file.path.stat().st_mtime_ns
        return times

    def resolve(self, model: str) -> ModelFile:
        """Return the file that ``model`` means: a path, or the name of a model in the directory.

        Anything with a slash or the suffix is a path, and may lie anywhere: it comes from the
        operator, never from a request. An empty string is the selected model, if it is there, or
        the directory's only one. Raises MODEL_NOT_FOUND, MODEL_AMBIGUOUS,
        MODEL_DIRECTORY_MISSING, or MODEL_UNREADABLE for what is no regular file.
        """
        if not model:
            return self._selected_or_only()
        if "/" in model or model.endswith(SUFFIX):
            return self._at(Path(model))
        return self.require(model)

    def find(self, name: str) -> ModelFile | None:
        """Return the model of this name; None when the directory has none."""
        return next((model for model in self.scan() if model.name == name), None)

    def require(self, name: str) -> ModelFile:
        """Return the model of this name. Raises MODEL_NOT_FOUND, saying what is there instead."""
        model = self.find(name)
        if model is None:
            self._require_directory()
            message = f'no model {name!r} in {self.directory} ("llamactl models" lists those there)'
            path = self.directory / (name + SUFFIX)
            if os.path.lexists(path):
                message += f": {path.name} {self._why_no_model(path)}"
            raise LlamadError(ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", message)
        return model

    def path_of(self, name: str) -> Path:
        """Return where a model of this name lies, or would lie."""
        return comparable_path(self.directory / (name + SUFFIX))

    def recommended(self, file: ModelFile) -> dict[str, object]:
        """Return the sampling that was said of a model; nothing for a file that lies elsewhere."""
        is_ours = comparable_path(file.path) == self.path_of(file.name)
        return recommended.recall(self.directory, file.name) if is_ours else {}

    # ---- changing --------------------------------------------------------------------------------

    def remove(self, name: str) -> int:
        """Delete a model, the link where it is one, and the partial file of its transfer.

        Returns the bytes that are free again. Raises INVALID_NAME, MODEL_NOT_FOUND, DISK_ERROR.
        """
        path = self.path_of(check_name(name))
        freed = None
        try:
            with contextlib.suppress(FileNotFoundError):
                freed = path.lstat().st_size
                path.unlink()
            partial = remove_partial_file(self.directory, name)
            recommended.forget(self.directory, name)
            if freed is not None and self.selected() == name:
                (self.directory / SELECTED).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error
        if freed is None and partial is None:
            self.require(name)
        return (freed or 0) + (partial or 0)

    def select(self, name: str) -> None:
        """Remember the model to load at every start. Raises DISK_FULL, DISK_ERROR."""
        try:
            replace_small(self.directory / SELECTED, name.encode() + b"\n")
        except OSError as error:
            raise disk_error(self.directory / SELECTED, error) from error

    def selected(self) -> str:
        """Return the name that ``select`` got, whether or not it is there; empty without one."""
        data = read_small(self.directory / SELECTED)
        if data is None:
            return ""
        try:
            return check_name(data.decode().removesuffix("\n"))
        except (UnicodeDecodeError, LlamadError):
            path = self.directory / SELECTED
            log.warning(fields("selected model ignored, the file holds no name", path=str(path)))
            return ""

    # ---- resolving -------------------------------------------------------------------------------

    def _selected_or_only(self) -> ModelFile:
        models = self.scan()
        selected = self.selected()
        for model in models:
            if model.name == selected:
                return model
        if selected:
            log.warning(fields("selected model is not there", model=selected))
        models = [model for model in models if not is_adapter(model.path)]
        if len(models) == 1:
            return models[0]
        if not models:
            self._require_directory()
            raise LlamadError(
                ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", f"no {SUFFIX} file in {self.directory}"
            )
        names = ", ".join(model.name for model in models)
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_AMBIGUOUS",
            f'{self.directory} holds {len(models)} models, "llamactl use NAME" loads one: {names}',
        )

    def _require_directory(self) -> None:
        """Raise MODEL_DIRECTORY_MISSING when there is none."""
        if not self.directory.exists():
            raise LlamadError(
                ErrorKind.NOT_FOUND,
                "MODEL_DIRECTORY_MISSING",
                f"model directory {self.directory} {_why_missing(self.directory)}:"
                ' "llamactl pull" makes it, model.directory in the configuration names another',
            )

    def _why_no_model(self, path: Path) -> str:
        """Return what is wrong with a file of the directory that is none of its models."""
        if not path.exists():
            return _why_missing(path)
        if not path.is_file():
            return "is no regular file"
        return f"leads out of the directory, to {path.resolve()}: model.path may name that"

    def _at(self, path: Path) -> ModelFile:
        try:
            os.fspath(path).encode()  # every answer that names it is UTF-8
            status = path.stat()
        except FileNotFoundError:
            raise LlamadError(
                ErrorKind.NOT_FOUND,
                "MODEL_NOT_FOUND",
                f"model file {path} {_why_missing(path)}",
            ) from None
        except (OSError, ValueError) as error:
            fault = getattr(error, "strerror", None) or error
            raise LlamadError(
                ErrorKind.STATE, "MODEL_UNREADABLE", f"model file {os.fspath(path)!r}: {fault}"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise LlamadError(
                ErrorKind.STATE, "MODEL_UNREADABLE", f"model file {path}: not a regular file"
            )
        return ModelFile(path.name.removesuffix(SUFFIX), path, status.st_size)

    @staticmethod
    def _model(path: Path, root: Path) -> ModelFile | None:
        """Return the model at ``path``; None when it is no regular file inside ``root``."""
        try:
            target = path.resolve(strict=True)
            status = target.stat()
        except (OSError, RuntimeError):  # a dangling link, a loop of links, a file just removed
            return None
        if not target.is_relative_to(root) or not stat.S_ISREG(status.st_mode):
            return None
        return ModelFile(path.name.removesuffix(SUFFIX), path, status.st_size)


def _why_missing(path: Path) -> str:
    """Return why a path leads to nothing: itself, a folder above it, or what it links to."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist"
    folder = path.parent
    if not folder.exists() and folder != folder.parent:
        return f"does not exist, nor does {folder}"
    return "does not exist"
