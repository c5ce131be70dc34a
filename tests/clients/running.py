"""A service in a thread of its own, for synchronous tests and child processes to talk to."""

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rpc.serving import Service, serving
from unit.schedule.fakes import TIMEOUT_SECONDS


class RunningService:
    """A served fake engine; ``do`` runs a function on its event loop."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.path = service.path
        self.engine = service.bench.engine
        self._loop = loop

    def do(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(TIMEOUT_SECONDS)

    def pause_step(self, number: int) -> threading.Event:
        """Let a step wait for a cancel; set the event when it has begun."""
        entered = threading.Event()
        count = iter(range(1 << 30))

        def pause() -> None:
            if next(count) == number:
                entered.set()
                self.engine.wait_for_cancel()

        self.engine.before_step = pause
        return entered

    def wait_until_idle(self) -> list[Any]:
        """Wait for the end of every job; return the snapshots of all."""

        async def wait() -> list[Any]:
            book = self.service.bench.book
            for job in book.list():
                async for _ in book.watch(job.id):
                    pass
            return book.list(include_ended=True)

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(TIMEOUT_SECONDS)


@contextmanager
def running_service(**arguments: Any) -> Iterator[RunningService]:
    """Run a service; the arguments are those of ``serving``."""
    started = threading.Event()
    box: list[RunningService] = []
    stops: list[Callable[[], object]] = []

    async def live() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serving(**arguments) as service:
            box.append(RunningService(service, loop))
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="service")
    thread.start()
    try:
        assert started.wait(TIMEOUT_SECONDS)
        yield box[0]
    finally:
        for stop in stops:
            stop()
        thread.join(TIMEOUT_SECONDS)


_STATE = tempfile.TemporaryDirectory(prefix="llamactl-state-")  # until the tests end


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a child process that imports what this process imports.

    What it keeps of its conversations is nobody's.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "XDG_STATE_HOME": _STATE.name, **changes}


def llamactl_command(*arguments: str) -> list[str]:
    """Return the command line of llamactl in a child process."""
    return [sys.executable, "-m", "llamactl", *arguments]
