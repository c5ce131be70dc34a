"""The engine thread: rows in the engine's layout, results a chunk, cancelling that waits for C."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence

import pytest

from llamad.engine.run import Run
from llamad.engine.worker import Chunk, EngineWorker, StepPlan
from llamad.errors import ErrorKind, LlamadError
from unit.schedule.fakes import TIMEOUT_SECONDS, Bench, FakeSampler, asynchronous, saying


class _RecordingEngine:
    """Remembers the runs of a forward."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def forward(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)

    def cancel(self) -> None: ...

    def cancel_clear(self) -> None: ...


class _FixedSampler:
    """Draws the number of the kept row, or fails."""

    def __init__(self, error: LlamadError | None = None) -> None:
        self.error = error
        self.ended = False

    mu = 0.0

    def accept(self, token: int, *, penalized: bool = True) -> None: ...

    def sample(self, engine: object, k: int) -> int:
        if self.error is not None:
            raise self.error
        return k


@asynchronous
async def test_chunks_become_runs_and_only_where_tokens_are_drawn_rows_are_kept() -> None:
    engine = _RecordingEngine()
    worker = EngineWorker(engine)
    plan = StepPlan(
        (
            Chunk((9,), 5, (4,), _FixedSampler()),
            Chunk((1, 2, 3), 4, (0, 7)),
            Chunk((7, 8), 0, (1,), _FixedSampler()),
        )
    )
    result = await worker.step(plan)
    worker.close()
    assert engine.runs == [
        Run((9,), 5, (4,), 1),
        Run((1, 2, 3), 4, (0, 7), 0),
        Run((7, 8), 0, (1,), 1),
    ]
    assert result == ((0,), (), (1,))


@asynchronous
async def test_guesses_are_drawn_from_until_one_is_wrong() -> None:
    worker = EngineWorker(_RecordingEngine())  # its samplers draw the number of the row
    right = Chunk((9, 0, 1), 5, (4,), _FixedSampler(), n_drafts=2)
    wrong = Chunk((9, 3, 99, 5), 0, (5,), _FixedSampler(), n_drafts=3)
    last = Chunk((9,), 0, (6,), _FixedSampler())
    assert await worker.step(StepPlan((right, wrong, last))) == ((0, 1, 2), (3, 4), (7,))
    worker.close()


@asynchronous
async def test_a_sampler_that_fails_concerns_only_its_chunk() -> None:
    error = LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "NaN")
    worker = EngineWorker(_RecordingEngine())
    plan = StepPlan(
        (Chunk((1,), 0, (0,), _FixedSampler(error)), Chunk((1,), 0, (1,), _FixedSampler()))
    )
    assert await worker.step(plan) == (error, (1,))
    worker.close()


@asynchronous
async def test_a_cancelled_step_leaves_samplers_as_they_were() -> None:
    bench = Bench()
    bench.engine.rule = saying("ab")
    sampler = FakeSampler(1)
    plan = StepPlan((Chunk((1, 2), 0, (0,), sampler),))
    bench.worker.cancel()
    with pytest.raises(LlamadError) as error:
        await bench.worker.step(plan)
    assert error.value.kind is ErrorKind.CANCELLED
    assert sampler.n_draws == 0
    bench.worker.cancel_clear()
    assert await bench.worker.step(plan) == ((ord("a"),),)
    bench.worker.close()


@asynchronous
async def test_cancelling_the_awaiting_task_stops_the_step_and_waits_for_it() -> None:
    bench = Bench()
    entered = bench.pause_step(0)
    step = asyncio.create_task(bench.worker.step(StepPlan((Chunk((1,), 0, (0,)),))))
    await entered.wait()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert bench.engine.n_cancelled_steps == 1
    bench.worker.close()


@asynchronous
async def test_a_call_that_fails_after_its_caller_left_is_no_unheard_error() -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    bench = Bench()
    entered, leave = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def fail() -> None:
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(TIMEOUT_SECONDS)
        raise ZeroDivisionError

    call = asyncio.create_task(bench.worker.call(fail))
    await entered.wait()
    assert bench.worker.busy
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()  # and again, while it waits for the thread
    await asyncio.sleep(0)
    assert not call.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not bench.worker.busy
    del call
    gc.collect()
    assert unheard == []
    bench.worker.close()


class _Tokens(list[int]):
    """A list that a weak reference can follow."""


@asynchronous
async def test_what_a_failed_call_left_is_freed_at_once() -> None:
    left: list[weakref.ref[_Tokens]] = []

    def fail() -> None:
        tokens = _Tokens()
        left.append(weakref.ref(tokens))
        raise LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "no number")

    async def call(worker: EngineWorker) -> None:
        with pytest.raises(LlamadError):
            await worker.call(fail)

    worker = EngineWorker(_RecordingEngine())
    gc.disable()
    try:
        await asyncio.create_task(call(worker))
        await asyncio.to_thread(worker.close)
        assert left[0]() is None
    finally:
        gc.enable()
