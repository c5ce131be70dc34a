"""Events of the Wyoming protocol: how they are read from a connection, and written.

An event is a line of JSON, ``{"type": ..., "data": {...}, "data_length": n, "payload_length": m}``,
then n bytes of JSON that go over ``data``, then m bytes of sound or the like. Every length is
bounded before anything of that length is read, and a payload is left out as it comes, because
nobody here listens to one.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAYLOAD_PIECE = 1 << 16  # bytes that are read and left out at once


class EventError(Exception):
    """What a client sent is no event, or too large; the text is one line."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, without its payload."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a field of the data that is a text, empty where absent. Raises EventError."""
        value = self.data.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise EventError(f"{self.type}: {name} must be a string")
        return value


@dataclass(frozen=True, slots=True)
class Sizes:
    """The most bytes of an event. event: of its line, and of its data; payload: of the rest."""

    event: int
    payload: int


async def read_event(reader: asyncio.StreamReader, beginning: bytes, sizes: Sizes) -> Event | None:
    """Return the event that begins with these bytes; None where the client left before its end.

    reader: its limit is ``sizes.event``. Raises EventError.
    """
    try:
        line = beginning
        if not line.endswith(b"\n"):
            line += await reader.readuntil(b"\n")
        header = _object(line, "the line of an event")
        kind = header.get("type")
        if not isinstance(kind, str):
            raise EventError("type: must be a string")
        data = header.get("data")
        if data is None:
            data = {}
        elif not isinstance(data, dict):
            raise EventError("data: must be an object")
        if n_data := _length(header, "data_length", sizes.event):
            data = data | _object(await reader.readexactly(n_data), "data")
        left = _length(header, "payload_length", sizes.payload)
        while left:
            left -= len(await reader.readexactly(min(left, PAYLOAD_PIECE)))
    except asyncio.LimitOverrunError:
        raise EventError(f"the line of an event has at most {sizes.event} bytes") from None
    except asyncio.IncompleteReadError:
        return None
    return Event(kind, data)


def _object(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{name}: is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise EventError(f"{name}: must be an object")
    return value


def _length(header: Mapping[str, Any], name: str, most: int) -> int:
    value = header.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= most:
        raise EventError(f"{name}: must be a whole number from 0 to {most}")
    return value


def written(event: Event) -> bytes:
    """Return the bytes of an event: the data follow the line, as every program reads them."""
    if not event.data:
        return json.dumps({"type": event.type}).encode() + b"\n"
    data = json.dumps(event.data).encode()
    return json.dumps({"type": event.type, "data_length": len(data)}).encode() + b"\n" + data
