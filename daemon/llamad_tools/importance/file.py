"""Importance matrices: how much each column of a weight matrix matters, measured over a text.

Reads and writes the GGUF form of ``llama-imatrix``: for a matrix NAME the float32 tensors
``NAME.in_sum2`` (n_cols), the sums of the squares of each input, and ``NAME.counts`` (1), over how
many tokens; of experts (n_experts, n_cols) and (n_experts, 1), each over the tokens that chose it.
Reads the form before that one too, ``imatrix.dat``, little endian: int32 n_entries; for each int32
name length, name, int32 n_calls, int32 n, float32 (n) sums over the calls, n_cols of each expert
behind each other; what follows tells where they come from. Does not measure.
"""

import math
import os
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llamad.engine.bindings import GgufFile, TensorInfo
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import ValueType
from llamad.gguf.writer import GgufWriter

SUMS, COUNTS = ".in_sum2", ".counts"
GGUF_MAGIC = b"GGUF"
MAX_ENTRIES = 1 << 20  # of an imatrix.dat; as many as a GGUF file may have tensors


@dataclass(frozen=True, slots=True)
class InputSums:
    """What was measured of one tensor: of a matrix, or of one for each expert.

    sums: (n_matrices, n_cols), flat; n_rows: (n_matrices), the rows of input that each sums up.
    """

    matrix: str
    sums: Sequence[float]
    n_rows: Sequence[int]


def write_imatrix(
    path: Path,
    matrices: Sequence[InputSums],
    *,
    dataset: str,
    n_chunks: int,
    chunk_size: int,
    inputs: Iterable[Path] = (),
) -> None:
    """Write sums measured over n_chunks pieces of chunk_size tokens of a dataset.

    inputs: files that must not be replaced. Raises LlamadError, which names the path or the matrix;
    then no file is left.
    """
    with GgufWriter(path, inputs=inputs) as writer:
        writer.add("general.type", "imatrix", ValueType.STRING)
        writer.add_array("imatrix.datasets", [dataset], ValueType.STRING)
        writer.add("imatrix.chunk_count", n_chunks, ValueType.UINT32)
        writer.add("imatrix.chunk_size", chunk_size, ValueType.UINT32)
        for matrix in matrices:
            n = len(matrix.n_rows)
            experts = (n,) if n > 1 else ()
            writer.add_tensor(matrix.matrix + SUMS, "F32", (len(matrix.sums) // n, *experts))
            writer.add_tensor(matrix.matrix + COUNTS, "F32", (1, *experts))
        writer.begin()
        for matrix in matrices:
            sums = array("f", matrix.sums)
            if not all(map(math.isfinite, sums)):
                raise LlamadError(
                    ErrorKind.CORRUPT,
                    "MODEL_NOT_FINITE",
                    f"the squares of the inputs of {matrix.matrix} sum to no finite number",
                )
            writer.write(sums.tobytes())
            writer.write(array("f", matrix.n_rows).tobytes())
        writer.finish()


def read_imatrix(path: Path) -> Mapping[str, memoryview]:
    """Return each tensor's importance, the mean squares of its inputs.

    (n_cols) float32; of experts (n_experts, n_cols), flat, zeros for one that no token chose.
    Raises LlamadError, which names the path, for a file that holds no importance matrix.
    """
    try:
        with path.open("rb") as data:
            if data.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                data.seek(0)
                return _read_dat(path, data)
    except OSError as error:
        raise _invalid(f"{path}: {error.strerror}") from error
    return _read_gguf(path)


# ---- GGUF --------------------------------------------------------------------------------------


def _read_gguf(path: Path) -> Mapping[str, memoryview]:
    with GgufFile(path) as file:
        tensors = {tensor.name: tensor for tensor in file.tensors()}
    result = {}
    with path.open("rb") as data:
        for name, sums in tensors.items():
            if not name.endswith(SUMS):
                continue
            matrix = name.removesuffix(SUMS)
            counts = tensors.get(matrix + COUNTS)
            if counts is None:
                raise _invalid(f"{path}: {matrix} has no counts")
            result[matrix] = _means(path, matrix, _floats(data, sums), _floats(data, counts))
    if not result:
        raise _invalid(f"{path} holds no importance matrix: no tensor is named *{SUMS}")
    return result


def _floats(data: BinaryIO, tensor: TensorInfo) -> Sequence[float]:
    if tensor.type_name != "F32":
        raise _invalid(f"tensor {tensor.name} is {tensor.type_name}, expected F32")
    data.seek(tensor.file_offset)
    return array("f", data.read(tensor.n_bytes))


def _means(path: Path, name: str, sums: Sequence[float], counts: Sequence[float]) -> memoryview:
    n_cols, rest = divmod(len(sums), len(counts))
    if rest:
        raise _invalid(f"{path}: {name} has {len(sums)} sums, no multiple of {len(counts)} counts")
    means = array("f")
    for i, count in enumerate(counts):
        means.extend(_divided(path, name, sums[i * n_cols : (i + 1) * n_cols], count))
    return memoryview(means)


# ---- imatrix.dat -------------------------------------------------------------------------------


def _read_dat(path: Path, data: BinaryIO) -> Mapping[str, memoryview]:
    (n_entries,) = struct.unpack("<i", _read(path, data, 4))
    if not 1 <= n_entries <= MAX_ENTRIES:
        raise _invalid(f"{path} holds no importance matrix: it is no GGUF and no imatrix.dat")
    result = {}
    for _ in range(n_entries):
        (length,) = struct.unpack("<i", _read(path, data, 4))
        name = _read(path, data, length).decode("utf-8", "surrogateescape")
        n_calls, n_cols = struct.unpack("<ii", _read(path, data, 8))
        sums = array("f", _read(path, data, 4 * n_cols))
        result[name] = memoryview(_divided(path, name, sums, max(n_calls, 0)))
    return result


def _read(path: Path, data: BinaryIO, n_bytes: int) -> bytes:
    """Return the next n_bytes, which the file itself may ask for."""
    left = os.fstat(data.fileno()).st_size - data.tell()
    if not 1 <= n_bytes <= left:
        raise _invalid(f"{path} is no imatrix.dat: {n_bytes} bytes at {data.tell()}, {left} left")
    return data.read(n_bytes)


# ---- both --------------------------------------------------------------------------------------


def _divided(path: Path, name: str, sums: Sequence[float], count: float) -> "array[float]":
    if not all(math.isfinite(value) and value >= 0 for value in (*sums, count)):
        raise _invalid(f"{path}: {name} has a sum of squares that is negative or not finite")
    return array("f", (value / max(count, 1.0) for value in sums))


def _invalid(message: str) -> LlamadError:
    return LlamadError(ErrorKind.INVALID, "IMATRIX_UNREADABLE", message)
