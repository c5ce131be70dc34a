"""The bounded way back from the scheduler to one client.

The scheduler puts, one consumer iterates; both on the event loop's thread. What a slow client has
not read yet is held as text, not as events: a new Delta joins the unread one before it, if both are
of one kind (``Delta.goes_on``), a newer PrefillProgress replaces an unread one, and a newer Queued
what is unread of both. So only the bytes of text, and of probabilities, need a bound. Nothing here
waits for the client: the engine never does.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from llamad.errors import LlamadError
from llamad.jobs.event import Delta, Event, PrefillProgress, Queued


@dataclass(slots=True)
class _UnreadText:
    """Deltas that nobody has read yet; joined only when somebody does."""

    parts: list[str]
    n_bytes: int
    tokens: int
    first: Delta  # of those that were joined


class Subscription:
    """An asynchronous iterator over the events of one job, for one consumer.

    It ends after ``Finished``, or raises the LlamadError that ended the job. A consumer that gives
    up, or is cancelled, calls ``aclose``, which cancels the job; one that read to the end need not.
    """

    def __init__(self, *, max_bytes: int, on_abandon: Callable[[], None]) -> None:
        """Hold at most ``max_bytes`` of unread text; tell ``on_abandon`` that the consumer left."""
        self._max_bytes = max_bytes
        self._on_abandon = on_abandon
        self._unread: deque[Event | _UnreadText] = deque()
        self._unread_bytes = 0
        self._readable = asyncio.Event()
        self._ended = False
        self._error: LlamadError | None = None

    def put(self, event: Event) -> bool:
        """Append an event; return False, the event not taken, when too much text is unread.

        An event after the end is dropped: nobody is there to read it.
        """
        if self._ended:
            return True
        last = self._unread[-1] if self._unread else None
        if isinstance(event, Delta):
            n_bytes = event.n_bytes
            if self._unread_bytes + n_bytes > self._max_bytes:
                return False
            self._unread_bytes += n_bytes
            if isinstance(last, _UnreadText) and last.first.goes_on(event):
                last.parts.append(event.text)
                last.n_bytes += n_bytes
                last.tokens = event.tokens
            else:
                self._unread.append(_UnreadText([event.text], n_bytes, event.tokens, event))
        elif isinstance(event, PrefillProgress) and isinstance(last, PrefillProgress):
            self._unread[-1] = event
        elif isinstance(event, Queued):
            while self._unread and isinstance(self._unread[-1], Queued | PrefillProgress):
                self._unread.pop()
            self._unread.append(event)
        else:
            self._unread.append(event)
        self._readable.set()
        return True

    def end(self, error: LlamadError | None = None) -> None:
        """Close the scheduler's side: after the unread events comes the end, or ``error``."""
        self._ended = True
        self._error = error
        self._readable.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; raise the job's error, or StopAsyncIteration, at the end."""
        while not self._unread:
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._readable.clear()
            await self._readable.wait()
        entry = self._unread.popleft()
        if isinstance(entry, _UnreadText):
            self._unread_bytes -= entry.n_bytes
            return replace(entry.first, text="".join(entry.parts), tokens=entry.tokens)
        return entry

    async def aclose(self) -> None:
        """Leave: drop what is unread, and cancel the job when it still runs."""
        self._unread.clear()
        self._unread_bytes = 0
        self._error = None
        if not self._ended:
            self.end()
            self._on_abandon()
