"""The stream between scheduler and client: order, merging, its bound, its two ways to end."""

import asyncio

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Delta, Event, PrefillProgress, Queued
from llamad.jobs.subscription import Subscription
from unit.schedule.fakes import asynchronous

ERROR = LlamadError(ErrorKind.DEADLINE, "DEADLINE_EXCEEDED", "too late")


class _Abandoned:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def _stream(max_bytes: int = 100) -> tuple[Subscription, _Abandoned]:
    abandoned = _Abandoned()
    return Subscription(max_bytes=max_bytes, on_abandon=abandoned), abandoned


async def _all(stream: Subscription) -> list[Event]:
    return [event async for event in stream]


@asynchronous
async def test_unread_text_is_merged_and_keeps_the_latest_count() -> None:
    stream, _ = _stream()
    stream.put(Queued("j1", 0, 3))
    for i, piece in enumerate(["a", "bc", "d"]):
        stream.put(Delta(piece, i + 1))
    stream.end()
    assert await _all(stream) == [Queued("j1", 0, 3), Delta("abcd", 3)]


@asynchronous
async def test_read_text_is_not_repeated() -> None:
    stream, _ = _stream()
    stream.put(Delta("a", 1))
    assert await anext(stream) == Delta("a", 1)
    stream.put(Delta("b", 2))
    assert await anext(stream) == Delta("b", 2)


@asynchronous
async def test_only_the_latest_unread_progress_is_kept() -> None:
    stream, _ = _stream()
    for n in (10, 20, 30):
        stream.put(PrefillProgress(n, 30))
    stream.put(Delta("x", 1))
    stream.end()
    assert await _all(stream) == [PrefillProgress(30, 30), Delta("x", 1)]


@asynchronous
async def test_the_bound_counts_unread_bytes_of_text() -> None:
    stream, _ = _stream(max_bytes=6)
    assert stream.put(Delta("€", 1))
    assert stream.put(Delta("€", 2))
    assert not stream.put(Delta("a", 3))
    assert await anext(stream) == Delta("€€", 2)
    assert stream.put(Delta("abcdef", 3))


@asynchronous
async def test_an_error_comes_after_what_is_unread_and_once() -> None:
    stream, _ = _stream()
    stream.put(Delta("a", 1))
    stream.end(ERROR)
    assert await anext(stream) == Delta("a", 1)
    with pytest.raises(LlamadError) as error:
        await anext(stream)
    assert error.value is ERROR
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@asynchronous
async def test_a_waiting_reader_is_woken_by_an_event_and_by_the_end() -> None:
    stream, _ = _stream()
    reader = asyncio.create_task(_all(stream))
    await asyncio.sleep(0)
    stream.put(Delta("a", 1))
    await asyncio.sleep(0)
    stream.end()
    assert await reader == [Delta("a", 1)]


@asynchronous
async def test_leaving_early_abandons_the_job_once() -> None:
    stream, abandoned = _stream()
    stream.put(Delta("a", 1))
    await stream.aclose()
    await stream.aclose()
    assert abandoned.count == 1
    assert stream.put(Delta("b", 2))  # dropped: the scheduler need not care
    assert await _all(stream) == []


@asynchronous
async def test_leaving_after_the_end_abandons_nothing() -> None:
    stream, abandoned = _stream()
    stream.end(ERROR)
    await stream.aclose()
    assert abandoned.count == 0
    assert await _all(stream) == []


@asynchronous
async def test_a_reader_cancelled_while_waiting_loses_no_event() -> None:
    stream, _ = _stream()
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    stream.put(Delta("a", 1))
    assert await anext(stream) == Delta("a", 1)
