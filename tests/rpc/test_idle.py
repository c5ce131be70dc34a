"""An idle service lets the processor sleep: what its event loop has scheduled, what it loads."""

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import TypeVarTuple

import grpc.aio
import pytest

from clients.running import environment
from llamad.config import load_config
from llamad.daemon import Daemon
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS

WATCHDOG_SECONDS = 60.0
HALF_PERIOD_SECONDS = WATCHDOG_SECONDS / 2 - 1e-6  # a sum of floats is rounded

Ts = TypeVarTuple("Ts")


class RecordingLoop(asyncio.SelectorEventLoop):
    """An event loop that remembers how far ahead each timer was set.

    Its time stands still while a callback runs: between asking for it and setting a timer by it,
    the machine may let any time pass.
    """

    def __init__(self) -> None:
        self._now = time.monotonic()
        super().__init__()
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        self._now = time.monotonic()
        super()._run_once()  # type: ignore[misc]

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self.timers.append((when - self.time(), handle))
        return handle

    def waiting(self) -> list[tuple[float, asyncio.TimerHandle]]:
        """Return the timers that will go off: how far ahead they were set, in seconds."""
        now = self.time()
        return [(a, h) for a, h in self.timers if not h.cancelled() and h.when() > now]


async def _until_ready(manager: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while b"READY=1" not in await loop.sock_recv(manager, 4096):
        pass


async def _answer(path: Path) -> None:
    request = pb.GenerateRequest(prompt="hello", options=pb.Options(max_tokens=2))
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]
        events = [event async for event in stub.Generate(request)]
    assert events[-1].HasField("finished")


async def _timers_of_an_idle_service(
    loop: RecordingLoop, model: Path, folder: Path, manager: socket.socket
) -> list[tuple[float, asyncio.TimerHandle]]:
    """Start the service and ask it one question; return what its event loop has scheduled then."""
    path = folder / "llamad.sock"
    config = load_config(None, {"service.socket": str(path), "model.path": str(model)})
    service = Daemon(config, model_required=True, read_again=lambda: config)
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await _until_ready(manager)
            await _answer(path)
        return loop.waiting()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_an_idle_service_has_no_timer_shorter_than_half_the_watchdogs_period(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model_path(TinySpec())
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        asyncio.Runner(loop_factory=RecordingLoop) as runner,
    ):
        folder = Path(name)
        manager.bind(str(folder / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_SECONDS * 1e6)))
        loop = runner.get_loop()
        assert isinstance(loop, RecordingLoop)
        waiting = runner.run(_timers_of_an_idle_service(loop, model, folder, manager))
    assert waiting, "the watchdog has no timer"
    assert [timer for timer in waiting if timer[0] < HALF_PERIOD_SECONDS] == []


@pytest.mark.parametrize("library", ["numpy", "PIL", "jinja2", "llamad_tools", "llamad_client"])
def test_the_service_starts_without(library: str) -> None:
    code = f"import sys, llamad.daemon; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0
