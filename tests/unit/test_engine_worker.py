"""The engine thread: rows in the engine's layout, results a chunk, cancelling that waits for C."""

import asyncio

import pytest

from llamad.engine.worker import Chunk, EngineWorker, StepPlan
from llamad.errors import ErrorKind, LlamadError
from unit.schedule.fakes import Bench, FakeSampler, asynchronous, saying


class _RecordingEngine:
    """Remembers the arrays of a forward."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []

    def forward(self, tokens, sequences, positions, wants_logits) -> None:  # type: ignore[no-untyped-def]
        self.rows = list(zip(tokens, sequences, positions, wants_logits, strict=True))

    def truncate(self, sequence: int, n_tokens: int) -> None:
        self.rows = []

    def cancel(self) -> None: ...

    def cancel_clear(self) -> None: ...


class _FixedSampler:
    """Draws the number of the kept row, or fails."""

    def __init__(self, error: LlamadError | None = None) -> None:
        self.error = error

    def accept(self, token: int) -> None: ...

    def sample(self, engine: object, k: int) -> int:
        if self.error is not None:
            raise self.error
        return k


@asynchronous
async def test_rows_are_consecutive_and_only_last_rows_want_logits() -> None:
    engine = _RecordingEngine()
    worker = EngineWorker(engine)
    plan = StepPlan(
        (
            Chunk(2, (9,), 5, _FixedSampler()),
            Chunk(0, (1, 2, 3), 4),
            Chunk(1, (7, 8), 0, _FixedSampler()),
        )
    )
    result = await worker.step(plan)
    worker.close()
    assert engine.rows == [
        (9, 2, 5, 1),
        (1, 0, 4, 0),
        (2, 0, 5, 0),
        (3, 0, 6, 0),
        (7, 1, 0, 0),
        (8, 1, 1, 1),
    ]
    assert result == ((0,), (), (1,))


@asynchronous
async def test_a_sampler_that_fails_concerns_only_its_chunk() -> None:
    error = LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "NaN")
    worker = EngineWorker(_RecordingEngine())
    plan = StepPlan((Chunk(0, (1,), 0, _FixedSampler(error)), Chunk(1, (1,), 0, _FixedSampler())))
    assert await worker.step(plan) == (error, (1,))
    worker.close()


@asynchronous
async def test_a_cancelled_step_leaves_sequences_and_samplers_as_they_were() -> None:
    bench = Bench()
    bench.engine.rule = saying("ab")
    sampler = FakeSampler(1)
    plan = StepPlan((Chunk(0, (1, 2), 0, sampler),))
    bench.worker.cancel()
    with pytest.raises(LlamadError) as error:
        await bench.worker.step(plan)
    assert error.value.kind is ErrorKind.CANCELLED
    assert (bench.engine.sequences[0], sampler.n_draws) == ([], 0)
    bench.worker.cancel_clear()
    assert await bench.worker.step(plan) == ((ord("a"),),)
    await bench.worker.release(0)
    assert bench.engine.sequences[0] == []
    bench.worker.close()


@asynchronous
async def test_cancelling_the_awaiting_task_stops_the_step_and_waits_for_it() -> None:
    bench = Bench()
    entered = bench.hold_step(0)
    step = asyncio.create_task(bench.worker.step(StepPlan((Chunk(0, (1,), 0),))))
    await entered.wait()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert bench.engine.n_cancelled_steps == 1
    bench.worker.close()
