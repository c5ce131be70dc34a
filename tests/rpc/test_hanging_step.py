"""A step that hangs, with real processes: stacks, the end by systemd's signal, and the stored job.

One thread of the engine is stopped from outside (``stopped_thread.py``); nothing in the service
knows of it. The test is in systemd's place: it hears the pings, and sends what systemd would.
"""

import contextlib
import queue
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

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
PING, MARK, END = b"WATCHDOG=1", b"mark", b"end"
Mail: TypeAlias = "queue.SimpleQueue[bytes]"
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
    with mailbox(folder / "notify") as mail:
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
            before = len(running.log.read_text())  # a step may have stood still on a busy machine

            def told() -> str:
                return running.log.read_text()[before:]

            job = stub.SubmitJob(pb.SubmitJobRequest(generate=REQUEST)).job
            while "in run_forever" not in told():  # of the loop's stack, last
                with contextlib.suppress(queue.Empty):
                    mail.get(timeout=PERIOD_SECONDS)  # a ping, while it is still fed
            pings(mail, folder / "notify")
            hung = told()
            running.process.send_signal(WATCHDOG_SIGNAL)
            assert running.process.wait(TIMEOUT_SECONDS) == -WATCHDOG_SIGNAL
            assert pings(mail, folder / "notify") == 0
    assert "'lld-worker-1' state=t" in hung
    assert hung.count("in forward") == 1
    assert told().count("in forward") == 2  # and once more at the end
    with daemon(folder, *flags) as running:
        running.wait_until_ready()
        with stub_of(running) as stub:
            assert text_of(stub.ResumeJob(pb.ResumeJobRequest(id=job.id))) == expected


@contextlib.contextmanager
def mailbox(path: Path) -> Iterator[Mail]:
    """Return what systemd hears at this address, taken out at once.

    The kernel queues few datagrams, and then holds the sender.
    """
    mail: Mail = queue.SimpleQueue()

    def take() -> None:
        while (text := manager.recv(4096)) != END:
            mail.put(text)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        taking = threading.Thread(target=take)
        taking.start()
        try:
            yield mail
        finally:
            tell(path, END)
            taking.join()


def tell(path: Path, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text, str(path))


def pings(mail: Mail, path: Path) -> int:
    """Return how many pings came until now, and forget what came."""
    tell(path, MARK)
    return list(iter(mail.get, MARK)).count(PING)
