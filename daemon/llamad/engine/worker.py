"""The one thread that enters the engine, and the steps it runs.

Owns the thread. It does not decide what a step holds (schedule/step.py does) nor what follows from
its result. The C module is not imported here: an engine and its samplers come in from outside.

Every method except ``cancel`` belongs to the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypedDict, TypeVar

from llamad.engine.run import AdapterUse, Run
from llamad.errors import LlamadError

T = TypeVar("T")

# Tokens with their natural log-probabilities under a row of logits: one, then the likeliest ones.
Probabilities: TypeAlias = tuple[tuple[int, float], ...]


class StepEngine(Protocol):
    """The part of ``bindings.Engine`` that a step needs."""

    def forward(self, runs: Sequence[Run]) -> None:
        """Compute runs of tokens, of one sequence one after the other."""

    def cancel(self) -> None:
        """Make the running or next forward fail with CANCELLED. Any thread."""

    def cancel_clear(self) -> None:
        """Lower the cancel flag."""


class StepConstraint(Protocol):
    """The part of ``bindings.Constraint`` that a step needs."""

    @property
    def accepts(self) -> bool:
        """Whether the answer may end here."""

    @property
    def complete(self) -> bool:
        """Whether it ends here, because nothing may follow."""

    def forced_tokens(self, limit: int) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that spell what must come next."""


class StepSampler(Protocol):
    """The part of ``bindings.Sampler`` that a step needs."""

    @property
    def mu(self) -> float:
        """What mirostat has learned from the logits so far."""

    @property
    def ended(self) -> bool:
        """Whether nothing may follow what was drawn: its constraint is complete."""

    def accept(self, token: int, *, penalized: bool = True) -> None:
        """Count a token as recent; ``penalized`` False: by DRY alone."""

    def sample(self, engine: Any, k: int) -> int:
        """Draw the next token from kept row k of the last forward."""


class RowReader(Protocol):
    """What takes the rows of a text that is only read (schedule/pooling.py)."""

    def read(self, engine: Any, first_row: int, position: int, n_tokens: int) -> None:
        """Take the rows of tokens from ``position`` on, which begin the step's row first_row."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Consecutive tokens of a chunk as a run of their own, so that the state behind them is kept.

    state_in, state_out: slots, as in ``Run``.
    """

    n_tokens: int
    state_in: int
    state_out: int


class _OfAll(TypedDict):
    """What all runs of a chunk have in common."""

    local_blocks: tuple[int, ...]
    adapter: AdapterUse | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, from ``position`` on, with the blocks that hold it.

    With a sampler, the next token is drawn from the last row; without, no logits are kept. The
    last ``n_drafts`` tokens are guesses: a token is drawn from the row before each, and the first
    that differs from its guess ends the chunk. ``cuts``: of a model with states, the runs of all
    tokens. ``local_blocks``: of one whose layers have a window, as in ``Run``.
    """

    tokens: tuple[int, ...]
    position: int
    blocks: tuple[int, ...]
    sampler: StepSampler | None = None
    n_drafts: int = 0
    cuts: tuple[Cut, ...] = ()
    local_blocks: tuple[int, ...] = ()
    reader: RowReader | None = None  # takes every row of it
    adapter: AdapterUse | None = None  # that its tokens go through

    @property
    def n_out(self) -> int:
        """Rows that tokens may be drawn from."""
        return 0 if self.sampler is None else 1 + self.n_drafts

    def runs(self) -> list[Run]:
        """Return what the engine computes for it."""
        of_all: _OfAll = {"local_blocks": self.local_blocks, "adapter": self.adapter}
        if not self.cuts:
            return [Run(self.tokens, self.position, self.blocks, self.n_out, **of_all)]
        runs, begin, first_out = [], 0, len(self.tokens) - self.n_out
        for cut in self.cuts:
            end = begin + cut.n_tokens
            n_out = max(0, end - max(begin, first_out))
            where = self.position + begin, self.blocks, n_out, cut.state_in, cut.state_out
            runs.append(Run(self.tokens[begin:end], *where, **of_all))
            begin = end
        return runs


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
        self._n_calls = 0

    @property
    def busy(self) -> bool:
        """Whether a call has begun, or waits, and has not returned."""
        return self._n_calls > 0

    async def step(self, plan: StepPlan) -> StepResult:
        """Run one step.

        Raises the LlamadError of the forward pass: then no sampler has drawn. When the awaiting
        task is cancelled, the engine is told to stop, and the cancellation goes on only after the
        thread has left C.
        """
        return await self.call(lambda: self._run(plan))

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the engine thread, with the cancellation rule of ``step``."""
        self._n_calls += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._engine.cancel()
            await _until_done(future)
            raise
        finally:
            self._n_calls -= 1
            del future  # it may have an error, whose traceback has this frame and the step's tokens

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
        self._engine.forward([run for chunk in plan.chunks for run in chunk.runs()])
        results: list[Drawn] = []
        k = row = 0
        for chunk in plan.chunks:
            if chunk.reader is not None:
                chunk.reader.read(self._engine, row, chunk.position, len(chunk.tokens))
            row += len(chunk.tokens)
            try:
                results.append(self._draw(chunk, k))
            except LlamadError as error:
                results.append(error)
            k += chunk.n_out
        return tuple(results)

    def _draw(self, chunk: Chunk, k: int) -> tuple[int, ...]:
        """Draw from the chunk's kept rows, k and on, as long as the guesses are right."""
        if chunk.sampler is None:
            return ()
        drawn = [chunk.sampler.sample(self._engine, k)]
        for i in range(chunk.n_drafts):
            if drawn[-1] != chunk.tokens[i - chunk.n_drafts] or chunk.sampler.ended:
                break
            drawn.append(chunk.sampler.sample(self._engine, k + 1 + i))
        return tuple(drawn)


async def _until_done(future: "asyncio.Future[T]") -> None:
    """Wait for the future, whatever it comes to, also when cancelled again meanwhile."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # taken: whoever waited for it has left
