"""The line of requests and changes of the model, in the gateway."""

import asyncio

import pytest

from llamad_http.errors import HttpError
from llamad_http.turns import Turns
from unit.schedule.fakes import asynchronous


async def _settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynchronous
async def test_a_change_waits_for_those_before_it_and_those_behind_wait_for_it() -> None:
    turns, told = Turns(), []
    may_end = asyncio.Event()

    async def change() -> None:
        async with turns.change():
            told.append("change")
            await may_end.wait()

    async def request() -> None:
        share = await turns.share()
        told.append("request")
        share.release()

    before, also = await turns.share(), await turns.share()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(change())
        await _settle()
        tasks.create_task(request())
        before.release()
        before.release()
        await _settle()
        assert told == []
        also.release()
        await _settle()
        assert told == ["change"]
        may_end.set()
    assert told == ["change", "request"]


@asynchronous
async def test_a_share_that_was_taken_in_a_change_holds_back_the_next_one() -> None:
    turns = Turns()
    share = await turns.share()
    share.release()
    async with turns.change():
        share.take()
        share.take()
    change = asyncio.ensure_future(turns.change().__aenter__())
    await _settle()
    assert not change.done()
    share.release()
    await change


@asynchronous
async def test_who_gives_up_holds_nobody_back() -> None:
    turns = Turns()
    share = await turns.share()
    change = asyncio.ensure_future(turns.change().__aenter__())
    await _settle()
    request = asyncio.ensure_future(turns.share())
    await _settle()
    assert not request.done()
    change.cancel()
    (await request).release()
    share.release()
    async with turns.change():
        pass


@asynchronous
async def test_who_waits_when_the_gateway_stops_is_told_so() -> None:
    turns = Turns()
    share = await turns.share()
    change = asyncio.ensure_future(turns.change().__aenter__())
    request = asyncio.ensure_future(turns.share())
    await _settle()
    turns.close()
    share.release()
    for waiting in (change, request):
        with pytest.raises(HttpError, match="is stopping") as caught:
            await waiting
        assert caught.value.status == 503
