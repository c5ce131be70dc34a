"""A given completion: scored with the same numbers, whatever happens to its job."""

import asyncio

import pytest

from llamad.jobs.event import Finished, FinishReason
from llamad.jobs.request import GenerationRequest, Scoring
from llamad.jobs.transcript import Transcript
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, request, text_in
from unit.schedule.test_logprobs import told
from unit.schedule.test_suspending import in_two_parts

TEXT = "a text of some length whose every token is looked at, whatever comes between them"


def scoring(prompt: str = "x") -> GenerationRequest:
    return request(prompt, scoring=Scoring(TEXT), logprobs=1)


async def alone() -> object:
    bench = Bench()
    async with bench.running():
        return told(await events_of(await bench.scheduler.submit(scoring())))


@pytest.mark.parametrize("speculation", [False, True])
@asynchronous
async def test_it_ends_behind_its_last_token(speculation: bool) -> None:
    bench = Bench(Limits(speculation=speculation))
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(scoring()))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.completion_tokens) == (FinishReason.STOP, len(TEXT))
    assert not last.format_incomplete
    assert text_in(events) == TEXT
    assert len(bench.engine.steps) < len(TEXT) / 3  # guesses are its way, configured or not
    assert bench.scheduler.counts().kv_blocks_free == bench.scheduler.counts().kv_blocks_total


@asynchronous
async def test_it_is_the_same_when_blocks_are_short() -> None:
    expected = await alone()
    bench = Bench(kv_blocks_total=4)
    async with bench.running():
        others = [await bench.scheduler.submit(request(p, max_tokens=90)) for p in ("a", "b")]
        jobs = [await bench.scheduler.submit(scoring()) for _ in range(2)]
        answers = await asyncio.gather(*map(events_of, (*jobs, *others)))
    assert told(answers[0]) == told(answers[1]) == expected


@pytest.mark.parametrize("step", [0, 1, 3, 6])
@asynchronous
async def test_it_is_the_same_after_the_model_went_and_came_again(step: int) -> None:
    bench = Bench()
    job = await bench.scheduler.submit(scoring(), Transcript())
    job.record.durable = True
    await in_two_parts(bench, job, step, None)
    assert told(await events_of(job)) == await alone()
