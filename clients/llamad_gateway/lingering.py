"""Ends of connections that a client can read: what was written arrives, whatever it still sends.

A kernel resets a connection that is closed with bytes unread, and what was written to it is lost
with them (RFC 9112, 9.6). So the writing side is closed first, and what comes is read and left
out, for a short time.
"""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_SECONDS = 2.0
"""The longest time for which a client may go on sending."""

_PIECE = 1 << 16  # bytes that are read and left out at once


class LingeringTransport:
    """A transport of asyncio's whose ``close`` lingers where bytes may be unread.

    Its protocol leaves out what it receives while ``is_closing()``. has_unread: whether the client
    may send more, or has.
    """

    def __init__(self, transport: Any, has_unread: Callable[[], bool]) -> None:
        self._transport = transport
        self._has_unread = has_unread
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._timer is not None or bool(self._transport.is_closing())

    def write(self, data: bytes) -> None:
        """Write, unless it was closed."""
        if not self.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Stop reading, unless it was closed."""
        if not self.is_closing():
            self._transport.pause_reading()

    def close(self) -> None:
        """Close it, at once where the client has said all that it had to say."""
        if self.is_closing():
            return
        if not self._has_unread() or not self._transport.can_write_eof():
            self._transport.close()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.write_eof()
        self._transport.resume_reading()

    def lost(self) -> None:
        """Forget the time: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()


async def discard_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the writing side; leave out what comes until the client leaves, or for a short time."""
    if writer.can_write_eof():
        writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(_PIECE):
                pass
    except TimeoutError:
        pass
