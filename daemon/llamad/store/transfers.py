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
from llamad.store.partial_file import remove_old_partial_files
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import StoredModel, Transfer, TransferRequest

log = logging.getLogger(__name__)

MAX_THREADS = 4
BUSY_RETRY_SECONDS = 5.0

T = TypeVar("T")


class AsyncTransfer:
    """A transfer as the event loop uses it."""

    def __init__(self, transfer: Transfer, threads: ThreadPoolExecutor) -> None:
        self._transfer = transfer
        self._threads = threads

    async def present(self) -> StoredModel | None:
        """Return the model that is there already; see ``Transfer.present``."""
        return await self._run(self._transfer.present)

    async def open(self) -> int:
        """Return the bytes that are there already; see ``Transfer.open``."""
        return await self._run(self._transfer.open)

    async def write(self, offset: int, data: bytes) -> None:
        """Take the next bytes; see ``Transfer.write``."""
        await self._run(lambda: self._transfer.write(offset, data))

    async def finish(self) -> StoredModel:
        """Verify the file and give it its name; see ``Transfer.finish``."""
        return await self._run(self._transfer.finish)

    async def close(self) -> None:
        """Save what came for the next attempt, and close."""
        await self._run(self._save_and_close)

    def _save_and_close(self) -> None:
        with contextlib.closing(self._transfer), contextlib.suppress(LlamadError):
            self._transfer.save()  # where it fails, less is saved: what was synced before

    async def _run(self, function: Callable[[], T]) -> T:
        """Run on a thread; a cancellation goes on once the thread has left the file alone."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._transfer.stop()
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):  # one more: the first is raised
                    await asyncio.wait([future])
            future.exception()  # whoever would want to know has left; asyncio would log it
            raise
        finally:
            del future  # it may have an error, whose traceback has this frame and what came


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
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="llamad-transfer")

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
    async def receive(self, request: TransferRequest) -> AsyncIterator[AsyncTransfer]:
        """Let one transfer run; what came is saved however it is left. Raises TRANSFER_RUNNING."""
        with self.only(request.name):
            blocking = Transfer(
                self._registry, request, max_bytes=self._max_bytes, in_use=self._in_use
            )
            transfer = AsyncTransfer(blocking, self._threads)
            try:
                yield transfer
            finally:
                await transfer.close()

    async def remove_old_partial_files(self) -> None:
        """Delete what nobody continued for a month."""
        try:
            names = await asyncio.to_thread(remove_old_partial_files, self._registry.directory)
        except OSError as error:
            log.warning(fields("old transfers not removed", error=error.strerror))
            return
        for name in names:
            log.info(fields("old transfer removed", file=name))
