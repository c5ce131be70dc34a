"""The model directory: which files it holds and which one a name means.

Owns names and paths; opens no model. A name is the file's name without ``.gguf``. A link that leads
out of the directory is not a model of the directory, whatever it points to.
"""

import stat
from dataclasses import dataclass
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError

SUFFIX = ".gguf"


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

        Raises MODEL_DIRECTORY_UNREADABLE. Reads the file system: not for the event loop's thread.
        """
        try:
            root = self.directory.resolve(strict=True)
            found = [self._model(path, root) for path in sorted(root.glob("*" + SUFFIX))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_DIRECTORY_UNREADABLE",
                f"model directory {self.directory}: {error.strerror}",
            ) from error
        return [model for model in found if model is not None]

    def resolve(self, model: str) -> ModelFile:
        """Return the file that ``model`` means: a path, or the name of a model in the directory.

        Anything with a slash or the suffix is a path, and may lie anywhere: it comes from the
        operator, never from a request. An empty string is the directory's only model. Raises
        MODEL_NOT_FOUND, or MODEL_UNREADABLE for what is no regular file.
        """
        if not model:
            return self._only()
        if "/" in model or model.endswith(SUFFIX):
            return self._at(Path(model))
        for candidate in self.scan():
            if candidate.name == model:
                return candidate
        raise LlamadError(
            ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {model!r} in {self.directory}"
        )

    def _only(self) -> ModelFile:
        models = self.scan()
        if len(models) == 1:
            return models[0]
        if not models:
            raise LlamadError(
                ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", f"no {SUFFIX} file in {self.directory}"
            )
        names = ", ".join(model.name for model in models)
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_AMBIGUOUS",
            f"{self.directory} holds {len(models)} models, name one: {names}",
        )

    def _at(self, path: Path) -> ModelFile:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise LlamadError(
                ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model file {path}"
            ) from None
        except (OSError, ValueError) as error:
            raise LlamadError(
                ErrorKind.STATE, "MODEL_UNREADABLE", f"model file {path}: {error}"
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
