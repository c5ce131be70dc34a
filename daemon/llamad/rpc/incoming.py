"""The requests of one call as they arrive: within a time, within a size, parsed.

Owns the refusals of what does not arrive, is too large or is no message. How many may arrive at a
time is not decided here (``door/call_limits.py``).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from llamad.door import limits
from llamad.errors import ErrorKind, LlamadError

Context = Any  # grpc.aio.ServicerContext: grpc has no types


class Incoming:
    """What a call receives; either ``message`` or ``messages`` is used, once."""

    def __init__(self, context: Context, parse: Callable[[bytes], Any], most_bytes: int) -> None:
        """Receive messages of at most ``most_bytes`` bytes and parse them with ``parse``."""
        self._context = context
        self._parse = parse
        self._most_bytes = most_bytes

    async def message(self) -> Any:
        """Return the only message. Raises REQUEST_NOT_RECEIVED and what ``messages`` raises."""
        data = await self._read(limits.RECEIVE_SECONDS)
        if data is None:
            raise _invalid("the client sent no request")
        return self._parsed(data)

    async def messages(self) -> AsyncIterator[Any]:
        """Yield the messages until the client has no more.

        Raises REQUEST_NOT_RECEIVED, REQUEST_TOO_LARGE or INVALID_REQUEST.
        """
        while (data := await self._read(limits.MESSAGE_SECONDS)) is not None:
            yield self._parsed(data)

    async def _read(self, seconds: float) -> bytes | None:
        """Return the next message; None when there is none any more."""
        try:
            async with asyncio.timeout(seconds):
                data = await self._context.read()
        except TimeoutError:
            raise LlamadError(
                ErrorKind.DEADLINE,
                "REQUEST_NOT_RECEIVED",
                f"the request did not arrive within {seconds:g} seconds",
            ) from None
        return None if data is grpc.aio.EOF else data

    def _parsed(self, data: bytes) -> Any:
        if len(data) > self._most_bytes:
            raise LlamadError(
                ErrorKind.INVALID,
                "REQUEST_TOO_LARGE",
                f"the request has {len(data)} bytes, at most {self._most_bytes} for this method",
            )
        try:
            return self._parse(data)
        except (DecodeError, UnicodeDecodeError, ValueError):
            raise _invalid("the request is no valid message of this method") from None


def _invalid(message: str) -> LlamadError:
    return LlamadError(ErrorKind.INVALID, "INVALID_REQUEST", message)
