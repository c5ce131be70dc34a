"""Importance matrices: how much each column of a weight matrix matters, measured over a text.

Reads the GGUF form that ``llama-imatrix`` writes: for a matrix NAME the float32 tensors
``NAME.in_sum2`` (n_cols), the sums of the squares of each input, and ``NAME.counts`` (1), over how
many tokens. Does not measure.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from llamad.engine.bindings import GgufFile, TensorInfo
from llamad.errors import ErrorKind, LlamadError

SUMS, COUNTS = ".in_sum2", ".counts"


def read_imatrix(path: Path) -> Mapping[str, memoryview]:
    """Return each matrix's importance, (n_cols) float32: the mean squares of its inputs.

    Raises LlamadError, which names the path, for a file that holds no importance matrix.
    """
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
    if len(counts) != 1:
        raise _invalid(f"{path}: {name} has {len(counts)} experts, only dense models are supported")
    if not all(math.isfinite(value) and value >= 0 for value in (*sums, counts[0])):
        raise _invalid(f"{path}: {name} has a sum of squares that is negative or not finite")
    return memoryview(array("f", (value / max(counts[0], 1.0) for value in sums)))


def _invalid(message: str) -> LlamadError:
    return LlamadError(ErrorKind.INVALID, "IMATRIX_UNREADABLE", message)
