"""A step that hangs, with real processes: stacks, the end by systemd's signal, and the stored job.

One thread of the engine is stopped from outside (``stopped_thread.py``); nothing in the service
knows of it. The test is in systemd's place: it hears the pings, and sends what systemd would.
"""

import contextlib
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.daemon_process import Daemon, daemon
from llamad.service.stacks import WATCHDOG_SIGNAL
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from stopped_thread import stopping
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS

PERIOD_SECONDS = 0.5
PING = b"WATCHDOG=1"
REQUEST = pb.GenerateRequest(
    prompt="a prompt", options=pb.Options(max_tokens=24, sampling=pb.Sampling(seed=5))
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextlib.contextmanager
def stub_of(running: Daemon) -> Iterator[Any]:
    with grpc.insecure_channel(f"unix:{running.socket}") as channel:
        yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal here and in the processes that begin meanwhile."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def text_of(events: Any) -> str:
    return "".join(event.delta.text for event in events)


def test_a_step_that_hangs_is_told_with_stacks_and_its_stored_job_ends_after_the_restart(
    tiny_model_path: TinyModelPath, folder: Path
) -> None:
    (folder / "state").mkdir(mode=0o700)
    config = folder / "llamad.toml"
    config.write_text(f'[service]\nstate_directory = "{folder}/state"\n')
    flags = ("--config", str(config), "--model", str(tiny_model_path(TinySpec())), "--threads", "2")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(PERIOD_SECONDS)
        watched = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(PERIOD_SECONDS * 1e6)),
        }
        with contextlib.ExitStack() as stack:
            with ignored(WATCHDOG_SIGNAL):  # as for what a shell puts in the background
                running = stack.enter_context(daemon(folder, *flags, **watched))
            running.wait_until_ready()
            stub = stack.enter_context(stub_of(running))
            expected = text_of(stub.Generate(REQUEST))
            stack.enter_context(stopping(running.process.pid, "lld-worker-1"))
            job = stub.SubmitJob(pb.SubmitJobRequest(generate=REQUEST)).job
            while running.log.read_text().count("in run_forever") == 0:  # of the loop's stack, last
                with contextlib.suppress(TimeoutError):
                    manager.recv(4096)  # a ping, while it is still fed
            manager.setblocking(False)
            pings_until_end(manager)
            told = running.log.read_text()
            running.process.send_signal(WATCHDOG_SIGNAL)
            assert running.process.wait(TIMEOUT_SECONDS) == -WATCHDOG_SIGNAL
            assert pings_until_end(manager) == 0
    assert "'lld-worker-1' state=t" in told
    assert told.count("in forward") == 1
    assert running.log.read_text().count("in forward") == 2  # and once more at the end
    with daemon(folder, *flags) as running:
        running.wait_until_ready()
        with stub_of(running) as stub:
            assert text_of(stub.ResumeJob(pb.ResumeJobRequest(id=job.id))) == expected


def pings_until_end(manager: socket.socket) -> int:
    """Return how many pings lie in the mailbox, and empty it."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += manager.recv(4096) == PING
    return count
