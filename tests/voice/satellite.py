"""A voice satellite: the unmodified client of the package ``wyoming``, and bytes by hand."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient
from wyoming.event import Event

from gateway.gateway_process import GatewayProcess
from unit.schedule.fakes import TIMEOUT_SECONDS

LAST = ("handled-stop", "not-handled", "error", "info", "pong")


@asynccontextmanager
async def satellite(gateway: GatewayProcess) -> AsyncIterator[Any]:
    """Connect as Home Assistant does."""
    async with AsyncTcpClient("127.0.0.1", gateway.port, read_timeout=TIMEOUT_SECONDS) as client:
        yield client


async def answer_to(client: Any, event: Event) -> list[Event]:
    """Send an event; return what comes until the answer is whole."""
    await client.write_event(event)
    events: list[Event] = []
    while not events or events[-1].type not in LAST:
        event = await client.read_event()
        assert event is not None, events
        events.append(event)
    return events


async def say(client: Any, text: str, conversation: str | None = None) -> list[Event]:
    """Send a transcript; return the events of its answer."""
    context = {"conversation_id": conversation} if conversation else None
    return await answer_to(client, Transcript(text, context=context).event())


def heard(events: list[Event]) -> str:
    """Return the text of an answer that was handled, after a look at its events."""
    kinds = [event.type for event in events]
    chunks = len(kinds) - 3
    assert kinds == ["handled-start", *["handled-chunk"] * chunks, "handled", "handled-stop"]
    streamed = "".join(event.data["text"] for event in events[1:-2])
    assert streamed.strip() == events[-2].data["text"]
    return streamed


def said_once(gateway: GatewayProcess, text: str, conversation: str | None = None) -> list[Event]:
    """Say something on a connection of its own; return the events of its answer."""

    async def once() -> list[Event]:
        async with satellite(gateway) as client:
            return await say(client, text, conversation)

    return asyncio.run(once())


def raw(gateway: GatewayProcess, sent: bytes) -> bytes:
    """Send bytes and return all that comes until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        received = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(sent)
            while piece := connection.recv(65536):
                received += piece
        return received
