"""Formats of answers: what the constraint allows is what is said, however the steps are cut."""

import asyncio
import json
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.jobs.event import Event, Finished, FinishReason
from llamad.jobs.job import Job
from llamad.jobs.transcript import Transcript
from llamad.sampling.response_format import FormatKind, ResponseFormat
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, request, saying, text_in
from unit.schedule.test_suspending import in_two_parts

NAME = {"type": "string", "maxLength": 12}
LAMP = ResponseFormat(
    FormatKind.JSON_SCHEMA,
    json.dumps({
        "type": "object",
        "properties": {"entity": NAME, "brightness": {"type": "integer", "maximum": 255}},
        "required": ["entity", "brightness"],
        "additionalProperties": False,
    }),
)  # fmt: skip
GREETING = ResponseFormat(FormatKind.GRAMMAR, 'root ::= "hello" " world"? "!"*')
CHOICE = ResponseFormat(FormatKind.CHOICES, choices=("the kitchen lamp", "the bathroom lamp"))


def last(events: list[Event]) -> Finished:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return finished


async def answers(made: Bench, *wanted: ResponseFormat | None, **options: Any) -> list[str]:
    """Return the answers of requests that run together, one for each format."""
    async with made.running():
        jobs = [
            await made.scheduler.submit(request("p" * (i + 1), response_format=one, **options))
            for i, one in enumerate(wanted)
        ]
        return [text_in(events) for events in await asyncio.gather(*map(events_of, jobs))]


async def one_answer(made: Bench, wanted: ResponseFormat, **options: Any) -> list[Event]:
    async with made.running():
        job = await made.scheduler.submit(request(response_format=wanted, **options))
        return await events_of(job)


@asynchronous
async def test_an_answer_is_in_its_format_and_company_changes_nothing() -> None:
    alone = [(await answers(Bench(), LAMP, max_tokens=400))[0] for _ in range(2)]
    assert alone[0] == alone[1]
    value = json.loads(alone[0])
    assert isinstance(value["entity"], str)
    assert value["brightness"] <= 255
    together = await answers(Bench(), LAMP, None, CHOICE, GREETING, max_tokens=400)
    assert together[0] == alone[0]
    assert together[2] in CHOICE.choices


@asynchronous
async def test_an_answer_ends_when_nothing_may_follow() -> None:
    made = Bench()
    finished = last(await one_answer(made, CHOICE, max_tokens=100))
    assert finished.reason is FinishReason.STOP
    assert finished.completion_tokens in map(len, CHOICE.choices)  # no token that ends it is drawn
    assert not finished.format_incomplete


@pytest.mark.parametrize(("n", "incomplete"), [(3, True), (5, False), (8, True), (11, False)])
@asynchronous
async def test_a_length_inside_the_format_is_told(n: int, incomplete: bool) -> None:
    made = Bench()
    made.engine.rule = saying("hello world!!!!!!!!!!!")
    finished = last(await one_answer(made, GREETING, max_tokens=n))
    assert finished.reason is FinishReason.LENGTH
    assert finished.format_incomplete is incomplete


@asynchronous
async def test_an_answer_may_end_only_where_its_format_does() -> None:
    made = Bench()
    made.engine.rule = saying("he")  # and then wants to end
    events = await one_answer(made, GREETING, max_tokens=40)
    assert text_in(events) == "hello"
    assert last(events).reason is FinishReason.STOP


@asynchronous
async def test_a_stop_string_leaves_the_format_incomplete() -> None:
    made = Bench()
    made.engine.rule = saying("hello world!!")
    events = await one_answer(made, GREETING, max_tokens=40, stop=("wor",))
    assert text_in(events) == "hello "
    assert last(events).reason is FinishReason.STOP_STRING
    assert last(events).format_incomplete


@asynchronous
async def test_what_must_follow_is_guessed_and_takes_fewer_steps() -> None:
    texts, steps = [], []
    for speculation in (False, True):
        made = Bench(Limits(speculation=speculation))
        made.simulate(seconds_per_step=0.1)
        texts += await answers(made, LAMP, max_tokens=400)
        steps.append(len(made.engine.steps))
    assert texts[0] == texts[1]
    assert steps[1] < 0.7 * steps[0]


@asynchronous
async def test_a_guess_behind_the_end_is_not_drawn() -> None:
    """The prompt says what follows: the guesses go on behind the end of the format."""
    made = Bench(Limits(speculation=True))
    made.engine.rule = saying("hello world!")
    wanted = ResponseFormat(FormatKind.REGEX, "^[a-z]* [a-z]*!$")
    async with made.running():
        job = await made.scheduler.submit(
            request("hello world! more and more hello", response_format=wanted, max_tokens=60)
        )
        events = await events_of(job)
    assert text_in(events) == "hello world!"
    assert last(events).reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (ResponseFormat(FormatKind.JSON_SCHEMA, '{"not": {}}'), "INVALID_SCHEMA"),
        (ResponseFormat(FormatKind.JSON_SCHEMA, '{"type": '), "INVALID_SCHEMA"),
        (ResponseFormat(FormatKind.GRAMMAR, 'root ::= "a'), "INVALID_GRAMMAR"),
        (ResponseFormat(FormatKind.REGEX, "(?=a)"), "INVALID_GRAMMAR"),
    ],
)
@asynchronous
async def test_a_wrong_format_is_refused_before_there_is_a_job(
    wanted: ResponseFormat, reason: str
) -> None:
    made = Bench()
    with pytest.raises(LlamadError) as caught:
        await made.scheduler.submit(request(response_format=wanted))
    assert caught.value.reason == reason
    assert not made.book.list()


@asynchronous
async def test_a_forgotten_format_is_compiled_again_when_its_job_starts() -> None:
    made = Bench()
    job = await made.scheduler.submit(request(response_format=CHOICE, max_tokens=60))
    made.model.formats.kept.clear()
    async with made.running():
        events = await events_of(job)
    assert text_in(events) in CHOICE.choices
    assert made.model.formats.n_compiled == 2


@pytest.mark.parametrize("step", [0, 1, 5, 9])
@asynchronous
async def test_a_suspended_answer_goes_on_in_its_format(step: int) -> None:
    whole = (await answers(Bench(), LAMP, max_tokens=200))[0]
    made = Bench()
    transcript = Transcript()
    job: Job = await made.scheduler.submit(
        request("p", response_format=LAMP, max_tokens=200), transcript
    )
    job.record.durable = True
    made.model.formats.kept.clear()
    await in_two_parts(made, job, step, answer=None)
    assert "".join(delta.text for delta in transcript.deltas) == whole
