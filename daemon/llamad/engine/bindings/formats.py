"""What the engine is built as, its kernels, and the tensor types it converts."""

from collections.abc import Mapping
from typing import cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.status import EngineError, check, cpu_argument, last_message

Buffer = bytes | bytearray | memoryview


def _tensor_types() -> dict[str, int]:
    names = ((lib.lld_type_name(type_id), type_id) for type_id in range(64))
    return {ffi.string(name).decode(): type_id for name, type_id in names if name != ffi.NULL}


TENSOR_TYPES: Mapping[str, int] = _tensor_types()
"""The tensor types this engine supports: name to GGML type id."""


def engine_version() -> str:
    """Return the version the C engine was built as."""
    return cast(str, ffi.string(lib.lld_version()).decode())


def kernel_set(cpu: str | None = None) -> str:
    """Return the kernel set chosen for ``cpu`` (None: $LLAMAD_CPU, or all of this machine)."""
    name = lib.lld_cpu_kernel_set(cpu_argument(cpu))
    if name == ffi.NULL:
        raise EngineError(lib.LLD_ERR_INVALID, last_message())
    return cast(str, ffi.string(name).decode())


def dequantize(type_name: str, data: bytes, n: int) -> "memoryview[float]":
    """Return a row of n weights as (n) float32; data: their blocks, as they lie in a GGUF file.

    Raises ValueError for a type that is not supported, EngineError for an n that is no multiple of
    the type's block or data of another size than n weights have.
    """
    if type_name not in TENSOR_TYPES:
        raise ValueError(f"type {type_name} is not supported: {', '.join(TENSOR_TYPES)}")
    row = ffi.new("float[]", n)
    check(lib.lld_dequantize(TENSOR_TYPES[type_name], data, len(data), n, row))
    return memoryview(ffi.buffer(row)).cast("f")


def block_size(type_name: str) -> int:
    """Return the weights of one block of a supported type; rows are multiples. 1: plain floats."""
    return cast(int, lib.lld_type_block(TENSOR_TYPES[type_name]))


def row_bytes(type_name: str, n_cols: int) -> int:
    """Return the bytes of n_cols weights; 0 when those are no multiple of the type's block."""
    return cast(int, lib.lld_type_bytes(TENSOR_TYPES[type_name], n_cols))


def requantize(
    source_type: str,
    source: Buffer,
    type_name: str,
    target: Buffer,
    n_cols: int,
    *,
    importance: Buffer | None = None,
    n_threads: int = 1,
) -> None:
    """Convert rows of n_cols weights from one type to another; float32 is type F32.

    source: whole rows, as they lie in a GGUF file; target: room for as many rows, writable.
    importance: (n_cols) float32 >= 0, the weights of the columns' squared errors. Raises
    EngineError, which for a weight that is NaN, infinite or too large names its row and column.
    """
    from_id, to_id = TENSOR_TYPES[source_type], TENSOR_TYPES[type_name]
    n_rows, rest = divmod(memoryview(source).nbytes, row_bytes(source_type, n_cols) or 1)
    if rest or n_rows * row_bytes(type_name, n_cols) != memoryview(target).nbytes:
        raise ValueError(f"{n_rows} rows of {n_cols} {source_type} do not fit as {type_name}")
    if importance is not None and memoryview(importance).nbytes != 4 * n_cols:
        raise ValueError(f"the importance of {n_cols} columns has the wrong size")
    weights = ffi.NULL if importance is None else ffi.from_buffer("float[]", importance)
    data, out = ffi.from_buffer(source), ffi.from_buffer(target, require_writable=True)
    check(lib.lld_requantize(from_id, data, to_id, n_rows, n_cols, weights, out, n_threads))
