"""The accounts of owners: whose seconds a step was, and how they fade."""

import pytest

from llamad.schedule.shares import HALF_LIFE_SECONDS, MOST_GROWTH, Shares
from unit.schedule.fakes import asynchronous
from unit.schedule.test_priorities import ended_in_order, wish
from unit.schedule.test_scenarios import simulated

NOW = 5000.0


def test_a_step_is_shared_by_rows() -> None:
    shares = Shares()
    shares.charge({"anna": 3, "berta": 1}, 2.0, NOW)
    assert (shares.used("anna", NOW), shares.used("berta", NOW)) == (1.5, 0.5)
    assert shares.used("somebody new", NOW) == 0.0


def test_what_was_used_counts_half_after_the_half_life_whatever_came_since() -> None:
    shares = Shares()
    shares.charge({"anna": 1}, 8.0, NOW)
    later = NOW + HALF_LIFE_SECONDS
    shares.charge({"berta": 1}, 8.0, later)
    shares.charge({"anna": 1}, 1.0, later)
    assert shares.used("anna", later) == pytest.approx(5.0)
    assert shares.used("berta", later) == pytest.approx(8.0)
    assert shares.used("anna", later + HALF_LIFE_SECONDS) == pytest.approx(2.5)


def test_accounts_that_are_written_anew_are_the_same_and_old_ones_are_forgotten() -> None:
    shares = Shares()
    shares.charge({"old": 1}, 8.0, NOW)
    n_half_lives = 41  # beyond MOST_GROWTH
    assert 2.0**n_half_lives > MOST_GROWTH
    later = NOW + (n_half_lives - 1) * HALF_LIFE_SECONDS
    shares.charge({"anna": 1}, 8.0, later)
    latest = NOW + n_half_lives * HALF_LIFE_SECONDS
    shares.charge({"berta": 1}, 1.0, latest)
    assert shares.used("anna", latest) == pytest.approx(4.0)
    assert shares.used("berta", latest) == pytest.approx(1.0)
    assert list(shares._accounts) == ["anna", "berta"]


@asynchronous
async def test_who_used_much_long_ago_goes_before_who_used_some_now() -> None:
    bench = simulated(n_sequences=1)
    bench.simulate(seconds_per_step=0.1)
    shares = bench.scheduler._shares
    shares.charge({"anna": 1}, 60.0, bench.clock.now())
    bench.clock.advance(2 * 3600.0)
    shares.charge({"berta": 1}, 1.0, bench.clock.now())
    jobs = [
        await bench.scheduler.submit(wish(owner=owner, max_tokens=2)) for owner in ("berta", "anna")
    ]
    assert await ended_in_order(bench, jobs) == [1, 0]


@asynchronous
async def test_what_runs_counts_as_used_before_it_is() -> None:
    bench = simulated(n_sequences=2)
    bench.simulate(seconds_per_step=0.1)
    for n_rows in (4, 32):
        bench.scheduler._cost.observe(n_rows, 0.1 + 0.001 * n_rows)
    jobs = [
        await bench.scheduler.submit(wish(owner=owner, max_tokens=n_tokens))
        for owner, n_tokens in (("anna", 40), ("anna", 2), ("berta", 2))
    ]
    assert await ended_in_order(bench, jobs) == [2, 1, 0]
