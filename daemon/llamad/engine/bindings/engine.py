"""The engine: steps, kept logits and blocks of the KV cache."""

from array import array
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Required, TypedDict, Unpack, cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.adapter import Adapter
from llamad.engine.bindings.formats import Buffer
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.importance import Importance
from llamad.engine.bindings.model import EngineModel
from llamad.engine.bindings.status import check, cpu_argument
from llamad.engine.info import EngineBytes, EngineInfo
from llamad.engine.run import Run

KV_TYPES: Mapping[str, int] = {
    "f16": lib.LLD_KV_F16,
    "q8_0": lib.LLD_KV_Q8_0,
    "q4_0": lib.LLD_KV_Q4_0,
}


class EngineParams(TypedDict, total=False):
    """The parameters of an engine; tokens, rows and KV blocks, see lld_engine_params."""

    n_threads: Required[int]
    n_ctx: Required[int]
    n_blocks: int
    n_local_blocks: int
    n_batch: int
    n_logits: int
    kv_type: str
    n_states: int
    cpu: str | None


def _params_argument(
    *,
    n_threads: int,
    n_ctx: int,
    n_blocks: int = 0,
    n_local_blocks: int = 0,
    n_batch: int = 512,
    n_logits: int = 1,
    kv_type: str = "f16",
    n_states: int = 0,
    cpu: str | None = None,
) -> tuple[Any, Any]:
    """Return the C struct, and the string that it points to."""
    if kv_type not in KV_TYPES:
        raise ValueError(f"KV type {kv_type} is not supported: {', '.join(KV_TYPES)}")
    name = cpu_argument(cpu)
    blocks = n_blocks, n_local_blocks
    numbers = (n_threads, n_ctx, *blocks, n_batch, n_logits, KV_TYPES[kv_type], n_states, name)
    return ffi.new("lld_engine_params *", numbers), name


def engine_bytes(model: EngineModel, **params: Unpack[EngineParams]) -> EngineBytes:
    """Return what an Engine with these parameters will allocate; raise EngineError as it would."""
    struct, _name = _params_argument(**params)
    sizes = ffi.new("lld_engine_sizes *")
    check(lib.lld_engine_bytes(model._c, struct, sizes))
    return EngineBytes(
        **{name: getattr(sizes, name) for name in EngineBytes.__slots__ if name != "sampler_bytes"},
        sampler_bytes=lib.lld_sampler_bytes(model.info.vocab_size, struct.n_ctx),
    )


def adapter_room_bytes(model: EngineModel, max_rank: int, **params: Unpack[EngineParams]) -> int:
    """Return what ``Engine.reserve_adapters`` takes in an Engine with these parameters."""
    struct, _name = _params_argument(**params)
    out = ffi.new("uint64_t *")
    check(lib.lld_engine_adapter_bytes(model._c, struct, max_rank, out))
    return cast(int, out[0])


def _local_argument(run: Run) -> Any:
    """Return the ids of a run's local blocks; NULL: those of its blocks."""
    if not run.local_blocks:
        return ffi.NULL
    if len(run.local_blocks) != len(run.blocks):
        raise ValueError(f"{len(run.local_blocks)} local blocks beside {len(run.blocks)} blocks")
    return ffi.new("uint32_t[]", list(run.local_blocks))


def _adapter_of(run: Run) -> tuple[Any, float]:
    """Return the adapter of a run and its scale; NULL: none."""
    if run.adapter is None:
        return ffi.NULL, 0.0
    if not isinstance(run.adapter.adapter, Adapter):
        raise TypeError(f"{type(run.adapter.adapter).__name__} is no Adapter")
    return run.adapter.adapter._c, run.adapter.scale


def _runs_argument(runs: Sequence[Run]) -> tuple[Any, list[Any]]:
    """Return the C structs, and the arrays that they do not keep alive."""
    c_runs, arrays = ffi.new("lld_run[]", len(runs)), []
    for i, run in enumerate(runs):
        tokens = ffi.new("int32_t[]", list(run.tokens))
        if i == 0 or run.blocks is not runs[i - 1].blocks:  # a run that continues shares them
            blocks = ffi.new("uint32_t[]", list(run.blocks))
            local = _local_argument(run)
        arrays += [tokens, blocks, local]
        where = (run.position, blocks, len(blocks))
        states = run.state_in, run.state_out
        c_runs[i] = (tokens, len(tokens), *where, run.n_out, *states, local, *_adapter_of(run))
    return c_runs, arrays


class Engine(Handle):
    """Threads, scratch and the blocks of a KV cache over one model."""

    def __init__(self, model: EngineModel, **params: Unpack[EngineParams]) -> None:
        struct, _name = _params_argument(**params)
        out = ffi.new("lld_engine **")
        check(lib.lld_engine_create(model._c, struct, out))
        self._lock = Lock()  # of what other threads may call, against close
        self._open(out[0], lib.lld_engine_destroy, model)
        self.n_ctx: int = struct.n_ctx
        self.n_batch: int = struct.n_batch
        self.n_logits: int = struct.n_logits
        self.vocab_size = model.info.vocab_size
        info = self.info
        self.n_blocks, self.block_tokens = info.kv_blocks_total, info.kv_block_tokens
        self.n_states = info.n_states
        self.n_local_blocks, self.kv_window = info.kv_local_blocks_total, info.kv_window
        self._block_bytes = info.kv_block_bytes, info.kv_local_block_bytes
        self._state_bytes = model.info.state_bytes

    @property
    def info(self) -> EngineInfo:
        """What is allocated."""
        info = ffi.new("lld_engine_info *")
        lib.lld_engine_get_info(self._c, info)
        numbers = {
            name: getattr(info, name) for name in EngineInfo.__slots__ if name != "kernel_set"
        }
        return EngineInfo(kernel_set=ffi.string(info.kernel_set).decode(), **numbers)

    def close(self) -> None:
        """Free the engine; no forward may be running. Closing twice is no error."""
        if not self._closed:
            with self._lock:
                super().close()

    def forward(self, runs: Sequence[Run]) -> None:
        """Compute the runs in one step; see lld_engine_forward.

        Raises EngineError; then no state before the positions of the runs has changed.
        """
        c_runs, _arrays = _runs_argument(runs)
        check(lib.lld_engine_forward(self._c, c_runs, len(runs)))

    def reserve_adapters(self, max_rank: int) -> None:
        """Take room for adapters of at most this rank in the steps that follow; 0 gives it back.

        Between forwards. Raises EngineError, also for what is above MAX_RANK.
        """
        check(lib.lld_engine_reserve_adapters(self._c, max_rank))

    def guess(self, runs: Sequence[Run]) -> None:
        """Guess behind runs of one token with the model's own layer; see lld_engine_guess.

        Raises EngineError.
        """
        c_runs, _arrays = _runs_argument(runs)
        check(lib.lld_engine_guess(self._c, c_runs, [run.row for run in runs], len(runs)))

    def _row(self, k: int) -> Any:
        row = lib.lld_engine_logits(self._c, k)
        if row == ffi.NULL:
            raise IndexError(f"row {k} of logits was not kept")
        return row

    def logits(self, k: int) -> "memoryview[float]":
        """Return a copy of kept row k: (vocab_size) float32."""
        return memoryview(bytes(ffi.buffer(self._row(k), self.vocab_size * 4))).cast("f")

    def log_probability(self, k: int, token: int) -> float:
        """Return the natural log-probability of a token under kept row k."""
        self._check_token(token)
        out = ffi.new("double *")
        lib.lld_log_probabilities(self._row(k), self.vocab_size, [token], 1, out)
        return cast(float, out[0])

    def _check_token(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise IndexError(f"token {token}, must be 0 to {self.vocab_size - 1}")

    def token_probabilities(
        self, k: int, token: int, n_likeliest: int
    ) -> tuple[tuple[int, float], ...]:
        """Return natural log-probabilities under kept row k: a token's, and of the likeliest ones.

        These come in their order, likeliest first, each with its id, and the token itself is in
        front. ``n_likeliest`` more than the vocabulary has is all of it.
        """
        self._check_token(token)
        if n_likeliest < 0:
            raise ValueError(f"{n_likeliest} likeliest tokens")
        n = min(n_likeliest, self.vocab_size)
        tokens = ffi.new("int32_t[]", [token, *[0] * n])
        out = ffi.new("double[]", 1 + n)
        lib.lld_likeliest_tokens(self._row(k), self.vocab_size, tokens + 1, n)
        lib.lld_log_probabilities(self._row(k), self.vocab_size, tokens, 1 + n, out)
        return tuple(zip(tokens, out, strict=True))

    def add_rows(self, first_row: int, n_rows: int, sums: "array[float]") -> None:
        """Add rows of the last forward, behind the model's last norm, to sums: (dim) doubles."""
        pointer = ffi.from_buffer("double[]", sums, require_writable=True)
        check(lib.lld_engine_add_rows(self._c, first_row, n_rows, pointer, len(sums)))

    def rank(self, row: "array[float]", n_scores: int) -> tuple[float, ...]:
        """Return what a model that ranks texts says of one's row: (dim) doubles."""
        scores = ffi.new("double[]", n_scores)
        check(
            lib.lld_engine_rank(
                self._c, ffi.from_buffer("double[]", row), len(row), scores, n_scores
            )
        )
        return tuple(scores)

    def block_read(self, block: int, *, local: bool = False) -> bytes:
        """Return a block as bytes, which ``block_write`` of an engine like this one takes."""
        data = bytearray(self._block_bytes[local])
        check(lib.lld_block_read(self._c, local, block, ffi.from_buffer(data), len(data)))
        return bytes(data)

    def state_read(self, slot: int) -> bytes:
        """Return the state in a slot, which ``state_write`` of an engine like this one takes."""
        data = bytearray(self._state_bytes)
        check(lib.lld_state_read(self._c, slot, ffi.from_buffer(data), len(data)))
        return bytes(data)

    def state_write(self, slot: int, data: Buffer) -> None:
        """Fill a slot with what ``state_read`` returned."""
        source = ffi.from_buffer(data)
        check(lib.lld_state_write(self._c, slot, source, len(source)))

    def block_write(self, block: int, data: Buffer, *, local: bool = False) -> None:
        """Fill a block with what ``block_read`` returned."""
        source = ffi.from_buffer(data)
        check(lib.lld_block_write(self._c, local, block, source, len(source)))

    def collect(self, importance: "Importance") -> None:
        """Add the rows of every forward from now on to sums that no other engine adds to."""
        check(lib.lld_engine_collect(self._c, importance._c))
        self._use(importance)

    @property
    def progress(self) -> int:
        """Layers and chunks of the output matrix that forwards have finished so far. Any thread."""
        with self._lock:
            return cast(int, lib.lld_engine_progress(self._c))

    def cancel(self) -> None:
        """Make the running or next forward fail with CANCELLED. Any thread."""
        with self._lock:
            lib.lld_engine_cancel(self._c)

    def cancel_clear(self) -> None:
        """Lower the cancel flag; the caller does this before it composes a step."""
        lib.lld_engine_cancel_clear(self._c)
