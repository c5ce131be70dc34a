"""How many calls may run at a time, so that nobody keeps the others out.

Owns the count of calls of those who are no administrators. gRPC's own limit lies above: whoever
reaches that one hears no reason, and administrators would be refused with everybody else.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

from llamad.door.caller import Caller, user_name
from llamad.errors import ErrorKind, LlamadError

CALLS_OF_A_USER = 256
CALLS_OF_ALL_USERS = 448  # what gRPC takes beyond them is for administrators
RETRY_SECONDS = 1.0


class CallLimits:
    """The calls that run. Everything on the event loop's thread."""

    def __init__(self) -> None:
        self._running: Counter[int] = Counter()  # by user id; only those who have some

    @contextlib.contextmanager
    def running(self, caller: Caller) -> Iterator[None]:
        """Count a call while it runs. Raises TOO_MANY_CALLS."""
        if caller.is_admin:
            yield
            return
        if self._running[caller.uid] >= CALLS_OF_A_USER:
            raise _too_many(f"user {user_name(caller.uid)} has", CALLS_OF_A_USER)
        if self._running.total() >= CALLS_OF_ALL_USERS:
            raise _too_many("all users have", CALLS_OF_ALL_USERS)
        self._running[caller.uid] += 1
        try:
            yield
        finally:
            self._running[caller.uid] -= 1
            self._running += Counter()  # which drops those who have none left


def _too_many(who: str, limit: int) -> LlamadError:
    return LlamadError(
        ErrorKind.EXHAUSTED,
        "TOO_MANY_CALLS",
        f"{who} {limit} calls running already, no more are allowed",
        retry_after_seconds=RETRY_SECONDS,
    )
