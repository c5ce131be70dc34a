"""What a step costs is learned from steps, whatever the machine: rows, or passes, or both."""

import random

import pytest

from llamad.schedule.cost import AMORTIZE, FIRST_ROWS, GROWTH, StepCost


def _learned(per_step: float, per_row: float, rows: list[int], noise: float = 0.0) -> StepCost:
    chance = random.Random(7)
    cost = StepCost()
    for n in rows:
        cost.observe(n, (per_step + per_row * n) * (1 + noise * chance.uniform(-1, 1)))
    return cost


def test_before_the_first_step_a_block_of_rows_is_tried() -> None:
    assert StepCost().rows_within(0.25) == FIRST_ROWS


@pytest.mark.parametrize(("per_step", "per_row"), [(0.0, 0.02), (0.1, 0.02), (2.0, 0.15)])
def test_the_line_is_found(per_step: float, per_row: float) -> None:
    cost = _learned(per_step, per_row, [32, 12, 1, 1, 20, 8])
    assert cost.line() == pytest.approx((per_step, per_row), abs=1e-9)


def test_rows_that_cost_nothing_are_bounded_by_growth() -> None:
    cost = _learned(0.1, 0.0, [32, 12, 20])
    assert cost.line() == pytest.approx((0.1, 0.0), abs=1e-3)
    assert GROWTH * 20 <= cost.rows_within(0.25) <= GROWTH * 32


def test_rows_fill_the_budget() -> None:
    assert _learned(0.05, 0.01, [32, 12, 20]).rows_within(0.25) == 20


def test_steps_of_one_size_do_not_forget_what_a_pass_costs() -> None:
    cost = _learned(0.2, 0.005, [32, 22, *[10] * 200])
    per_step, per_row = cost.line()
    assert per_step == pytest.approx(0.2, rel=0.01)
    assert per_row == pytest.approx(0.005, rel=0.01)


def test_a_dear_pass_is_shared_by_more_rows_than_the_budget_has() -> None:
    cost = _learned(20.0, 0.1, [200, 150, 180])
    assert cost.rows_within(0.25) == int((AMORTIZE - 1) * 20.0 / 0.1)


@pytest.mark.parametrize("known", [[], [1, 2, 1], [200, 150]])
def test_where_a_step_waits_for_the_disk_a_prompt_is_read_at_once(known: list[int]) -> None:
    cost = _learned(1.0, 0.05, known)
    cost.read_seconds = 1.0
    assert cost.rows_within(0.25) > 4096


def test_rows_behind_reading_are_those_that_are_computed_meanwhile() -> None:
    cost = _learned(20.0, 0.1, [1, 30, 1, 1])
    assert cost.rows_behind_reading() == 0  # nothing streams
    cost.read_seconds = 20.0
    assert cost.rows_behind_reading() == pytest.approx(200, rel=0.02)
    assert StepCost().rows_behind_reading() == 0


def test_weights_that_are_read_quickly_do_not_make_steps_longer() -> None:
    cost = _learned(0.05, 0.01, [32, 12, 20])
    cost.read_seconds = 0.05
    assert cost.rows_within(0.25) == 20


def test_a_step_grows_by_steps() -> None:
    cost = _learned(0.0, 1e-6, [40, 20, 30])
    assert cost.rows_within(0.25) <= GROWTH * 40


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_noise_does_not_run_away(noise: float) -> None:
    cost = StepCost()
    chance = random.Random(3)
    for _ in range(500):
        n = max(8, min(cost.rows_within(0.25), 512))
        seconds = (0.02 + 0.01 * n) * (1 + noise * chance.uniform(-1, 1))
        cost.observe(n, seconds)
        assert seconds < 1.5
    assert 10 <= cost.rows_within(0.25) <= 60
