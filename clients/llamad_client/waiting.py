"""Waiting for grpc so that Ctrl-C cannot break it.

KeyboardInterrupt is raised in the main thread between any two instructions. Inside
``threading.Condition``, on which grpc waits, that leaves a lock that is then released without being
held: a RuntimeError instead of the interruption. So the main thread never enters grpc.
"""

import _thread
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


def interruptible(function: Callable[[], T]) -> T:
    """Return what the function returns or raise what it raises; KeyboardInterrupt ends the wait.

    The main thread leaves the function to a thread of its own, which goes on after an interruption.
    Whoever interrupts closes the client or cancels the call, and that ends it.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()  # its lock is held in C only

    def run() -> None:
        try:
            outcome.put((True, function()))
        except BaseException as error:
            outcome.put((False, error))

    _thread.start_new_thread(run, ())  # threading.Thread.start() waits on a Condition
    returned, value = outcome.get()
    if returned:
        return value  # type: ignore[no-any-return]
    raise value
