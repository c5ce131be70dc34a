"""Whose turn the loaded model is: requests that go through it, and changes of it, in their order.

A service that changes its model ends the requests that wait in its queue, and those that run are
given a while. So two clients that name two models in turn would cost each other their answers.
Here a change waits until the requests before it run, and the requests behind it wait for the
change: each of them gets its model at least until it runs. What others than this gateway change
comes whenever it comes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llamad_http.errors import HttpError


class Share:
    """Holds back changes of the model while it is held."""

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self._is_held = False

    def take(self) -> None:
        """Hold changes back; only for who has the turn."""
        if not self._is_held:
            self._is_held = True
            self._turns.add(1)

    def release(self) -> None:
        """Let changes come, as far as this share goes; may be called again."""
        if self._is_held:
            self._is_held = False
            self._turns.add(-1)


class Turns:
    """The line of one gateway."""

    def __init__(self) -> None:
        self._line = asyncio.Lock()  # first come, first served
        self._free = asyncio.Event()
        self._free.set()
        self._n_held = 0
        self._is_closed = False

    def close(self) -> None:
        """Let nobody have a turn any more: who waits hears that the gateway stops."""
        self._is_closed = True

    async def share(self) -> Share:
        """Wait for the changes that came before; return a share that is held. Raises HttpError."""
        async with self._line:
            self._check_open()
            share = Share(self)
            share.take()
            return share

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Have the turn alone: nobody holds a share, whoever comes waits. Raises HttpError."""
        async with self._line:
            await self._free.wait()
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._is_closed:
            message = "the gateway is stopping"
            raise HttpError(503, "STOPPING", message, retry_after_seconds=2)

    def add(self, count: int) -> None:
        """Count shares; of Share alone."""
        self._n_held += count
        if self._n_held:
            self._free.clear()
        else:
            self._free.set()
