"""Models that llama-gguf-split cut into several files: refused, for one file is not the model."""

from collections.abc import Mapping
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue

_COUNT = "split.count"


def require_whole(path: Path, metadata: Mapping[str, MetadataValue]) -> None:
    """Raise LlamadError MODEL_UNSUPPORTED for a file that is one part of a model."""
    n_parts = metadata.get(_COUNT)
    if isinstance(n_parts, int) and n_parts > 1:
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_UNSUPPORTED",
            f"{path}: is one of {n_parts} parts of a model, which llama-gguf-split --merge joins",
        )
