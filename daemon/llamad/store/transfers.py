"""The transfers that run: one for each name, on threads of their own.

Owns who may touch a name at a time and the way between the event loop and the disk. What a transfer
accepts and proves is transfer.py's.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.store.partial_file import remove_old_parts
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import Announced, Arrival, Arrived

log = logging.getLogger(__name__)

MAX_THREADS = 4
BUSY_RETRY_SECONDS = 5.0

T = TypeVar("T")


class Transfer:
    """One arrival as the event loop uses it."""

    def __init__(self, arrival: Arrival, threads: ThreadPoolExecutor) -> None:
        self._arrival = arrival
        self._threads = threads

    async def present(self) -> Arrived | None:
        """Return the model that is there already; see ``Arrival.present``."""
        return await self._run(self._arrival.present)

    async def open(self) -> int:
        """Return the bytes that are kept; see ``Arrival.open``."""
        return await self._run(self._arrival.open)

    async def write(self, offset: int, data: bytes) -> None:
        """Take the next bytes; see ``Arrival.write``."""
        await self._run(lambda: self._arrival.write(offset, data))

    async def finish(self) -> Arrived:
        """Verify the file and give it its name; see ``Arrival.finish``."""
        return await self._run(self._arrival.finish)

    async def leave(self) -> None:
        """Keep what there is to keep, and close."""
        await self._run(self._leave)

    def _leave(self) -> None:
        with contextlib.closing(self._arrival), contextlib.suppress(LlamadError):
            self._arrival.keep()  # where it fails, less is kept: what was synced before

    async def _run(self, function: Callable[[], T]) -> T:
        """Run on a thread; a cancellation goes on once the thread has left the file alone."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._arrival.stop()
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):  # one more: the first is raised
                    await asyncio.wait([future])
            future.exception()  # whoever would want to know has left; asyncio would log it
            raise


class Transfers:
    """The transfers into one model directory. Everything on the event loop's thread."""

    def __init__(
        self, registry: ModelRegistry, *, max_bytes: int, in_use: Callable[[str], bool]
    ) -> None:
        """Receive files of at most max_bytes; ``in_use``, of any thread: is a name loaded."""
        self._registry = registry
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._names: set[str] = set()
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="llamad-arrival")

    def change_limit(self, max_bytes: int) -> None:
        """Bound the transfers that begin from now on."""
        self._max_bytes = max_bytes

    @contextlib.contextmanager
    def only(self, name: str) -> Iterator[None]:
        """Keep others off a name. Raises TRANSFER_RUNNING."""
        if name in self._names:
            raise LlamadError(
                ErrorKind.STATE,
                "TRANSFER_RUNNING",
                f"a transfer of model {name} is running, wait until it ends",
                retry_after_seconds=BUSY_RETRY_SECONDS,
            )
        self._names.add(name)
        try:
            yield
        finally:
            self._names.discard(name)

    @contextlib.asynccontextmanager
    async def receive(self, announced: Announced) -> AsyncIterator[Transfer]:
        """Let one transfer run; what came is kept however it is left. Raises TRANSFER_RUNNING."""
        with self.only(announced.name):
            arrival = Arrival(
                self._registry, announced, max_bytes=self._max_bytes, in_use=self._in_use
            )
            transfer = Transfer(arrival, self._threads)
            try:
                yield transfer
            finally:
                await transfer.leave()

    async def remove_old_parts(self) -> None:
        """Delete what nobody continued for a month."""
        try:
            names = await asyncio.to_thread(remove_old_parts, self._registry.directory)
        except OSError as error:
            log.warning(fields("old transfers not removed", error=error.strerror))
            return
        for name in names:
            log.info(fields("old transfer removed", file=name))
