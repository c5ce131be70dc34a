"""A safetensors file: its tensors by name.

Format: huggingface/safetensors, README, "Format": eight bytes of header length, a JSON header, the
weights. Every offset of the header is checked before a weight is read.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from llamad_tools.checkpoints.json_file import parse_json
from llamad_tools.checkpoints.source import (
    Rows,
    SourceFile,
    SourceTensor,
    corrupt,
    unsupported,
)

MAX_HEADER_BYTES = 16 << 20  # the format allows 100 MB; LLaMA-405B's largest has 20 KB
_TYPES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}  # bytes are of blocks


def open_safetensors(
    path: Path, files: ExitStack, wanted: Callable[[str], bool]
) -> dict[str, SourceTensor]:
    """Return those tensors of a file whose names are wanted; ``files`` gets what must be closed.

    Raises LlamadError that names the path and the fault.
    """
    file = SourceFile(path)
    files.callback(file.close)
    header_bytes = int.from_bytes(file.read(0, 8), "little")
    if header_bytes > min(MAX_HEADER_BYTES, file.n_bytes - 8):
        raise corrupt(path, f"has a header of {header_bytes} bytes in a file of {file.n_bytes}")
    header = parse_json(path, file.read(8, header_bytes))
    header.pop("__metadata__", None)
    return dict(_tensors(file, header, 8 + header_bytes, wanted))


def _tensors(
    file: SourceFile, header: Mapping[str, Any], data_start: int, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, SourceTensor]]:
    """Yield every tensor that is wanted; with the others they fill the file."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(file.path, *item)):
        start, stop = _offsets(file.path, name, entry)
        if start != end:
            raise corrupt(file.path, f"{name} begins at {start}, the one before ends at {end}")
        end = stop
        if wanted(name):
            yield name, _tensor(file, name, entry, data_start + start, stop - start)
    if data_start + end != file.n_bytes:
        raise corrupt(
            file.path, f"has {file.n_bytes} bytes, its header needs {data_start + end}: cut short?"
        )


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    match entry:
        case {"data_offsets": [int(start), int(stop)]} if 0 <= start <= stop:
            return start, stop
    raise corrupt(path, f"{name} has no data_offsets of two ascending numbers")


def _tensor(
    file: SourceFile, name: str, entry: Mapping[str, Any], offset: int, n_bytes: int
) -> SourceTensor:
    type_name, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise corrupt(file.path, f"{name} has shape {shape!r}")
    most = 4 if type_name == "U8" else 3  # three are of a convolution or of experts
    is_table = len(shape) <= most
    if not isinstance(type_name, str) or type_name not in _TYPES or not is_table:
        raise unsupported(
            file.path,
            f"{name} is {type_name} of shape {shape}: only vectors, matrices, stacks of them, of "
            f"{', '.join(_TYPES)} are read",
        )
    row_bytes = shape[-1] * _TYPES[type_name]
    if math.prod(shape) * _TYPES[type_name] != n_bytes:
        raise corrupt(file.path, f"{name} {type_name} of shape {shape} has {n_bytes} bytes")

    def read_rows(start: int, stop: int) -> Rows:
        data = file.read(offset + start * row_bytes, (stop - start) * row_bytes)
        return np.frombuffer(data, np.uint8).reshape(stop - start, row_bytes)

    return SourceTensor(name, tuple(shape), type_name, read_rows)
