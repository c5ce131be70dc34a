"""The threads that turn requests into tokens: one for short texts, one for long ones.

Encoding is Python, and a hostile text of a mebibyte may take seconds; so no two long ones are ever
encoded at once, and a short one never waits for a long one. A text keeps its place until its thread
is done with it, also when the client has left: leaving makes no room for more work. Owns the
threads and the places, not what is done there.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

LONG_BYTES = 32 << 10  # texts above are encoded on the thread for long ones

T = TypeVar("T")


class Line:
    """Encodings of one kind, whose number somebody bounds."""

    def __init__(self) -> None:
        self.pending = 0  # that wait or run
        self.pending_bytes = 0  # of text

    def take(self, n_bytes: int) -> None:
        """Count a text."""
        self.pending += 1
        self.pending_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Count a text no more."""
        self.pending -= 1
        self.pending_bytes -= n_bytes


class Encoder:
    """Runs encodings in the order they come, short and long ones apart; ``close`` at the end."""

    def __init__(self, short: Executor | None = None, long: Executor | None = None) -> None:
        """Encode on threads of our own; tests bring executors."""
        self._short = short or ThreadPoolExecutor(1, thread_name_prefix="llamad-encode")
        self._long = long or ThreadPoolExecutor(1, thread_name_prefix="llamad-encode-long")

    async def run(self, function: Callable[[], T], n_bytes: int, line: Line) -> T:
        """Return what the function returns for a text of this size, or raise what it raises.

        ``line`` counts it. A caller that is cancelled meanwhile leaves at once; an encoding that
        runs keeps its place. Raises CancelledError when the encoder is closed before its turn.
        """
        loop = asyncio.get_running_loop()
        work = (self._long if n_bytes > LONG_BYTES else self._short).submit(function)
        line.take(n_bytes)
        waiting = asyncio.wrap_future(work)
        try:
            result = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(_ignore)
            if work.cancel() or work.done():
                line.give_back(n_bytes)
            else:
                work.add_done_callback(lambda done: _leave(loop, done, line, n_bytes))
            raise
        except BaseException:
            line.give_back(n_bytes)
            # They have the error, whose traceback has this frame and the text's tokens.
            del work, waiting
            raise
        line.give_back(n_bytes)
        return result

    def close(self) -> None:
        """Begin no further encoding; those that run end by themselves."""
        for executor in (self._short, self._long):
            executor.shutdown(wait=False, cancel_futures=True)


def _ignore(waiting: "asyncio.Future[T]") -> None:
    """Hear an error that nobody waits for any more, or asyncio would write it to the journal."""
    if not waiting.cancelled():
        waiting.exception()


def _leave(loop: asyncio.AbstractEventLoop, work: "Future[T]", line: Line, n_bytes: int) -> None:
    """Give the place of an encoding back whose caller has left; on its thread."""
    work.exception()  # heard by nobody
    with suppress(RuntimeError):  # the loop is closed: nobody counts any more
        loop.call_soon_threadsafe(line.give_back, n_bytes)
