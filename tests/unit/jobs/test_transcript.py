"""A transcript: any number of readers, from any token on, nothing twice and nothing missing."""

import asyncio

import pytest

from llamad.errors import LlamadError, shutting_down
from llamad.jobs.event import Delta, Event, PrefillProgress, Queued
from llamad.jobs.transcript import Transcript
from unit.schedule.fakes import asynchronous, text_in


async def events(transcript: Transcript, from_token: int = 0, wait: bool = False) -> list[Event]:
    return [event async for event in transcript.read(from_token, wait=wait)]


def _written(*texts: str) -> Transcript:
    transcript = Transcript()
    transcript.put(Queued("j1", 0, 3))
    for i, text in enumerate(texts):
        transcript.put(Delta(text, i + 1, thinking=text.islower()))
    return transcript


@asynchronous
async def test_every_reader_gets_the_text_behind_its_token() -> None:
    transcript = _written("A", "B", "C")
    assert [text_in(await events(transcript, n)) for n in range(5)] == ["ABC", "BC", "C", "", ""]


@asynchronous
async def test_thoughts_stay_apart_and_deltas_of_a_kind_come_as_one() -> None:
    transcript = _written("a", "b", "C", "D")
    assert (await events(transcript))[1:] == [Delta("ab", 2, True), Delta("CD", 4)]


@asynchronous
async def test_who_leaves_between_a_thought_and_the_answer_of_one_token_misses_nothing() -> None:
    transcript = _written("a", "b")
    transcript.put(Delta("C", 2))
    reader = transcript.read()
    assert [type(await anext(reader)) for _ in range(1)] == [Queued]
    thought = await anext(reader)
    assert thought == Delta("ab", 1, True)
    assert text_in(await events(transcript, 1)) == "bC"


@asynchronous
async def test_readers_get_what_comes_until_the_end() -> None:
    transcript = _written("A")
    tasks = [asyncio.create_task(events(transcript, n, wait=True)) for n in (0, 1)]
    await asyncio.sleep(0)
    transcript.put(Delta("B", 2))
    await asyncio.sleep(0)
    transcript.put(Delta("C", 3))
    transcript.end()
    assert [text_in(await task) for task in tasks] == ["ABC", "BC"]


@asynchronous
async def test_the_error_of_the_job_comes_behind_the_text_for_each() -> None:
    transcript = _written("A")
    transcript.end(shutting_down())
    for _ in range(2):
        reader = transcript.read(0)
        assert [type(await anext(reader)) for _ in range(2)] == [Queued, Delta]
        with pytest.raises(LlamadError, match="stopping"):
            await anext(reader)
        with pytest.raises(StopAsyncIteration):
            await anext(reader)


@asynchronous
async def test_tokens_that_are_made_again_are_not_told_again() -> None:
    transcript = _written("A")  # the client had three tokens before the power went
    task = asyncio.create_task(events(transcript, 3, wait=True))
    await asyncio.sleep(0)
    for i, text in enumerate("BCD"):
        transcript.put(Delta(text, i + 2))
    transcript.end()
    assert text_in(await task) == "D"


@asynchronous
async def test_progress_is_told_until_there_is_text() -> None:
    transcript = Transcript()
    transcript.put(Queued("j1", 2, 3))
    reader = transcript.read(0, wait=False)
    assert await anext(reader) == Queued("j1", 2, 3)
    transcript.put(Queued("j1", 1, 3))
    transcript.put(PrefillProgress(1, 3))
    assert [event async for event in reader] == [Queued("j1", 1, 3), PrefillProgress(1, 3)]


@asynchronous
async def test_who_leaves_last_is_told_once() -> None:
    transcript, left = _written("A"), []
    transcript.on_left = lambda: left.append(transcript.n_readers)
    one, other = transcript.read(), transcript.read()
    await one.aclose()
    await one.aclose()
    assert left == []
    await other.aclose()
    assert left == [0]


@asynchronous
async def test_closing_ends_the_readers_and_not_the_job() -> None:
    transcript = _written("A")
    task = asyncio.create_task(events(transcript, 0, wait=True))
    await asyncio.sleep(0)
    transcript.close(shutting_down())
    with pytest.raises(LlamadError, match="stopping"):
        await task
    assert not transcript.ended
