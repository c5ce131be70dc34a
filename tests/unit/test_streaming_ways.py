"""Three ways for a model that does not fit, on a card and on a fast disk."""

import pytest

from llamad_tools.advice.loss import Loss
from llamad_tools.advice.streaming_ways import (
    CARD,
    USB_DISK,
    Reader,
    Sized,
    pass_seconds,
    three_ways,
    tokens_in_a_pass,
    verdict,
)

GB = 10**9
SMALLER = Sized("Q3_K_S", 2_750_000_000, 0, Loss(0.09, 0.26))
WANTED = Sized("Q4_0", 3_700_000_000, 1_000_000_000, Loss(0.02, 0.07))
BESIDE = Sized("Q4_0", 3_700_000_000, 1_450_000_000, Loss(0.02, 0.07))
READERS = {"card": Reader(4.5 * GB, CARD), "disk": Reader(4.5 * GB, USB_DISK)}


def test_a_pass_lasts_as_long_as_its_slower_reader() -> None:
    assert pass_seconds(WANTED, Reader(4.5 * GB, CARD)) == 25.0
    assert pass_seconds(WANTED, Reader(1.0 * GB, 10.0 * GB)) == 3.7


def test_guesses_make_a_pass_worth_more_tokens() -> None:
    assert tokens_in_a_pass(0, 0.7) == pytest.approx(1.0)
    assert tokens_in_a_pass(5, 0.7) == pytest.approx(1 + 0.7 + 0.49 + 0.343 + 0.2401 + 0.16807)


def test_each_way_says_speed_and_loss() -> None:
    ways = three_ways(SMALLER, WANTED, BESIDE, 460_000_000, READERS)
    smaller, streamed, draft = ways
    assert smaller.tokens_per_second["card"] == pytest.approx(4.5 / 2.75)
    assert streamed.tokens_per_second["card"] == pytest.approx(0.04)
    assert draft.tokens_per_second["card"] == pytest.approx(
        tokens_in_a_pass() / (1.45e9 / CARD + 5 * 0.46 / 4.5)
    )
    assert [way.assumed for way in ways] == [False, False, True]
    assert ways[0].loss == Loss(0.09, 0.26)
    assert ways[1].loss == ways[2].loss == Loss(0.02, 0.07)


def test_the_verdict_names_the_fastest_and_what_exactness_costs() -> None:
    ways = three_ways(SMALLER, WANTED, BESIDE, 460_000_000, READERS)
    text = verdict(ways, "card")
    assert text == ("card: fastest is Q3_K_S in memory, 1.6 tokens/s, 41 times Q4_0 streamed")


def test_where_nothing_smaller_fits_streaming_is_what_there_is() -> None:
    ways = three_ways(None, WANTED, None, 0, READERS)
    assert [way.name for way in ways] == ["this type, streamed"]
    assert " times " not in verdict(ways, "disk")
