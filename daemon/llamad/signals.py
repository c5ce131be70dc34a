"""The signals of the service, and how they wait until it can handle them.

A start takes a second or more, and a signal without a handler ends the process at once: SIGHUP,
which asks for a reload, as well as SIGTERM. So the service holds them back from its first line on
(a blocked signal stays pending), and lets them through when its handlers are in place.
"""

import contextlib
import signal
from collections.abc import Iterator

STOP = (signal.SIGTERM, signal.SIGINT)
RELOAD = signal.SIGHUP


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold the signals until ``let_through``, or the end of the block; in the main thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP, RELOAD))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let the held signals come, and those that follow."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOP, RELOAD))
