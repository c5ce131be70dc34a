"""Probabilities of tokens: each one's, whatever shares its steps, and in a delta of its own."""

import asyncio
from collections.abc import Sequence

import pytest

from llamad.jobs.event import Delta, Event
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.jobs.token_logprob import TokenLogprob, unpack_logprobs
from llamad.jobs.transcript import Transcript
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import Bench, asynchronous, events_of, request, saying, text_in
from unit.schedule.test_suspending import in_two_parts

SAID = "the kitchen light, the hall light, the kitchen light, the hall light"


def told(events: Sequence[Event]) -> list[tuple[int, list[TokenLogprob]]]:
    """Return the number of each token, and what was told of it."""
    deltas = [event for event in events if isinstance(event, Delta) and event.logprobs]
    return [(delta.tokens, unpack_logprobs(delta.logprobs)) for delta in deltas]


async def alone(*, n: int = 2, answer: str = SAID) -> list[tuple[int, list[TokenLogprob]]]:
    """Return what is told of an answer that is computed alone, a token a step."""
    bench = Bench(Limits(speculation=False))
    bench.engine.rule = saying(answer)
    async with bench.running():
        return told(await events_of(await bench.scheduler.submit(request("x", logprobs=n))))


@pytest.mark.parametrize("n", [0, 1, 20])
@asynchronous
async def test_every_token_has_a_delta_with_its_probability_and_the_likeliest(n: int) -> None:
    answer = await alone(n=n)
    assert [tokens for tokens, _ in answer] == list(range(1, len(SAID) + 2))
    assert b"".join(entries[0].piece for _, entries in answer[:-1]) == SAID.encode()
    assert {len(entries) for _, entries in answer} == {1 + n}
    assert [entry.token for entry in answer[0][1][1:]] == [97 + i for i in range(n)]
    assert len({entries[0].logprob for _, entries in answer}) > len(SAID) / 2


@asynchronous
async def test_nobody_pays_for_what_was_not_asked_for() -> None:
    bench = Bench()

    def never(k: int, token: int, n_likeliest: int) -> tuple[tuple[int, float], ...]:
        raise AssertionError("nobody asked")

    bench.engine.token_probabilities = never  # type: ignore[method-assign]
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(request("x", max_tokens=9)))
    assert len(text_in(events)) == 9
    assert not told(events)


@asynchronous
async def test_they_are_the_same_with_guesses_and_in_company() -> None:
    expected = await alone()
    bench = Bench(Limits(speculation=True))
    bench.engine.rule = saying(SAID)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(prompt, logprobs=2)) for prompt in ("x", "y", "xx")
        ]
        answers = await asyncio.gather(*map(events_of, jobs))
    assert told(answers[0]) == expected
    assert told(answers[1]) != expected
    assert len(bench.engine.steps) < len(SAID)  # there were guesses


@pytest.mark.parametrize("step", [0, 1, 5, 20, 40])
@asynchronous
async def test_they_are_the_same_after_the_model_went_and_came_again(step: int) -> None:
    expected = await alone()
    bench = Bench()
    bench.engine.rule = saying(SAID)
    job = await bench.scheduler.submit(request("x", logprobs=2), Transcript())
    job.record.durable = True
    await in_two_parts(bench, job, min(step, len(SAID) // 8), SAID)
    assert told(await events_of(job)) == expected


@asynchronous
async def test_held_back_text_comes_with_the_token_that_frees_it() -> None:
    bench = Bench(Limits(speculation=False))
    bench.engine.rule = saying("aENx")
    async with bench.running():
        job = await bench.scheduler.submit(request("x", logprobs=0, stop=("END",)))
        events = await events_of(job)
    texts = [event.text for event in events if isinstance(event, Delta)]
    assert texts == ["a", "", "", "ENx", ""]
    assert len(told(events)) == 5


@asynchronous
async def test_thoughts_have_none() -> None:
    bench = Bench(Limits(speculation=False))
    bench.engine.rule = saying("<think>why</think>because")
    bench.model.thinking = ThinkingMarks((("<think>", "</think>"),))
    chat = GenerationRequest(
        messages=(ChatMessage("user", "u"),), sampling=Sampling(seed=1), logprobs=1
    )
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(chat))
    pieces = b"".join(entries[0].piece for _, entries in told(events))
    assert pieces == b"<think>because\0"  # the mark was text until it was whole
    thoughts = [event for event in events if isinstance(event, Delta) and event.thinking]
    assert "".join(event.text for event in thoughts) == "why"
    assert not any(event.logprobs for event in thoughts)


@asynchronous
async def test_a_client_that_does_not_read_is_bounded_by_them_too() -> None:
    bench = Bench(Limits(stream_buffer_bytes=4096))
    async with bench.running():
        job = await bench.scheduler.submit(request("x", logprobs=20, max_tokens=400))
        while not job.ended:
            await job.changed.wait()
    assert job.record.completion_tokens < 20
