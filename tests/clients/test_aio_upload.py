"""Uploads of the asyncio client that end before their data: refused, cancelled, left alone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from clients.running import RunningService, running_service
from clients.test_model_calls import MODEL, SHA256, AsyncSource
from clients.test_model_calls import client as client
from clients.test_model_calls import service as service
from llamad_client import AsyncClient, ClientError, Failed, Refused, ServiceUnreachable
from llamad_client.upload import MAX_CHUNK_BYTES
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous

HALF = len(MODEL) // 2


class WaitingSource(AsyncSource):
    """A source that stops after half of its data, until it is let go on."""

    def __init__(self, data: bytes = MODEL) -> None:
        super().__init__(data)
        self.waits = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.ended_by: BaseException | None = None

    def open_asynchronously(self, offset: int) -> tuple[int, AsyncIterator[bytes]]:
        self.opened.append(offset)
        return offset, self._pieces(offset)

    async def _pieces(self, offset: int) -> AsyncIterator[bytes]:
        try:
            if offset < HALF:
                yield self.data[offset:HALF]
            self.waits.set()
            await self.goes_on.wait()
            yield self.data[max(offset, HALF) :]
        except BaseException as error:
            self.ended_by = error
            raise
        finally:
            self.closed = True


def uploading(test: Callable[[RunningService, AsyncClient], Coroutine[Any, Any, None]]) -> Any:
    """Run a test with a client, and look that no thread of an upload is left."""

    def run(service: RunningService) -> None:
        @asynchronous
        async def body() -> None:
            async with AsyncClient(service.path) as client:
                await test(service, client)

        body()
        for thread in threading.enumerate():
            if thread.name.startswith("llamad-upload"):
                thread.join(TIMEOUT_SECONDS)
                assert not thread.is_alive()

    run.__name__ = test.__name__
    return run


async def added_in_time(data: AsyncSource, client: AsyncClient, **changes: object) -> Any:
    """Add a model once the service has heard of the end of the transfer before."""
    while True:
        try:
            return await data.add_with(client, **changes)
        except Refused as refused:
            if refused.reason != "TRANSFER_RUNNING":
                raise


@uploading
async def test_what_the_source_raises_is_raised(
    service: RunningService, client: AsyncClient
) -> None:
    source = AsyncSource()
    source.error = OSError("the network is gone")
    with pytest.raises(OSError, match="the network is gone") as raised:
        await source.add_with(client)
    assert raised.value is source.error
    assert (await added_in_time(AsyncSource(), client)).sha256 == SHA256


@uploading
async def test_what_opening_raises_is_raised(service: RunningService, client: AsyncClient) -> None:
    def refuse(offset: int) -> tuple[int, AsyncIterator[bytes]]:
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        await client.add_model("m", refuse, file_bytes=None, sha256="", source="")


@uploading
async def test_a_refusal_before_the_data_is_raised(
    service: RunningService, client: AsyncClient
) -> None:
    source = AsyncSource()
    with pytest.raises(Refused) as error:
        await source.add_with(client, sha256="no")
    assert error.value.reason == "INVALID_SHA256"
    assert source.opened == []


@uploading
async def test_the_reason_of_a_refusal_in_the_middle_is_raised(
    service: RunningService, client: AsyncClient
) -> None:
    for number in range(8):  # how far the client is when it hears of the end is chance
        longer = AsyncSource(MODEL + bytes(3 * MAX_CHUNK_BYTES), piece=MAX_CHUNK_BYTES)
        with pytest.raises((Refused, Failed)) as ended:
            await added_in_time(longer, client, source=f"s{number}", file_bytes=len(MODEL))
        assert ended.value.reason == "INVALID_DATA"
        assert longer.closed


@uploading
async def test_a_cancel_in_the_middle_ends_the_source_and_the_call(
    service: RunningService, client: AsyncClient
) -> None:
    source = WaitingSource()
    work = asyncio.create_task(source.add_with(client))
    await source.waits.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert source.closed
    assert isinstance(source.ended_by, asyncio.CancelledError)
    again = AsyncSource()
    assert (await added_in_time(again, client)).sha256 == SHA256
    assert again.opened[-1] in (0, HALF)  # what had come is kept, all or nothing of a piece


@uploading
async def test_a_second_cancel_ends_the_wait_for_the_first(
    service: RunningService, client: AsyncClient
) -> None:
    source = WaitingSource()
    work = asyncio.create_task(source.add_with(client))
    await source.waits.wait()
    work.cancel()
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


@uploading
async def test_a_cancel_at_the_beginning_leaves_nothing_behind(
    service: RunningService, client: AsyncClient
) -> None:
    for n_turns in range(5):
        work = asyncio.create_task(AsyncSource().add_with(client))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert (await added_in_time(AsyncSource(), client)).sha256 == SHA256


@uploading
async def test_other_calls_go_on_while_the_source_waits(
    service: RunningService, client: AsyncClient
) -> None:
    source = WaitingSource()
    work = asyncio.create_task(source.add_with(client))
    await source.waits.wait()
    assert (await client.status()).state == "ready"  # the event loop is not held up
    source.goes_on.set()
    assert (await work).sha256 == SHA256


def test_a_service_that_goes_away_in_the_middle_is_named() -> None:
    services = ExitStack()
    gone = services.enter_context(running_service())

    @asynchronous
    async def body() -> None:
        async with AsyncClient(gone.path) as client:
            source = WaitingSource(MODEL + bytes(3 * MAX_CHUNK_BYTES))
            work = asyncio.create_task(source.add_with(client, sha256="", file_bytes=None))
            await source.waits.wait()
            await asyncio.to_thread(services.close)
            source.goes_on.set()
            with pytest.raises(ClientError) as error:
                await work
            assert error.value.reason in ("SHUTTING_DOWN", "NOT_RUNNING"), error.value

    body()


def test_a_service_that_is_not_there_is_named(tmp_path: Any) -> None:
    @asynchronous
    async def body() -> None:
        async with AsyncClient(tmp_path / "none.sock") as client:
            with pytest.raises(ServiceUnreachable) as error:
                await AsyncSource().add_with(client)
            assert error.value.reason == "NOT_RUNNING"

    body()
