"""Reading the shape of a model: of a GGUF file, or of the file that a checkpoint would become."""

from collections.abc import Sequence
from pathlib import Path

from llamad.engine.bindings import GgufFile, TensorInfo
from llamad.errors import LlamadError
from llamad.gguf.split import require_whole
from llamad.gguf.value import RawEntry
from llamad_tools.advice.shape import ModelShape, describe_shape
from llamad_tools.checkpoints.conversion import (
    is_checkpoint,
    naming_unreadable,
    open_checkpoint,
    raw_entries,
    tensor_table,
)


def read_shape(path: Path) -> ModelShape:
    """Read what says the shape of a GGUF file or of a checkpoint: of neither the weights.

    Raises LlamadError, which names the path and the fault.
    """
    with naming_unreadable():
        return read_checkpoint_shape(path) if is_checkpoint(path) else read_file_shape(path)


def read_file_shape(path: Path) -> ModelShape:
    """Read the header of a GGUF file."""
    with GgufFile(path) as file:
        require_whole(path, file.metadata())
        return _shape(path, file.raw_metadata(), file.tensors())


def read_checkpoint_shape(path: Path) -> ModelShape:
    """Read the shape of the file that ``llamad convert`` would write. Raises OSError, too."""
    with open_checkpoint(path, keep_types=True) as checkpoint:
        return _shape(path, raw_entries(checkpoint), tensor_table(checkpoint))


def _shape(path: Path, entries: Sequence[RawEntry], tensors: Sequence[TensorInfo]) -> ModelShape:
    try:
        return describe_shape(entries, tensors)
    except LlamadError as error:
        raise LlamadError(error.kind, error.reason, f"{path}: {error.message}") from error
