"""The only importer of the C module: handles as classes, statuses as errors.

A thread rule: one handle is used by one thread at a time (the engine thread), except
``Engine.cancel``, which any thread may call. cffi releases the GIL around every call.
"""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fsencode
from types import TracebackType
from typing import Any, Self, cast

from llamad._engine import ffi, lib
from llamad.engine.info import EngineInfo as EngineInfo
from llamad.engine.info import Locked as Locked
from llamad.engine.info import ModelInfo as ModelInfo
from llamad.engine.info import TensorInfo as TensorInfo
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue, RawEntry
from llamad.sampling.parameters import PARAMETERS, Sampling

Buffer = bytes | bytearray | memoryview

_STATUS: dict[int, tuple[ErrorKind, str]] = {
    lib.LLD_ERR_IO: (ErrorKind.STATE, "MODEL_UNREADABLE"),
    lib.LLD_ERR_CORRUPT: (ErrorKind.CORRUPT, "MODEL_CORRUPT"),
    lib.LLD_ERR_UNSUPPORTED: (ErrorKind.STATE, "MODEL_UNSUPPORTED"),
    lib.LLD_ERR_INVALID: (ErrorKind.INVALID, "INVALID_ARGUMENT"),
    lib.LLD_ERR_MEMORY: (ErrorKind.EXHAUSTED, "OUT_OF_MEMORY"),
    lib.LLD_ERR_CANCELLED: (ErrorKind.CANCELLED, "CANCELLED"),
    lib.LLD_ERR_KV_FULL: (ErrorKind.EXHAUSTED, "KV_CACHE_FULL"),
    lib.LLD_ERR_FAULT: (ErrorKind.CORRUPT, "MODEL_FILE_LOST"),
    lib.LLD_ERR_NUMERIC: (ErrorKind.CORRUPT, "MODEL_NOT_FINITE"),
}


def _tensor_types() -> dict[str, int]:
    names = ((lib.lld_type_name(type_id), type_id) for type_id in range(64))
    return {ffi.string(name).decode(): type_id for name, type_id in names if name != ffi.NULL}


TENSOR_TYPES: Mapping[str, int] = _tensor_types()
"""The tensor types this engine supports: name to GGML type id."""


class EngineError(LlamadError):
    """A failed call of the engine; ``status`` is the lld_status."""

    def __init__(self, status: int, message: str) -> None:
        kind, reason = _STATUS.get(status, (ErrorKind.INTERNAL, "ENGINE_ERROR"))
        super().__init__(kind, reason, message)
        self.status = status


def _message() -> str:
    return cast(str, ffi.string(lib.lld_error_message()).decode("utf-8", "replace"))


def _check(status: int) -> None:
    if status != lib.LLD_OK:
        raise EngineError(status, _message())


def engine_version() -> str:
    """Return the version the C engine was built as."""
    return cast(str, ffi.string(lib.lld_version()).decode())


def kernel_set(cpu: str | None = None) -> str:
    """Return the kernel set chosen for ``cpu`` (None: $LLAMAD_CPU, or all of this machine)."""
    name = lib.lld_cpu_kernel_set(_cpu_argument(cpu))
    if name == ffi.NULL:
        raise EngineError(lib.LLD_ERR_INVALID, _message())
    return cast(str, ffi.string(name).decode())


def dequantize(type_name: str, data: bytes, n: int) -> "memoryview[float]":
    """Return a row of n weights as (n) float32; data: their blocks, as they lie in a GGUF file.

    Raises ValueError for a type that is not supported, EngineError for an n that is no multiple of
    the type's block or data of another size than n weights have.
    """
    if type_name not in TENSOR_TYPES:
        raise ValueError(f"type {type_name} is not supported: {', '.join(TENSOR_TYPES)}")
    row = ffi.new("float[]", n)
    _check(lib.lld_dequantize(TENSOR_TYPES[type_name], data, len(data), n, row))
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
    _check(lib.lld_requantize(from_id, data, to_id, n_rows, n_cols, weights, out, n_threads))


def _cpu_argument(cpu: str | None) -> Any:
    return ffi.NULL if cpu is None else ffi.new("char[]", cpu.encode())


class _Handle:
    """A C object with an owner: closed once, and usable in a with statement."""

    def __init__(self, pointer: Any, destroy: Any) -> None:
        self._pointer = pointer
        self._destroy = destroy

    def close(self) -> None:
        """Free the C object. Closing twice is no error."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._destroy(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class GgufFile(_Handle):
    """An open GGUF file: its metadata and its tensor table. Errors name the path and the fault."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._pointer = None
        out = ffi.new("lld_file **")
        _check(lib.lld_file_open(fsencode(path), out))
        super().__init__(out[0], lib.lld_file_close)

    @property
    def version(self) -> int:
        """The GGUF version, 2 or 3."""
        return cast(int, lib.lld_file_version(self._pointer))

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return cast(int, lib.lld_file_bytes(self._pointer))

    def metadata(self) -> dict[str, MetadataValue]:
        """Return every metadata entry, in file order; bad UTF-8 is surrogate-escaped."""
        return _read_metadata(self._pointer)

    def raw_metadata(self) -> list[RawEntry]:
        """Return every metadata entry, in file order, undecoded."""
        return list(_entries(self._pointer))

    def tensors(self) -> list[TensorInfo]:
        """Return the tensor table, in file order."""
        tensor = ffi.new("lld_tensor *")
        result = []
        for i in range(lib.lld_file_n_tensors(self._pointer)):
            _check(lib.lld_file_tensor(self._pointer, i, tensor))
            type_name = lib.lld_type_name(tensor.type)
            result.append(
                TensorInfo(
                    name=_text(tensor.name, tensor.name_length),
                    type_name=f"type {tensor.type}"
                    if type_name == ffi.NULL
                    else ffi.string(type_name).decode(),
                    shape=tuple(tensor.dims[d] for d in range(tensor.n_dims)),
                    n_bytes=tensor.bytes,
                    file_offset=tensor.file_offset,
                )
            )
        return result


def read_metadata(path: str | PathLike[str]) -> dict[str, MetadataValue]:
    """Return the metadata of a GGUF file, with tensors or without."""
    with GgufFile(path) as file:
        return file.metadata()


def _text(pointer: Any, length: int) -> str:
    return bytes(ffi.buffer(pointer, length)).decode("utf-8", "surrogateescape")


def _entries(file: Any) -> Iterator[RawEntry]:
    entry = ffi.new("lld_kv *")
    for i in range(lib.lld_file_n_kv(file)):
        _check(lib.lld_file_kv(file, i, entry))
        yield RawEntry(
            key=_text(entry.key, entry.key_length),
            type_id=entry.type,
            element_type_id=entry.element_type,
            count=entry.count,
            data=bytes(ffi.buffer(entry.data, entry.data_bytes)) if entry.data_bytes else b"",
        )


def _read_metadata(file: Any) -> dict[str, MetadataValue]:
    return {entry.key: entry.decode() for entry in _entries(file)}


class StopFlag:
    """A flag that ends ``EngineModel.populate`` and ``lock`` early; any thread may set it."""

    def __init__(self) -> None:
        self._flag = ffi.new("int32_t *", 0)

    def set(self) -> None:
        """Raise the flag."""
        self._flag[0] = 1


def _stop_pointer(stop: StopFlag | None) -> Any:
    return ffi.NULL if stop is None else stop._flag


class EngineModel(_Handle):
    """A mapped model: immutable hyperparameters and weights."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._pointer = None
        out = ffi.new("lld_model **")
        _check(lib.lld_model_open(fsencode(path), out))
        super().__init__(out[0], lib.lld_model_close)
        info = ffi.new("lld_model_info *")
        lib.lld_model_get_info(self._pointer, info)
        numbers = {
            name: getattr(info, name) for name in ModelInfo.__slots__ if name != "architecture"
        }
        self.info = ModelInfo(architecture=ffi.string(info.architecture).decode(), **numbers)

    def metadata(self) -> dict[str, MetadataValue]:
        """Return the metadata of the model's file."""
        return _read_metadata(lib.lld_model_file(self._pointer))

    def populate(self, stop: StopFlag | None = None) -> None:
        """Read the weights into the page cache and map them; blocks as long as the disk needs."""
        _check(lib.lld_model_populate(self._pointer, _stop_pointer(stop)))

    def use_huge_pages(self, stop: StopFlag | None = None) -> None:
        """Copy the weights into huge pages, in place of the mapped file; before any engine runs."""
        _check(lib.lld_model_use_huge_pages(self._pointer, _stop_pointer(stop)))

    def read_bandwidth(self, n_threads: int) -> float:
        """Measure how fast the weights can be read from memory, in bytes per second."""
        result = ffi.new("double *")
        _check(lib.lld_model_read_bandwidth(self._pointer, n_threads, result))
        return cast(float, result[0])

    def lock(self, max_bytes: int, stop: StopFlag | None = None) -> Locked:
        """Lock up to max_bytes of the weights in memory, those first that every token reads.

        Raises EngineError with kind CANCELLED when ``stop`` is set; ``close`` unlocks what was locked.
        """
        locked = ffi.new("uint64_t *")
        _check(lib.lld_model_lock(self._pointer, max_bytes, _stop_pointer(stop), locked))
        return Locked(cast(int, locked[0]), _message())


KV_TYPES: Mapping[str, int] = {"f16": lib.LLD_KV_F16, "q8_0": lib.LLD_KV_Q8_0}


class Engine(_Handle):
    """Threads, scratch and KV cache over one model."""

    def __init__(
        self,
        model: EngineModel,
        *,
        n_threads: int,
        n_ctx: int,
        n_sequences: int = 1,
        n_kv_tokens: int = 0,
        n_batch: int = 512,
        n_logits: int = 1,
        kv_type: str = "f16",
        cpu: str | None = None,
    ) -> None:
        self._pointer = None
        self._model = model  # outlives the engine
        cpu_argument = _cpu_argument(cpu)
        params = ffi.new(
            "lld_engine_params *",
            {
                "n_threads": n_threads,
                "n_ctx": n_ctx,
                "n_sequences": n_sequences,
                "n_kv_tokens": n_kv_tokens,
                "n_batch": n_batch,
                "n_logits": n_logits,
                "kv_type": KV_TYPES[kv_type],
                "cpu": cpu_argument,
            },
        )
        out = ffi.new("lld_engine **")
        _check(lib.lld_engine_create(model._pointer, params, out))
        super().__init__(out[0], lib.lld_engine_destroy)
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.n_logits = n_logits
        self.n_sequences = n_sequences
        self.vocab_size = model.info.vocab_size

    @property
    def info(self) -> EngineInfo:
        """What is allocated, and how many KV blocks are free now."""
        info = ffi.new("lld_engine_info *")
        lib.lld_engine_get_info(self._pointer, info)
        numbers = {
            name: getattr(info, name) for name in EngineInfo.__slots__ if name != "kernel_set"
        }
        return EngineInfo(kernel_set=ffi.string(info.kernel_set).decode(), **numbers)

    def forward(
        self,
        tokens: Sequence[int],
        sequences: Sequence[int],
        positions: Sequence[int],
        wants_logits: Sequence[int] | bytes,
    ) -> None:
        """Run rows of (token, sequence, position) through the model; see lld_engine_forward."""
        n = len(tokens)
        _check(
            lib.lld_engine_forward(
                self._pointer,
                ffi.new("int32_t[]", list(tokens)),
                ffi.new("uint32_t[]", list(sequences)),
                ffi.new("uint32_t[]", list(positions)),
                ffi.from_buffer("uint8_t[]", bytes(wants_logits)),
                n,
            )
        )

    def logits(self, k: int) -> "memoryview[float]":
        """Return kept row k, (vocab_size) float32, valid until the next forward."""
        row = lib.lld_engine_logits(self._pointer, k)
        if row == ffi.NULL:
            raise IndexError(f"row {k} of logits was not kept")
        return memoryview(ffi.buffer(row, self.vocab_size * 4)).cast("f")

    def log_probability(self, k: int, token: int) -> float:
        """Return the natural log-probability of a token under kept row k."""
        row = lib.lld_engine_logits(self._pointer, k)
        if row == ffi.NULL:
            raise IndexError(f"row {k} of logits was not kept")
        return cast(float, lib.lld_log_probability(row, self.vocab_size, token))

    def collect(self, importance: "Importance") -> None:
        """Add the rows of every forward from now on to sums that no other engine adds to."""
        _check(lib.lld_engine_collect(self._pointer, importance._pointer))
        self._importance = importance  # outlives the engine

    def cancel(self) -> None:
        """Make the running or next forward fail with CANCELLED. Any thread."""
        lib.lld_engine_cancel(self._pointer)

    def cancel_clear(self) -> None:
        """Lower the cancel flag; the caller does this before it composes a step."""
        lib.lld_engine_cancel_clear(self._pointer)

    def truncate(self, sequence: int, n_tokens: int) -> None:
        """Keep the first n_tokens of a sequence; 0 frees its KV blocks."""
        _check(lib.lld_sequence_truncate(self._pointer, sequence, n_tokens))

    def share(self, dst: int, src: int, n_tokens: int) -> None:
        """Give the empty sequence dst the first n_tokens of src without copying whole blocks."""
        _check(lib.lld_sequence_share(self._pointer, dst, src, n_tokens))

    def length(self, sequence: int) -> int:
        """Return the number of tokens in a sequence."""
        return cast(int, lib.lld_sequence_length(self._pointer, sequence))


INPUT_MATRICES: Mapping[int, tuple[str, ...]] = {
    lib.LLD_IMPORTANCE_QKV: ("attn_q", "attn_k", "attn_v"),
    lib.LLD_IMPORTANCE_ATTN_OUTPUT: ("attn_output",),
    lib.LLD_IMPORTANCE_GATE_UP: ("ffn_gate", "ffn_up"),
    lib.LLD_IMPORTANCE_DOWN: ("ffn_down",),
}
"""The matrices of a layer by the input that they share."""

OUTPUT_INPUT: int = lib.LLD_IMPORTANCE_OUTPUT
"""The input of the output matrix: kept rows only, in layer 0."""


class Importance(_Handle):
    """Sums of the squares of what the matrices of a model are multiplied with."""

    def __init__(self, model: EngineModel, n_threads: int) -> None:
        self._pointer = None
        self._model = model  # outlives the sums
        out = ffi.new("lld_importance **")
        _check(lib.lld_importance_create(model._pointer, n_threads, out))
        super().__init__(out[0], lib.lld_importance_destroy)

    def read(self, layer: int, input_id: int) -> "tuple[memoryview[float], int]":
        """Return (n_cols) float64 sums and the rows in them; no forward may be running."""
        n_cols = lib.lld_importance_cols(self._pointer, input_id)
        sums, n_rows = ffi.new("double[]", n_cols), ffi.new("uint64_t *")
        _check(lib.lld_importance_read(self._pointer, layer, input_id, sums, n_cols, n_rows))
        return memoryview(ffi.buffer(sums)).cast("d"), n_rows[0]


class Sampler(_Handle):
    """Parameters, random state and penalty window of one sequence."""

    def __init__(self, sampling: Sampling, *, vocab_size: int, n_ctx: int, seed: int) -> None:
        """Raise EngineError when a parameter is refused. seed: used whatever ``sampling`` says."""
        self._pointer = None
        numbers = {name: getattr(sampling, name) for name in PARAMETERS}
        bias = sampling.logit_bias
        out = ffi.new("lld_sampler **")
        _check(
            lib.lld_sampler_create(
                ffi.new("lld_sampling *", {**numbers, "seed": seed}),
                vocab_size,
                n_ctx,
                ffi.new("int32_t[]", list(bias.keys())),
                ffi.new("float[]", list(bias.values())),
                len(bias),
                out,
            )
        )
        super().__init__(out[0], lib.lld_sampler_destroy)

    def accept(self, token: int) -> None:
        """Put one token of the prompt into the penalty window."""
        lib.lld_sampler_accept(self._pointer, token)

    def sample(self, engine: Engine, k: int) -> int:
        """Draw the next token from kept row k."""
        token = ffi.new("int32_t *")
        row = lib.lld_engine_logits(engine._pointer, k)
        _check(lib.lld_sampler_sample(self._pointer, row, token, ffi.NULL))
        return cast(int, token[0])
