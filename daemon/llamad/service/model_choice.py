"""Which model of the directory is served: at a start, and when somebody chooses.

Owns what the configuration forbids, what the next start is told (``.selected``, by registry.py),
and which files must stay because they are loaded or about to be. Loads nothing. Blocking, as
whatever reads the directory.
"""

import logging
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.store.adapter_files import is_adapter
from llamad.store.registry import ModelFile, ModelRegistry, check_name, comparable_path

log = logging.getLogger(__name__)


class ModelChoice:
    """The choice of one run of the service."""

    def __init__(self, fixed: str, registry: ModelRegistry) -> None:
        """Choose freely, or only what model.path of the configuration names: ``fixed``."""
        self._fixed = fixed
        self._registry = registry
        self._reserved: frozenset[Path] = frozenset()

    def first(self) -> ModelFile | None:
        """Return the model of a start; None where there is none, or several and none chosen."""
        try:
            return self._registry.resolve(self._fixed)
        except LlamadError:  # the load tells it
            return None

    def selected(self) -> Path | None:
        """Return the file that the next start would load. Any thread."""
        file = self.first()
        return None if file is None else comparable_path(file.path)

    def require(self, name: str) -> ModelFile:
        """Return the model of a name.

        Raises INVALID_NAME, MODEL_NOT_FOUND, MODEL_IS_ADAPTER, MODEL_FIXED.
        """
        file = self._registry.require(check_name(name))
        if is_adapter(file.path):
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_IS_ADAPTER",
                f"{name} is an adapter (LoRA): it is loaded with its model, and requests name it",
            )
        if self._fixed and self.selected() != comparable_path(file.path):
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_FIXED",
                f"the model is fixed by model.path = {self._fixed!r} in the configuration, or by"
                " --model: remove it, restart the service, and then choose",
            )
        return file

    def adapter_times(self) -> dict[str, int]:
        """Return which adapters lie beside the models, see ModelRegistry.adapter_times."""
        return self._registry.adapter_times()

    def remember(self, file: ModelFile) -> None:
        """Let the next start load this model, unless the configuration names it.

        Raises LlamadError where that cannot be written.
        """
        if self._fixed:
            return
        try:
            self._registry.select(file.name)
        except LlamadError as error:
            message = f"{file.name} is loaded, but will not be at the next start: {error.message}"
            raise LlamadError(error.kind, error.reason, message) from error

    def remember_only(self, file: ModelFile) -> None:
        """Where nobody chose a model, let the next start load this one, even beside others."""
        if self._registry.selected():
            return
        try:
            self.remember(file)
        except LlamadError as error:
            log.warning(fields("model not remembered", model=file.name, message=error.message))

    # ---- files in use ----------------------------------------------------------------------------

    def reserve(self, *files: ModelFile | None) -> None:
        """Take note of all files that are loaded or about to be."""
        self._reserved = frozenset().union(*map(_paths_of, files))

    def reserve_also(self, file: ModelFile | None) -> None:
        """Take note of one more."""
        self._reserved |= _paths_of(file)

    def in_use(self, name: str) -> bool:
        """Whether a model of the directory is loaded or about to be. Any thread."""
        return self._registry.path_of(name) in self._reserved


def _paths_of(file: ModelFile | None) -> frozenset[Path]:
    """Return where a file lies, and where what it links to does."""
    if file is None:
        return frozenset()
    return frozenset({comparable_path(file.path), file.path.resolve()})
