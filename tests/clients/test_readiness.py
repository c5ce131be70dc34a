"""Waiting for the service: what is waited for, what is not, and for how long."""

from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from clients.running import RunningService, running_service
from clients.test_llamactl import run
from llamactl.readiness import wait_until_ready
from llamad.errors import ErrorKind, LlamadError
from llamad_client import (
    ClientError,
    Failed,
    NoPermission,
    NotRunning,
    Status,
    StillLoading,
)
from unit.schedule.fakes import saying

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
