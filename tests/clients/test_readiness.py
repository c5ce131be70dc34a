"""Waiting for the service: what is waited for, what is not, and for how long."""

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from clients.running import RunningService, running_service
from clients.test_llamactl import run
from llamactl import readiness
from llamactl.progress_line import ProgressLine
from llamactl.readiness import wait_until_ready
from llamad.errors import ErrorKind, LlamadError
from llamad_client import (
    Client,
    ClientError,
    Failed,
    NoPermission,
    NotRunning,
    Refused,
    Status,
    StillLoading,
)
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

NOT_THERE = NotRunning("NOT_RUNNING", "llamad is not running")


class Phase:
    """The two fields of a status that waiting looks at."""

    def __init__(self, state: str) -> None:
        self.state, self.detail = state, f"detail of {state}"


class Simulated:
    """A service whose answers are given one after the other, and a clock that only sleep moves."""

    def __init__(self, answers: Iterable[str | ClientError]) -> None:
        self._answers = iter(answers)
        self.now = 0.0
        self.told: list[str] = []

    def wait(self, *, seconds: float = 10.0, needs_model: bool = True) -> None:
        wait_until_ready(
            self._status,
            self.told.append,
            needs_model=needs_model,
            seconds=seconds,
            sleep=self._sleep,
            clock=lambda: self.now,
        )

    def _status(self) -> Status:
        answer = next(self._answers)
        if isinstance(answer, ClientError):
            raise answer
        return cast(Status, Phase(answer))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def forever(answer: str | ClientError) -> Iterator[str | ClientError]:
    while True:
        yield answer


def test_a_service_that_starts_and_loads_is_waited_for() -> None:
    service = Simulated([NOT_THERE, "loading", "loading", "ready"])
    service.wait()
    assert service.told == [
        "waiting: llamad is not running",
        *["waiting: the service is loading: detail of loading"] * 2,
    ]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("no_model", Failed),
        ("failed", Failed),
        (NoPermission("NO_PERMISSION", "no permission"), NoPermission),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    answer: str | ClientError, kind: type[ClientError]
) -> None:
    service = Simulated([answer])
    with pytest.raises(kind):
        service.wait()
    assert service.told == []


@pytest.mark.parametrize(("answer", "kind"), [(NOT_THERE, NotRunning), ("loading", StillLoading)])
def test_the_wait_is_bounded_and_says_how_long_it_was(
    answer: str | ClientError, kind: type[ClientError]
) -> None:
    service = Simulated(forever(answer))
    with pytest.raises(kind, match="; waited 10 s"):
        service.wait()
    assert service.now >= 10


def test_a_service_without_a_model_will_do_where_one_is_brought() -> None:
    Simulated([NOT_THERE, "no_model"]).wait(needs_model=False)


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def test_ask_waits_only_when_it_is_told(service: RunningService) -> None:
    assert run(service.path, "ask", "--wait", "q").stdout == b"An answer.\n"


def test_ask_with_wait_ends_where_the_model_failed(service: RunningService) -> None:
    error = LlamadError(ErrorKind.CORRUPT, "BAD_MODEL", "the file is broken")
    service.do(lambda: service.service.state.failed(error))
    done = run(service.path, "ask", "--wait", "q")
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr == b"llamactl: the service cannot answer: the file is broken\n"


class SlowService:
    """A client whose model is loaded once somebody has asked twice how far it is."""

    def __init__(self, error: ClientError | None = None) -> None:
        self._error = error
        self._asked = 0
        self._loaded = threading.Event()

    def use_model(self, name: str) -> str:
        assert self._loaded.wait(TIMEOUT_SECONDS)
        if self._error is not None:
            raise self._error
        return f"used {name}"

    def status(self) -> Status:
        self._asked += 1
        if self._asked == 2:
            self._loaded.set()
        return cast(Status, Phase("loading"))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let standard error be a terminal; return what its line says, "" where it is erased."""
    lines: list[str] = []
    monkeypatch.setattr(readiness, "ASK_EVERY_SECONDS", 0.001)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(ProgressLine, "show", lambda self, text: lines.append(text))
    monkeypatch.setattr(ProgressLine, "erase", lambda self: lines.append(""))
    return lines


def test_use_shows_what_the_service_does_and_erases_it(shown: list[str]) -> None:
    client = cast(Client, SlowService())
    assert cast(object, readiness.use_model(client, "m", as_json=False)) == "used m"
    assert {text.partition(" (")[0] for text in shown[:-1]} == {"detail of loading"}
    assert shown[-1] == ""


def test_why_a_model_cannot_be_used_is_raised_behind_the_progress(shown: list[str]) -> None:
    client = cast(Client, SlowService(Refused("NOT_FOUND", "there is no model")))
    with pytest.raises(Refused):
        readiness.use_model(client, "m", as_json=False)
    assert shown[-1] == ""
