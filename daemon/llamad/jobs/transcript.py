"""All events of one job, kept, so that any number of clients may read them from any token on.

A subscription gives each event to one client and forgets it; a transcript is what a job has whose
client may leave and come back. The scheduler puts, readers iterate; all on the event loop's thread.
It is bounded by the job's text, and no reader holds anything of its own, so a slow one costs
nothing. Owns no end of a job: who leaves is told to ``on_left``.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Self

from llamad.errors import LlamadError
from llamad.jobs.event import Delta, Event, Finished, PrefillProgress, Queued

MOST_JOINED_DELTAS = 4096  # of a text that is there already, in one event


def _nothing() -> None:
    """Take note of nothing."""


class Transcript:
    """The events of a job. Iterating over itself is the client's that sent the request."""

    def __init__(self, deltas: Sequence[Delta] = ()) -> None:
        """Begin with the text that a job had when it was stored."""
        self.queued: Queued | None = None  # the newest
        self.progress: PrefillProgress | None = None  # likewise
        self.deltas = list(deltas)
        self.finished: Finished | None = None
        self.error: LlamadError | None = None
        self.ended = False
        self.n_readers = 0
        self.on_change: Callable[[], None] = _nothing  # something was put, or it ended
        self.on_left: Callable[[], None] = _nothing  # the last reader left
        self._closed: LlamadError | None = None
        self._changed = asyncio.Event()
        self._first: Reader | None = None

    @property
    def changed(self) -> asyncio.Event:
        """The event that the next change will set."""
        return self._changed

    def put(self, event: Event) -> bool:
        """Keep an event; it always fits."""
        if self.ended:
            return True
        match event:
            case Queued():
                self.queued = event
            case PrefillProgress():
                self.progress = event
            case Delta():
                self.deltas.append(event)
            case Finished():
                self.finished = event
        self._wake()
        return True

    def end(self, error: LlamadError | None = None) -> None:
        """Take note of the job's end; readers get the error behind the text."""
        if not self.ended:
            self.ended, self.error = True, error
            self._wake()

    def close(self, error: LlamadError) -> None:
        """End every reader with an error, while the job itself may go on later."""
        self._closed = error
        self._wake()

    def check_open(self) -> None:
        """Raise the error that it was closed with."""
        if self._closed is not None:
            raise _again(self._closed)

    def read(self, from_token: int = 0, *, wait: bool = True) -> "Reader":
        """Return a reader of what is behind so many completion tokens; ``aclose`` it.

        ``wait`` False: it ends behind what is there.
        """
        self.n_readers += 1
        return Reader(self, from_token, wait=wait)

    def leave(self) -> None:
        """Count a reader no more."""
        self.n_readers -= 1
        if not self.n_readers:
            self.on_left()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change()

    # ---- the client that sent the request --------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Return the next event."""
        if self._first is None:
            self._first = self.read()
        return await self._first.__anext__()

    async def aclose(self) -> None:
        """Leave."""
        if self._first is None:
            self._first = self.read()
        await self._first.aclose()


class Reader:
    """One client's way through a transcript."""

    def __init__(self, transcript: Transcript, from_token: int, *, wait: bool) -> None:
        self._transcript = transcript
        self._wait = wait
        self._next = bisect_right(transcript.deltas, from_token, key=lambda delta: delta.tokens)
        self._from_token = from_token
        self._queued: Queued | None = None  # the last that was given
        self._progress: PrefillProgress | None = transcript.progress if self._next else None
        self._left = self._done = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; raise the job's error, or StopAsyncIteration, at the end."""
        while True:
            if self._done or self._left:
                raise StopAsyncIteration
            changed = self._transcript.changed
            if (event := self._take()) is not None:
                return event
            if self._transcript.ended:
                return self._end()
            self._transcript.check_open()
            if not self._wait:
                raise StopAsyncIteration
            await changed.wait()

    def _take(self) -> Event | None:
        """Return what was not given yet, if anything."""
        whole = self._transcript
        if whole.queued is not None and whole.queued is not self._queued:
            first, self._queued = self._queued is None, whole.queued
            if first or not whole.deltas:
                return whole.queued
        if whole.progress is not None and whole.progress is not self._progress:
            self._progress = whole.progress
            if not whole.deltas:
                return whole.progress
        while self._next < len(whole.deltas):
            if whole.deltas[self._next].tokens <= self._from_token:
                self._next += 1  # a job that lost its last tokens makes them again
                continue
            return self._joined()
        return None

    def _joined(self) -> Delta:
        """Return the next deltas as one, as far as they are of the same kind; a call is alone."""
        deltas, first = self._transcript.deltas, self._next
        end = first + 1
        most = min(len(deltas), first + MOST_JOINED_DELTAS)
        while end < most and deltas[first].goes_on(deltas[end]):
            end += 1
        self._next = end
        text = "".join(delta.text for delta in deltas[first:end])
        tokens = deltas[end - 1].tokens
        if end < len(deltas) and deltas[end].tokens == tokens:
            tokens -= 1  # the token's answer follows: who leaves now is to get it later
        return replace(deltas[first], text=text, tokens=tokens)

    def _end(self) -> Event:
        self._done = True
        if self._transcript.error is not None:
            raise _again(self._transcript.error)
        if self._transcript.finished is None:
            raise StopAsyncIteration
        return self._transcript.finished

    async def aclose(self) -> None:
        """Leave."""
        if not self._left:
            self._left = True
            self._transcript.leave()


def _again(error: LlamadError) -> LlamadError:
    """Return the error for one more reader: each gets a traceback of its own."""
    return LlamadError(
        error.kind, error.reason, error.message, retry_after_seconds=error.retry_after_seconds
    )
