"""How much may be written in a day: an hour's share at once, and behind that as it comes."""

from llamad.service.write_pace import WritePace

DAY = 86_400


def test_an_hours_share_is_written_at_once_and_more_waits_for_its_time() -> None:
    pace = WritePace(24 * 3600, now=100.0)  # a byte a second
    assert pace.wait_seconds(100.0) == 0
    pace.spend(3600, 100.0)
    assert pace.wait_seconds(100.0) == 0
    pace.spend(60, 100.0)
    assert pace.wait_seconds(100.0) == 60
    assert pace.wait_seconds(130.0) == 30
    assert pace.wait_seconds(500.0) == 0


def test_whoever_waits_as_told_writes_no_more_in_a_day_than_the_budget_and_an_hours_share() -> None:
    pace, now, written = WritePace(1 << 29, now=0.0), 0.0, 0
    while now < DAY:
        now += max(1.0, pace.wait_seconds(now))
        pace.spend(40_000, now)
        written += 40_000
    assert written < (1 << 29) * 25 / 24 + 80_000
    assert written > (1 << 29) * 0.9
