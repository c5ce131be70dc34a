"""What arrives at the notify socket, and that nothing breaks without one."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamad import systemd


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the service manager's end of the notify socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(path))
            receiver.settimeout(60)
            monkeypatch.setenv("NOTIFY_SOCKET", str(path))
            yield receiver


def test_states_and_status_lines_arrive(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.status("reading the model")
    notifier.ready("serving tiny")
    notifier.stopping("stopping")
    notifier.watchdog()
    assert [manager.recv(4096) for _ in range(4)] == [
        b"STATUS=reading the model",
        b"READY=1\nSTATUS=serving tiny",
        b"STOPPING=1\nSTATUS=stopping",
        b"WATCHDOG=1",
    ]


def test_a_status_cannot_smuggle_another_assignment_and_may_be_any_text(
    manager: socket.socket,
) -> None:
    notifier = systemd.Notifier()
    notifier.status("grün …\nSTOPPING=1")
    notifier.ready("\udcff")
    assert manager.recv(4096) == "STATUS=grün … STOPPING=1".encode()
    assert manager.recv(4096) == b"READY=1\nSTATUS=?"


def test_a_manager_that_does_not_read_stops_nobody(manager: socket.socket) -> None:
    notifier = systemd.Notifier(send_seconds=0.01)
    for number in range(200):  # far more than the kernel keeps for a datagram socket
        notifier.status(str(number))
    assert manager.recv(4096) == b"STATUS=0"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify", "x" * 200])
def test_a_notify_socket_that_is_unset_or_unusable_is_no_error(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = systemd.Notifier()
    notifier.ready("serving")
    notifier.watchdog()


def test_a_manager_that_went_away_is_no_error(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    manager.close()
    notifier.ready("serving")


@pytest.mark.parametrize(
    ("period", "pid", "expected"),
    [
        (None, None, None),
        ("30000000", None, 30.0),
        ("30000000", "self", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_period_is_for_this_process(
    period: str | None, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if period is not None:
        monkeypatch.setenv("WATCHDOG_USEC", period)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert systemd.watchdog_seconds() == expected
