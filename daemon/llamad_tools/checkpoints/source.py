"""A checkpoint as the conversion sees it, whatever it was read from, and the errors of reading one.

Rows travel as bytes in the layout of a GGML type, so that joining and permuting need to know
nothing of number formats. A reader builds ``SourceTensor``s; none of them holds weights.
"""

import math
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llamad.errors import ErrorKind, LlamadError

Rows = NDArray[np.uint8]
"""(n_rows, row_bytes)"""

Floats = NDArray[np.float32]

MAX_QUOTED = 80  # characters of a value in a message

_FLOATS = {"F32": "<f4", "F16": "<f2"}

Metadata = dict[str, Any]
"""GGUF metadata: bool, int, float, str, or a list of one of them."""


def corrupt(path: Path, message: str) -> LlamadError:
    """Return the error for a checkpoint that contradicts itself or its format."""
    return LlamadError(ErrorKind.CORRUPT, "CHECKPOINT_CORRUPT", f"{path}: {message}")


def unsupported(path: Path, message: str) -> LlamadError:
    """Return the error for a checkpoint that is valid, but not one that can be converted."""
    return LlamadError(ErrorKind.STATE, "CHECKPOINT_UNSUPPORTED", f"{path}: {message}")


class SourceFile:
    """A file that is read at offsets. Not mapped: a file that shrinks is an error, not a signal."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises LlamadError CHECKPOINT_CORRUPT when it cannot be read."""
        self.path = path
        try:  # not to wait for the writer of a FIFO
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise corrupt(path, error.strerror or "cannot be opened") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise corrupt(path, "is no regular file")
        self.n_bytes = status.st_size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return exactly n_bytes from offset; raises LlamadError CHECKPOINT_CORRUPT otherwise."""
        if offset < 0 or n_bytes < 0 or offset + n_bytes > self.n_bytes:
            raise corrupt(
                self.path,
                f"bytes {offset} to {offset + n_bytes} are needed, the file has {self.n_bytes}",
            )
        try:
            data = os.pread(self._descriptor, n_bytes, offset)
        except OSError as error:
            raise corrupt(self.path, error.strerror or "cannot be read") from None
        if len(data) != n_bytes:
            raise corrupt(self.path, f"ends at byte {offset + len(data)} while it is read")
        return data

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor: shape (n_rows, n_cols) or (n_cols,), as rows of a GGML type."""

    name: str
    shape: tuple[int, ...]
    type_name: str  # of the rows that read_rows returns: "F16" and so on
    read_rows: Callable[[int, int], Rows]  # rows [start, stop); a vector is one row

    @property
    def n_rows(self) -> int:
        """Rows; 1 for a vector."""
        return math.prod(self.shape[:-1])

    @property
    def n_cols(self) -> int:
        """Weights of a row."""
        return self.shape[-1]

    def renamed(self, name: str) -> Self:
        """Return the same tensor under another name."""
        return replace(self, name=name)


@dataclass(slots=True)
class Checkpoint:
    """What a GGUF file is made of. Owns the open files: close it after the tensors were read."""

    metadata: Metadata
    tensors: Sequence[SourceTensor]
    files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()


def join_rows(parts: Sequence[SourceTensor]) -> SourceTensor:
    """Return the parts under one another: shards of a column-parallel layer."""
    starts = np.cumsum([0, *(part.n_rows for part in parts)]).tolist()

    def read_rows(start: int, stop: int) -> Rows:
        pieces = [
            part.read_rows(max(start - first, 0), min(stop - first, part.n_rows))
            for part, first in zip(parts, starts, strict=False)
            if start < first + part.n_rows and stop > first
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    shape = (starts[-1], parts[0].n_cols)
    return replace(parts[0], shape=shape, read_rows=read_rows)


def join_columns(parts: Sequence[SourceTensor]) -> SourceTensor:
    """Return the parts side by side: shards of a row-parallel layer."""

    def read_rows(start: int, stop: int) -> Rows:
        return np.concatenate([part.read_rows(start, stop) for part in parts], axis=1)

    shape = (parts[0].n_rows, sum(part.n_cols for part in parts))
    return replace(parts[0], shape=shape, read_rows=read_rows)


def interleave_heads(tensor: SourceTensor, head_dim: int) -> SourceTensor:
    """Return the rows of each head in the order of GGUF's llama layout.

    Hugging Face rotates row i of a head with row i + head_dim/2; GGUF's llama (like Meta's own
    checkpoints) row 2i with row 2i + 1. Vectors (biases) are taken element by element.
    """
    pairs = np.arange(head_dim).reshape(2, head_dim // 2).T.reshape(-1)  # 0, h/2, 1, h/2 + 1, ...

    def read_rows(start: int, stop: int) -> Rows:
        first = start - start % head_dim
        last = stop + -stop % head_dim
        rows = tensor.read_rows(first, last)
        heads = rows.reshape(-1, head_dim, rows.shape[1])[:, pairs]
        return heads.reshape(-1, rows.shape[1])[start - first : stop - first]

    def read_vector(start: int, stop: int) -> Rows:
        row = tensor.read_rows(start, stop)
        heads = row.reshape(-1, head_dim, row.shape[1] // tensor.n_cols)[:, pairs]
        return heads.reshape(1, -1)

    return replace(tensor, read_rows=read_rows if len(tensor.shape) == 2 else read_vector)


def map_floats(tensor: SourceTensor, change: Callable[[Floats], Floats]) -> SourceTensor:
    """Return a tensor of floats, each changed, as float32."""

    def read_rows(start: int, stop: int) -> Rows:
        values = change(_read_floats(tensor, start, stop))
        return values.astype(np.float32, copy=False).view(np.uint8)

    return replace(tensor, type_name="F32", read_rows=read_rows)


def scale_rows(tensor: SourceTensor, factors: Floats) -> SourceTensor:
    """Return a matrix of floats, each row times its factor, as float32. factors: (n_rows,)."""

    def read_rows(start: int, stop: int) -> Rows:
        values = _read_floats(tensor, start, stop) * factors[start:stop, None]
        return values.view(np.uint8)

    return replace(tensor, type_name="F32", read_rows=read_rows)


def _read_floats(tensor: SourceTensor, start: int, stop: int) -> Floats:
    data = tensor.read_rows(start, stop)
    if tensor.type_name == "BF16":  # the upper half of a float32
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(np.dtype(_FLOATS[tensor.type_name])).astype(np.float32)


def plus_one(tensor: SourceTensor) -> SourceTensor:
    """Return a vector of floats, each one more, as float32."""
    return map_floats(tensor, lambda values: values + np.float32(1))


def vector(name: str, values: Sequence[float]) -> SourceTensor:
    """Return a float32 vector that stands in no file."""
    row = np.asarray(values, np.float32).reshape(1, -1).view(np.uint8)
    return SourceTensor(name, (len(values),), "F32", lambda start, stop: row[start:stop])
