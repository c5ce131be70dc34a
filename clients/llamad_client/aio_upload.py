"""Sending a model file through AddModel for the asyncio client: ``upload`` on a thread of its own.

grpc.aio (1.85) drops the service's status when a write meets the end of the call, so the reason of
a refusal would be lost; the synchronous call keeps it. The source stays on the event loop: the
thread asks for each piece and waits for it there.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llamad_api.v1.admin_pb2 import AddModelRequest
from llamad_api.v1.admin_pb2_grpc import AdminStub
from llamad_client.address import Address
from llamad_client.channel import open_channel
from llamad_client.upload import upload
from llamad_client.values import AddedModel

T = TypeVar("T")

AsyncOpenAt = Callable[[int], tuple[int, AsyncIterable[bytes]]]
"""As ``OpenAt``, with pieces that come asynchronously."""


async def upload_from_loop(
    start: AddModelRequest.Start, open_at: AsyncOpenAt, address: Address
) -> AddedModel:
    """Send one model to the service at ``address``; return it, and raise what ``upload`` does.

    ``open_at`` and its pieces run on the event loop. A cancel ends the call and the source, and
    waits for both.
    """
    source = _Source(open_at, asyncio.get_running_loop())
    channel = open_channel(address)
    method = AdminStub(channel).AddModel  # type: ignore[no-untyped-call]
    executor = ThreadPoolExecutor(1, "llamad-upload")  # the loop's own may be all taken by uploads
    work = source.loop.run_in_executor(executor, upload, method, start, source.open_at, address)
    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard or not
    executor.shutdown(wait=False)  # the thread ends with its work
    try:
        await asyncio.wait((work,))  # whose cancel does not cancel the work
    finally:
        source.end()
        channel.close()
        await asyncio.wait((work,))
        await source.close()
    return work.result()


class _Source:
    """An asynchronous source of pieces, read by another thread: one wait at a time.

    What runs on the event loop owns the state.
    """

    def __init__(self, open_at: AsyncOpenAt, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._open_at = open_at
        self._pieces: AsyncIterator[bytes] | None = None
        self._waits: asyncio.Task[Any] | None = None  # for a piece
        self._ended = False

    # ---- on the thread --------------------------------------------------------------------------

    def open_at(self, kept: int) -> tuple[int, Iterator[bytes]]:
        """Return where the pieces begin, and the pieces."""
        return self._on_loop(self._open(kept)), self._read()

    def _read(self) -> Iterator[bytes]:
        while (piece := self._on_loop(self._next())) is not None:
            yield piece

    def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    # ---- on the event loop ----------------------------------------------------------------------

    async def _open(self, kept: int) -> int:
        offset, pieces = self._open_at(kept)
        self._pieces = aiter(pieces)
        return offset

    async def _next(self) -> bytes | None:
        """Return the next piece; None at the end."""
        assert self._pieces is not None
        if self._ended:
            raise asyncio.CancelledError
        self._waits = asyncio.current_task()
        try:
            return await anext(self._pieces, None)
        finally:
            self._waits = None

    def end(self) -> None:
        """Read no more, and end the wait for a piece."""
        self._ended = True
        if self._waits is not None:
            self._waits.cancel()

    async def close(self) -> None:
        """Let a generator end now, not when its memory is freed."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()
