"""The one thread that enters the engine, and the steps it runs.

Owns the thread. It does not decide what a step holds (jobs/batch.py does) nor what follows from its
result. The C module is not imported here: an engine and its samplers come in from outside.

Every method except ``cancel`` belongs to the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from llamad.errors import LlamadError

T = TypeVar("T")


class StepEngine(Protocol):
    """The part of ``bindings.Engine`` that a step needs."""

    def forward(
        self,
        tokens: Sequence[int],
        sequences: Sequence[int],
        positions: Sequence[int],
        wants_logits: Sequence[int] | bytes,
    ) -> None:
        """Run rows of (token, sequence, position); on an error no sequence has changed."""

    def truncate(self, sequence: int, n_tokens: int) -> None:
        """Keep the first n_tokens of a sequence; 0 frees it."""

    def cancel(self) -> None:
        """Make the running or next forward fail with CANCELLED. Any thread."""

    def cancel_clear(self) -> None:
        """Lower the cancel flag."""


class StepSampler(Protocol):
    """The part of ``bindings.Sampler`` that a step needs."""

    def accept(self, token: int) -> None:
        """Put one token of the prompt into the penalty window."""

    def sample(self, engine: Any, k: int) -> int:
        """Draw the next token from kept row k of the last forward."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, from ``position`` on.

    With a sampler, the next token is drawn from the last row; without, no logits are kept. The
    last ``n_drafts`` tokens are guesses: a token is drawn from the row before each, and the first
    that differs from its guess ends the chunk; the rows behind it leave the sequence again.
    """

    sequence: int
    tokens: tuple[int, ...]
    position: int
    sampler: StepSampler | None = None
    n_drafts: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step computes: each sequence at most once, together at most n_batch rows."""

    chunks: tuple[Chunk, ...]


# What a step gives for one chunk: the tokens drawn, one more than the guesses that were right; a
# LlamadError when its sampler refused its logits (the other chunks are not concerned).
Drawn = tuple[int, ...] | LlamadError

# One entry for each chunk of the plan, in its order; () for a chunk without a sampler.
StepResult = tuple[Drawn, ...]


class EngineWorker:
    """A thread that runs steps and short calls on one engine, one after the other."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llamad-engine")

    async def step(self, plan: StepPlan) -> StepResult:
        """Run one step.

        Raises the LlamadError of the forward pass: then no sequence has changed and no sampler has
        drawn. When the awaiting task is cancelled, the engine is told to stop, and the cancellation
        goes on only after the thread has left C.
        """
        return await self.call(lambda: self._run(plan))

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the engine thread, with the cancellation rule of ``step``."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._engine.cancel()
            await asyncio.wait([future])
            raise

    async def release(self, sequence: int) -> None:
        """Free a sequence's KV blocks."""
        await self.call(lambda: self._engine.truncate(sequence, 0))

    def cancel(self) -> None:
        """Make the step that runs now, or the next one, fail with kind CANCELLED. Any thread."""
        self._engine.cancel()

    def cancel_clear(self) -> None:
        """Lower the cancel flag; before a step is composed."""
        self._engine.cancel_clear()

    def close(self) -> None:
        """End the thread, after the call it may still be in. The engine itself stays open."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, plan: StepPlan) -> StepResult:
        tokens: list[int] = []
        sequences: list[int] = []
        positions: list[int] = []
        wants_logits = bytearray()
        for chunk in plan.chunks:
            n = len(chunk.tokens)
            tokens.extend(chunk.tokens)
            sequences.extend([chunk.sequence] * n)
            positions.extend(range(chunk.position, chunk.position + n))
            kept = 0 if chunk.sampler is None else 1 + chunk.n_drafts
            wants_logits.extend(bytes(n - kept) + b"\1" * kept)
        self._engine.forward(tokens, sequences, positions, bytes(wants_logits))
        return self._sample(plan)

    def _sample(self, plan: StepPlan) -> StepResult:
        results: list[Drawn] = []
        k = 0
        for chunk in plan.chunks:
            if chunk.sampler is None:
                results.append(())
                continue
            try:
                results.append(self._draw(chunk, chunk.sampler, k))
            except LlamadError as error:
                results.append(error)
            k += 1 + chunk.n_drafts
        return tuple(results)

    def _draw(self, chunk: Chunk, sampler: StepSampler, k: int) -> tuple[int, ...]:
        """Draw from the chunk's kept rows, k and on, as long as the guesses are right."""
        n_sure = len(chunk.tokens) - chunk.n_drafts
        drawn = [sampler.sample(self._engine, k)]
        for i, guess in enumerate(chunk.tokens[n_sure:], start=1):
            if drawn[-1] != guess:
                self._engine.truncate(chunk.sequence, chunk.position + n_sure + i - 1)
                break
            drawn.append(sampler.sample(self._engine, k + i))
        return tuple(drawn)
