"""Measuring prefill and decode speed through the engine alone.

Memory is planned as the service plans it: what does not fit is streamed. Prompt ids are pseudo-
random (seeded), end-of-generation tokens are ignored, decoding is greedy. It reports; it asserts
nothing.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import (
    NO_LIMIT,
    Engine,
    EngineModel,
    EngineParams,
    ResidencyInfo,
    Sampler,
    engine_bytes,
)
from llamad.engine.single_sequence import BLOCK_TOKENS, SingleSequence, blocks_for, local_blocks_for
from llamad.memory.demand import capacity_of, demand_of, memory_of
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan, plan_huge_pages, plan_memory
from llamad.memory.residency import choose_residency
from llamad.sampling.parameters import GREEDY
from llamad_tools.disk_speed import disk_speed
from llamad_tools.progress_line import TOKENS, Progress

WARM_UP_PROMPT, WARM_UP_DECODE = 32, 4  # tokens
BATCH_PROMPT = 16  # tokens of each sequence's prompt with -b
MAX_BATCH = 512  # rows of one prefill step


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Speeds in tokens per second over all sequences; sizes in bytes.

    A decode step reads ``weight_bytes_per_step`` once, for all sequences. The bandwidth is the most
    that the same threads were seen to read, in bare readings before and after and in decoding
    itself, so ``decode_share_of_bandwidth`` is at most 1; ``decode_beats_reading`` says that
    decoding was the fastest.

    A step reads ``streamed_bytes`` from the disk, and rows of the embedding. In decoding the disk
    gave ``disk_read_bytes_per_second`` while it was read; ``share_of_disk_speed`` is what decoding
    got of the disk's own speed, waiting for computing included. ``share_of_disk_time_hidden`` is
    the part of the reading during which no step had to wait. None where nothing is streamed.

    Of a mixture of experts larger than its memory ``expert_bytes`` are read when a step chooses
    them; ``expert_hit_rate`` is the share of the chosen that were in memory all the same, and
    ``expert_guess_rate`` how many of those that the next layer was guessed to choose it did choose.
    """

    model: str
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    load_seconds: float
    model_bytes: int
    threads: int
    sequences: int
    prompt_tokens: int
    decode_tokens: int
    cpu: str
    kv_type: str
    huge_pages: bool
    peak_rss_bytes: int
    bytes_read_per_token: float
    read_bandwidth_bytes_per_second: float
    decode_share_of_bandwidth: float
    weight_bytes_per_step: int
    decode_beats_reading: bool
    memory_budget_bytes: int | None
    resident_bytes: int
    locked_bytes: int
    streamed_bytes: int
    disk_speed_bytes_per_second: float | None
    disk_read_bytes_per_second: float | None
    share_of_disk_speed: float | None
    share_of_disk_time_hidden: float | None
    expert_bytes: int = 0
    expert_hit_rate: float | None = None  # None where all experts stay
    expert_guess_rate: float | None = None  # None where nothing was guessed


def measure(
    path: str,
    n_threads: int,
    n_prompt: int,
    n_decode: int,
    n_sequences: int,
    kv_type: str,
    *,
    huge_pages: str = "auto",
    memory_budget: int | None = None,
) -> BenchResult:
    """Load the model and time one prefill of n_prompt tokens and n_decode decode steps.

    With several sequences the decode steps run all of them together, each after 16 tokens.
    memory_budget: bytes for a service in all; None: what this machine has. Raises LlamadError when
    the model cannot be loaded.
    """
    start = time.perf_counter()
    with EngineModel(path) as model:
        n_ctx = max(n_prompt, WARM_UP_PROMPT, BATCH_PROMPT) + max(n_decode, WARM_UP_DECODE)
        params = EngineParams(
            n_threads=n_threads,
            n_ctx=n_ctx,
            n_blocks=n_sequences * blocks_for(n_ctx),
            n_batch=max(min(n_prompt, MAX_BATCH), n_sequences, WARM_UP_PROMPT),
            n_logits=n_sequences,
            kv_type=kv_type,
        )
        window = engine_bytes(model, **params).kv_window
        each = local_blocks_for(window, params["n_batch"], n_ctx)
        params["n_local_blocks"] = n_sequences * each
        plan = _plan(model, params, n_sequences, memory_budget)
        with Progress(0).begin(f"reading {Path(path).name}"):
            use_huge_pages = _load(model, plan, huge_pages)
        with Engine(model, **params) as engine:
            load_seconds = time.perf_counter() - start
            session = _Session(engine, n_sequences)
            session.prefill(0, WARM_UP_PROMPT)
            session.decode([0], WARM_UP_DECODE)
            with Progress(n_prompt, unit=TOKENS).begin("prefill") as progress:
                prefill_seconds = session.prefill(0, n_prompt, progress)
            if n_sequences > 1:
                for sequence in range(n_sequences):
                    session.prefill(sequence, BATCH_PROMPT)
            bare = model.read_bandwidth(n_threads)
            bare_disk = None if plan.token_read_bytes == 0 else disk_speed(path)
            before, read_before = model.residency(), Machine().disk_read_bytes()
            generated = n_decode * n_sequences
            with Progress(generated, unit=TOKENS).begin("decode") as progress:
                decode_seconds = session.decode(list(range(n_sequences)), n_decode, progress)
            read_bytes = Machine().disk_read_bytes() - read_before
            after = model.residency()
            bare = max(bare, model.read_bandwidth(n_threads))
            streamed = model.info.streamed_bytes * n_decode / decode_seconds
            bandwidth = max(bare, streamed)
            disk = _Disk.of(before, after, decode_seconds, bare_disk)
            return BenchResult(
                model=Path(path).name,
                prefill_tokens_per_second=round(n_prompt / prefill_seconds, 3),
                decode_tokens_per_second=round(generated / decode_seconds, 3),
                load_seconds=round(load_seconds, 3),
                model_bytes=model.info.file_bytes,
                threads=n_threads,
                sequences=n_sequences,
                prompt_tokens=n_prompt,
                decode_tokens=n_decode,
                cpu=engine.info.kernel_set,
                kv_type=kv_type,
                huge_pages=use_huge_pages,
                peak_rss_bytes=_peak_rss_bytes(),
                bytes_read_per_token=round(read_bytes / generated, 1),
                read_bandwidth_bytes_per_second=round(bandwidth),
                decode_share_of_bandwidth=round(streamed / bandwidth, 3),
                weight_bytes_per_step=model.info.streamed_bytes,
                decode_beats_reading=streamed > bare,
                memory_budget_bytes=plan.budget_bytes,
                resident_bytes=plan.resident_bytes,
                locked_bytes=after.locked_bytes,
                streamed_bytes=plan.streamed_bytes,
                disk_speed_bytes_per_second=disk.speed,
                disk_read_bytes_per_second=disk.read_bytes_per_second,
                share_of_disk_speed=disk.share_of_speed,
                share_of_disk_time_hidden=disk.share_of_time_hidden,
                expert_bytes=plan.expert_bytes,
                expert_hit_rate=_share(
                    after.expert_hits - before.expert_hits, after.expert_uses - before.expert_uses
                ),
                expert_guess_rate=_share(
                    after.expert_guesses_right - before.expert_guesses_right,
                    after.expert_guesses - before.expert_guesses,
                ),
            )


def _plan(
    model: EngineModel, params: EngineParams, n_sequences: int, memory_budget: int | None
) -> MemoryPlan:
    """Return the plan of a service that has this engine. Raises OUT_OF_MEMORY."""
    machine = Machine()
    config = ModelConfig(memory_budget=memory_budget)
    return plan_memory(
        demand_of(model, model.metadata(), params, capacity_of(config), memory_of(config)),
        budget_bytes=machine.budget_bytes() if memory_budget is None else memory_budget,
        lock_limit_bytes=machine.lock_limit_bytes(),
        kv_tokens=params["n_blocks"] * BLOCK_TOKENS,
        n_ctx=params["n_ctx"],
        n_sequences=n_sequences,
        n_local_blocks=params["n_local_blocks"],
    )


def _load(model: EngineModel, plan: MemoryPlan, huge_pages: str) -> bool:
    """Read and lock what the plan keeps; return whether it was copied into huge pages."""
    machine = Machine()
    use_huge_pages = plan.model_fits and plan_huge_pages(
        huge_pages,
        file_bytes=model.info.file_bytes,
        available_bytes=machine.available_bytes(),
        is_board=machine.is_board(),
    )
    if use_huge_pages:
        model.use_huge_pages()
    residency = choose_residency(model.extents(), model.info.file_bytes, plan.room_bytes)
    assert residency is not None, "the plan has room for one"
    model.set_residency(
        residency.resident,
        residency.ring_bytes,
        expert_slots=residency.expert_slots,
        lock_bytes=NO_LIMIT,
    )
    return use_huge_pages


@dataclass(frozen=True, slots=True)
class _Disk:
    """What the disk did while tokens were decoded."""

    speed: float | None = None
    read_bytes_per_second: float | None = None
    share_of_speed: float | None = None
    share_of_time_hidden: float | None = None

    @classmethod
    def of(
        cls, before: ResidencyInfo, after: ResidencyInfo, seconds: float, bare: float | None
    ) -> "_Disk":
        """Compare two readings; ``bare``: what the disk gives without us, None: not known."""
        n_bytes = after.read_bytes - before.read_bytes
        read_seconds = after.read_seconds - before.read_seconds
        if n_bytes == 0 or read_seconds <= 0:
            return cls()
        waited = after.wait_seconds - before.wait_seconds
        speed = max(bare or 0.0, n_bytes / read_seconds)
        return cls(
            speed=round(speed),
            read_bytes_per_second=round(n_bytes / read_seconds),
            share_of_speed=round(min(1.0, n_bytes / seconds / speed), 3),
            share_of_time_hidden=round(min(1.0, max(0.0, 1 - waited / read_seconds)), 3),
        )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


class _Session:
    """Drives the engine's sequences with pseudo-random prompts and greedy sampling."""

    def __init__(self, engine: Engine, n_sequences: int) -> None:
        self._engine = engine
        self._sequences = [SingleSequence(engine, i) for i in range(n_sequences)]
        self._last = [0] * n_sequences
        self._sampler = Sampler(GREEDY, vocab_size=engine.vocab_size, n_ctx=engine.n_ctx, seed=0)

    def prefill(self, sequence: int, n_tokens: int, progress: Progress | None = None) -> float:
        """Restart a sequence with a prompt of n_tokens; return the seconds it took."""
        engine = self._engine
        source = random.Random(sequence + 1)
        tokens = [_random_token(source, engine) for _ in range(n_tokens)]
        self._sequences[sequence].truncate(0)
        start = time.perf_counter()
        for at in range(0, n_tokens, engine.n_batch):
            part = tokens[at : at + engine.n_batch]
            self._sequences[sequence].feed(part, n_out=int(at + len(part) == n_tokens))
            if progress is not None:
                progress.advance(len(part), "prefill")
        self._last[sequence] = self._sampler.sample(engine, 0)
        return time.perf_counter() - start

    def decode(self, sequences: list[int], n_steps: int, progress: Progress | None = None) -> float:
        """Decode n_steps tokens of all the sequences together; return the seconds it took.

        Each token is drawn, and then another one follows: a greedy text may repeat itself, and a
        token that repeats finds its experts in memory.
        """
        engine = self._engine
        source = random.Random(n_steps)
        start = time.perf_counter()
        for _ in range(n_steps):
            engine.forward([self._sequences[s].run([self._last[s]], n_out=1) for s in sequences])
            for k, s in enumerate(sequences):
                self._sequences[s].length += 1
                self._sampler.sample(engine, k)
                self._last[s] = _random_token(source, engine)
            if progress is not None:
                progress.advance(len(sequences), "decode")
        return time.perf_counter() - start


def _random_token(source: random.Random, engine: Engine) -> int:
    low = min(300, engine.vocab_size - 1)  # beyond the byte and control tokens
    return source.randrange(low, engine.vocab_size)


def _peak_rss_bytes() -> int:
    """Return the most memory this program held at once; ru_maxrss would count its parent's, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
