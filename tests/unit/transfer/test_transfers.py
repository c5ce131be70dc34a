"""Transfers between the event loop and their threads."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import pytest

from llamad.errors import LlamadError, invalid
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import Transfer, TransferRequest
from llamad.store.transfers import Transfers
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous


@asynchronous
async def test_a_file_is_not_left_to_others_while_a_thread_still_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    order = []

    def write(transfer: Transfer, offset: int, data: bytes) -> None:
        entered.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        order.append("written")

    def close(transfer: Transfer) -> None:
        order.append("closed")

    monkeypatch.setattr(Transfer, "write", write)
    monkeypatch.setattr(Transfer, "close", close)
    transfers = Transfers(ModelRegistry(tmp_path), max_bytes=1, in_use=lambda name: False)

    async def transfer() -> None:
        async with transfers.receive(TransferRequest("m")) as running:
            await running.write(0, b"x")

    task = asyncio.create_task(transfer())
    await asyncio.to_thread(entered.wait)
    for _ in range(3):  # by the client, by a stop, by a stop in a hurry
        task.cancel()
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["written", "closed"]


class Chunk(bytearray):
    """Bytes that a weak reference can follow."""


@asynchronous
async def test_what_a_refused_chunk_left_is_freed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[weakref.ref[Chunk]] = []

    def write(transfer: Transfer, offset: int, data: bytes) -> None:
        chunk = Chunk(data)
        left.append(weakref.ref(chunk))
        raise invalid("data", "is no model")

    monkeypatch.setattr(Transfer, "write", write)
    transfers = Transfers(ModelRegistry(tmp_path), max_bytes=1, in_use=lambda name: False)

    async def transfer() -> None:
        with pytest.raises(LlamadError):
            async with transfers.receive(TransferRequest("m")) as running:
                await running.write(0, b"x")

    gc.disable()
    try:
        await asyncio.create_task(transfer())
        await asyncio.to_thread(transfers._threads.shutdown)
        assert left[0]() is None
    finally:
        gc.enable()
