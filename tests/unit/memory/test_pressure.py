"""The grant under simulated readings: gives back at once, takes again slowly, never thrashes."""

from hypothesis import given
from hypothesis import strategies as st

from llamad.memory.pressure import (
    GIVE_SECONDS,
    LOOK_SECONDS,
    MAX_LOOK_SECONDS,
    MIB,
    QUIET_SECONDS,
    TAKE_SECONDS,
    Decision,
    Grant,
    Reading,
)

FILE = 3200 * MIB
WANTED = 4000 * MIB
LEAST = 500 * MIB
LOADED = 3000 * MIB
STEP = FILE // 32


def _grant(grant: int = LOADED, limit: int | None = None) -> Grant:
    return Grant(grant, wanted_bytes=WANTED, least_bytes=LEAST, file_bytes=FILE, limit_bytes=limit)


def _free(budget: int | None, limit: int | None = None) -> Reading:
    return Reading(budget, limit)


def _settle(grant: Grant, now: float, reading: Reading, looks: int = 1000) -> tuple[float, int]:
    """Look as often as is asked for; return the time and the number of the last look."""
    for n in range(looks):
        decision = grant.decide(now, reading)
        if decision.look_seconds is None:
            return now, n
        now += decision.look_seconds
    return now, looks


def test_nothing_changes_and_nothing_is_looked_for_while_all_is_as_at_the_load() -> None:
    assert _grant().decide(0.0, _free(LOADED)) == Decision(LOADED, None)
    fits = _grant(WANTED + 8000 * MIB)
    assert fits.decide(0.0, _free(WANTED + 8000 * MIB)) == Decision(WANTED, None)
    assert fits.decide(1.0, _free(WANTED)) == Decision(WANTED, None)
    assert fits.decide(1.0, _free(None)) == Decision(WANTED, None)


def test_a_lowered_limit_is_obeyed_at_once() -> None:
    grant = _grant(limit=3200 * MIB)
    decision = grant.decide(0.0, _free(2200 * MIB, 2400 * MIB))
    assert decision.grant_bytes == 2200 * MIB
    assert decision.look_seconds is not None


def test_a_raised_limit_is_taken_by_steps_until_it_is_used() -> None:
    grant = _grant(limit=3200 * MIB)
    grant.decide(0.0, _free(2200 * MIB, 2400 * MIB))
    grants = [grant.decide(1.0, _free(LOADED, 3200 * MIB))]
    now = 1.0
    while grants[-1].look_seconds is not None and len(grants) < 100:
        now += grants[-1].look_seconds
        grants.append(grant.decide(now, _free(LOADED, 3200 * MIB)))
    assert grants[0].grant_bytes == 2200 * MIB + STEP
    assert grants[-1] == Decision(LOADED, None)
    assert now - 1.0 <= TAKE_SECONDS * (800 * MIB / STEP + 1) + 2 * LOOK_SECONDS


def test_pressure_takes_a_step_in_each_window_and_no_more() -> None:
    grant = _grant()
    pressed = Reading(WANTED, None, pressed=True)
    assert grant.decide(0.0, pressed).grant_bytes == LOADED - STEP
    assert grant.decide(0.1, pressed).grant_bytes == LOADED - STEP
    assert grant.decide(GIVE_SECONDS, pressed).grant_bytes == LOADED - 2 * STEP


def test_there_is_an_end_to_what_is_given_back() -> None:
    grant = _grant()
    for i in range(100):
        decision = grant.decide(i * GIVE_SECONDS, Reading(0, None, pressed=True))
    assert decision.grant_bytes == LEAST


def test_what_pressure_took_is_taken_again_after_a_quiet_while() -> None:
    grant = _grant()
    decision = grant.decide(0.0, Reading(LOADED, None, pressed=True))
    assert decision.look_seconds == QUIET_SECONDS
    assert grant.decide(QUIET_SECONDS - 1, _free(LOADED)).grant_bytes == LOADED - STEP
    assert grant.decide(QUIET_SECONDS, _free(LOADED)) == Decision(LOADED, TAKE_SECONDS)
    assert grant.decide(QUIET_SECONDS + TAKE_SECONDS, _free(LOADED)) == Decision(LOADED, None)


def test_pressure_soon_after_taking_doubles_the_quiet_while() -> None:
    grant = _grant()
    grant.decide(0.0, Reading(LOADED, None, pressed=True))
    now = QUIET_SECONDS
    grant.decide(now, _free(LOADED))
    grant.decide(now + 1, Reading(LOADED, None, pressed=True))
    assert grant.decide(now + 1 + QUIET_SECONDS, _free(LOADED)).grant_bytes == LOADED - STEP
    assert grant.decide(now + 1 + 2 * QUIET_SECONDS, _free(LOADED)).grant_bytes == LOADED


def test_a_little_that_becomes_free_is_left_alone() -> None:
    grant = _grant()
    assert grant.decide(0.0, _free(LOADED + STEP - 1)) == Decision(LOADED, None)
    nearly = _grant(WANTED - MIB)
    assert nearly.decide(0.0, _free(WANTED)) == Decision(WANTED, None)


def test_a_limit_that_was_refused_takes_a_step_each_time() -> None:
    grant = _grant(limit=3200 * MIB)
    refused = Reading(LOADED, 3200 * MIB, limit_written=True)
    assert grant.decide(0.0, refused).grant_bytes == LOADED - STEP
    assert grant.decide(0.1, refused).grant_bytes == LOADED - 2 * STEP


def test_looks_become_rare_while_nothing_becomes_free() -> None:
    grant = _grant()
    reading = _free(2000 * MIB)
    looks = []
    now = 0.0
    for _ in range(10):
        decision = grant.decide(now, reading)
        assert decision.look_seconds is not None
        looks.append(decision.look_seconds)
        now += decision.look_seconds
    assert looks[0] == LOOK_SECONDS
    assert looks[-1] == MAX_LOOK_SECONDS
    assert looks == sorted(looks)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 60),
            st.integers(0, 6000 * MIB),
            st.booleans(),
            st.one_of(st.none(), st.integers(MIB, 6000 * MIB)),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_the_grant_never_exceeds_what_is_there_and_recovers(
    events: list[tuple[float, int, bool, int | None, bool]],
) -> None:
    grant, now = _grant(), 0.0
    for seconds, budget, pressed, limit, written in events:
        now += seconds
        before = grant.bytes
        after = grant.decide(now, Reading(budget, limit, pressed, written)).grant_bytes
        assert LEAST <= after <= max(LEAST, min(budget, WANTED))
        assert after <= before + grant.step_bytes
        if pressed:
            assert after <= before
    now, _ = _settle(grant, now + 1000, _free(WANTED, None))
    assert grant.bytes == WANTED or grant.decide(now + 1000, _free(WANTED)).grant_bytes > LEAST
