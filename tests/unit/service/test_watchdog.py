"""The watchdog is fed while steps make progress, and no longer; on a clock that the test moves."""

import logging

import pytest

from llamad.service.watchdog import Watchdog
from unit.schedule.fakes import FakeClock

PERIOD = 60.0
HALF = PERIOD / 2


class Fed:
    """A watchdog whose engine does what the test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.n_fed = 0
        self.n_dumps = 0
        self.progress: int | None = None
        self.watchdog = Watchdog(
            self._feed, PERIOD, lambda: self.progress, self.clock, dump_stacks=self._dump
        )
        self.watchdog.start()

    def _feed(self) -> None:
        self.n_fed += 1

    def _dump(self) -> None:
        self.n_dumps += 1

    def fed_in(self, seconds: float) -> int:
        """Return how often it was fed in so many seconds, which pass in halves of the period."""
        before = self.n_fed
        for _ in range(round(seconds / HALF)):
            self.clock.advance(HALF)
        return self.n_fed - before


def test_it_is_fed_at_half_the_period_while_no_step_runs() -> None:
    fed = Fed()
    assert fed.n_fed == 1
    assert fed.fed_in(10 * PERIOD) == 20  # a long load, too
    fed.watchdog.stop()
    assert fed.fed_in(PERIOD) == 0


def test_a_step_may_last_as_long_as_its_layers_finish() -> None:
    fed = Fed()
    for layer in range(30):
        fed.progress = layer
        assert fed.fed_in(HALF) == 1
    assert fed.n_dumps == 0


def test_a_step_that_hangs_is_told_once_and_ends_the_feeding(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    fed = Fed()
    fed.progress = 7
    assert fed.fed_in(PERIOD) == 2
    assert fed.n_dumps == 0
    assert fed.fed_in(5 * PERIOD) == 0
    assert fed.n_dumps == 1
    assert [record.message for record in caplog.records] == [
        "engine hangs, the watchdog is not fed seconds=60.000 progress=7"
    ]


def test_a_step_that_moves_again_is_fed_again_and_told_again() -> None:
    fed = Fed()
    fed.progress = 7
    assert fed.fed_in(3 * PERIOD) == 2
    fed.progress = 8
    assert fed.fed_in(HALF) == 1
    fed.progress = None  # it ended
    assert fed.fed_in(5 * PERIOD) == 10
    fed.progress = 8  # another, which has finished no layer yet
    assert fed.fed_in(PERIOD) == 2
    assert fed.fed_in(PERIOD) == 0
    assert fed.n_dumps == 2


def test_an_event_loop_that_hangs_feeds_nothing() -> None:
    fed = Fed()
    before = fed.n_fed
    fed.clock.time += 10 * PERIOD  # no callback runs meanwhile
    assert fed.n_fed == before
