"""A durable job whose model goes: it is suspended, and goes on with the text it would have had."""

import asyncio

import pytest

from llamad.engine.worker import EngineWorker
from llamad.jobs.job import Job
from llamad.jobs.record import JobState
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.jobs.transcript import Transcript
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import (
    Bench,
    FakeEngine,
    asynchronous,
    events_of,
    request,
    saying,
    text_in,
)

ANSWER = "An answer in several words, of which ünïcode is one. END and no more"


def bench(answer: str = ANSWER) -> Bench:
    made = Bench()
    made.engine.rule = saying(answer)
    made.model.thinking = ThinkingMarks((("<think>", "</think>"),))
    return made


async def submitted(made: Bench) -> Job:
    chat = GenerationRequest(
        messages=(ChatMessage("user", "Hello"),), stop=("END",), sampling=Sampling(seed=1)
    )
    job = await made.scheduler.submit(chat, Transcript())
    job.record.durable = True
    return job


def another_scheduler(made: Bench, answer: str | None) -> tuple[Scheduler, EngineWorker]:
    """Return one of the same model after it was loaded again; it knows nothing of before."""
    engine = FakeEngine(n_batch=64, n_blocks=64, block_tokens=32)
    engine.rule = made.engine.rule if answer is None else saying(answer)
    worker = EngineWorker(engine)
    return Scheduler(made.model, worker, made.book, Limits(), clock=made.clock), worker


async def in_two_parts(made: Bench, job: Job, step: int, answer: str | None) -> None:
    """Drain while a step is computed, and go on with another scheduler."""
    made.at_step(step, lambda: job.suspend())
    async with made.running():
        await made.scheduler.drain(0.0)
    assert (job.state, job.suspended) == (JobState.QUEUED, True)
    assert made.scheduler.counts().kv_blocks_free == made.scheduler.counts().kv_blocks_total
    scheduler, worker = another_scheduler(made, answer)
    running = asyncio.create_task(scheduler.run())
    scheduler.accept(job)
    while not job.ended:
        await job.changed.wait()
    running.cancel()
    worker.close()


@pytest.mark.parametrize("answer", [ANSWER, f"<think>Who ENDs?</think>{ANSWER}"])
@pytest.mark.parametrize("step", [0, 1, 2, 9, 10, 30, 52, 57])
@asynchronous
async def test_the_text_is_that_of_an_uninterrupted_job(step: int, answer: str) -> None:
    whole = bench(answer)
    async with whole.running():
        expected = await events_of(await submitted(whole))
    made = bench(answer)
    job = await submitted(made)
    await in_two_parts(made, job, step, answer)
    got = await events_of(job)
    assert text_in(got) == text_in(expected) != ""
    assert got[-1].__class__ is expected[-1].__class__
    assert job.record.state is JobState.FINISHED
    assert (job.record.stop_string, job.record.reasoning_tokens) == (
        "END",
        expected[-1].reasoning_tokens,  # type: ignore[union-attr]
    )


@asynchronous
async def test_draining_suspends_what_is_durable_and_refuses_the_rest() -> None:
    made = bench()
    kept = await submitted(made)
    other = await made.scheduler.submit(request())
    async with made.running():
        await made.scheduler.drain(0.0)
    assert (kept.state, kept.suspended) == (JobState.QUEUED, True)
    assert other.state is JobState.CANCELLED
    assert [job.state for job in made.book.list()] == [JobState.QUEUED]


@asynchronous
async def test_a_suspended_job_can_be_cancelled() -> None:
    made = bench()
    job = await submitted(made)
    job.suspend()
    assert made.book.cancel(job.id).state is JobState.CANCELLED
    async with made.running():
        await made.scheduler.drain(0.0)
