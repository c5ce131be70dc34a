"""Ctrl-C while the client waits: an interruption, never a broken lock of grpc."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clients.running import RunningService, running_service
from llamad_client import Client, Refused
from llamad_client.waiting import interruptible
from unit.schedule.fakes import saying


@contextmanager
def no_condition_in_this_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where this thread waits on a Condition: KeyboardInterrupt would break its lock."""
    wait, this = threading.Condition.wait, threading.current_thread()

    def checked(condition: threading.Condition, timeout: float | None = None) -> bool:
        assert threading.current_thread() is not this, "waits on a Condition"
        return wait(condition, timeout)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Condition, "wait", checked)
        yield


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def test_no_call_waits_on_a_condition_in_the_main_thread(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_condition_in_this_thread(monkeypatch), Client(service.path) as client:
        assert client.chat([{"role": "user", "content": "q"}]).text() == "An answer."
        assert client.generate("p").text() == "An answer."
        assert client.health() == "SERVING"
        assert client.tokenize("a") == [97]
        with pytest.raises(Refused):
            client.cancel("none")
        with pytest.raises(Refused):
            client.add_model("m", lambda _: (0, [b"x"]), file_bytes=1, sha256="no", source="")
        with client.generate("p") as left:
            next(left)


def test_an_interruption_while_waiting_is_a_keyboard_interrupt() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait()

    def interrupt() -> None:
        entered.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(wait)
    leave.set()


@pytest.mark.parametrize("error", [StopIteration("end"), ValueError("no"), SystemExit(3)])
def test_what_is_raised_is_raised_here(error: BaseException) -> None:
    def fail() -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        interruptible(fail)
    assert caught.value is error


def test_other_threads_wait_for_themselves() -> None:
    threads: list[int] = []
    for target in (lambda: threads.append(interruptible(threading.get_ident)),):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        assert threads == [thread.ident]
    assert interruptible(threading.get_ident) != threading.get_ident()
