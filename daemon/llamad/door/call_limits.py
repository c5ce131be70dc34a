"""How many calls may run, and how many requests may arrive, so that nobody keeps the others out.

Owns the counts for each user. The numbers and their reasons stand in ``limits.py``. Everything here
runs on the event loop's thread.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from llamad.door import limits
from llamad.door.caller import Caller
from llamad.door.capacity import FULL, Capacity
from llamad.errors import ErrorKind, LlamadError
from llamad.users import user_name


class CallLimits:
    """The calls that run, and those whose request is on its way."""

    def __init__(self, capacity: Capacity = FULL) -> None:
        self._capacity = capacity
        self._running: Counter[int] = Counter()  # by user id; only those who have some
        self._uploads: Counter[int] = Counter()
        self._receiving: dict[int, _Places] = {}

    @contextlib.contextmanager
    def running(self, caller: Caller, *, upload: bool = False) -> Iterator[None]:
        """Count a call while it runs; ``upload``: its requests are a stream.

        Raises TOO_MANY_CALLS. What administrators do is not counted.
        """
        if caller.is_admin:
            yield
            return
        who = f"user {user_name(caller.uid)} has"
        of_a_user, of_all = self._capacity.calls_of_a_user, self._capacity.calls_of_all_users
        if self._running[caller.uid] >= of_a_user:
            raise _too_many(who, of_a_user, "calls running already")
        if self._running.total() >= of_all:
            raise _too_many("all users have", of_all, "calls running already")
        if upload and self._uploads[caller.uid] >= limits.UPLOADS_OF_A_USER:
            raise _too_many(who, limits.UPLOADS_OF_A_USER, "uploads running already")
        with _counted(self._running, caller.uid):
            if not upload:
                yield
                return
            with _counted(self._uploads, caller.uid):
                yield

    @contextlib.asynccontextmanager
    async def receiving(self, caller: Caller) -> AsyncIterator[None]:
        """Hold one of the places that a user, or an administrator, has for requests that arrive.

        Raises TOO_MANY_CALLS when none is free in the time that a request has.
        """
        places = self._receiving.setdefault(caller.uid, _Places())
        places.n_users += 1
        try:
            try:
                async with asyncio.timeout(limits.RECEIVE_SECONDS):
                    await places.free.acquire()
            except TimeoutError:
                who = f"user {user_name(caller.uid)} has"
                what = f"requests on their way, none ended in {limits.RECEIVE_SECONDS:g} seconds"
                raise _too_many(who, limits.RECEIVING_OF_A_USER, what) from None
            try:
                yield
            finally:
                places.free.release()
        finally:
            places.n_users -= 1
            if not places.n_users:
                del self._receiving[caller.uid]


class _Places:
    """The places of one user, and how many calls hold or want one."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(limits.RECEIVING_OF_A_USER)
        self.n_users = 0


@contextlib.contextmanager
def _counted(counter: Counter[int], uid: int) -> Iterator[None]:
    counter[uid] += 1
    try:
        yield
    finally:
        counter[uid] -= 1
        if not counter[uid]:
            del counter[uid]


def _too_many(who: str, limit: int, what: str) -> LlamadError:
    return LlamadError(
        ErrorKind.EXHAUSTED,
        "TOO_MANY_CALLS",
        f"{who} {limit} {what}, no more are allowed",
        retry_after_seconds=limits.RETRY_SECONDS,
    )
