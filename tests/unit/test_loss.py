"""The cited losses: by class of size, as ranges, and in an order that makes sense."""

import itertools

import pytest

from llamad_tools.advice.loss import CLASS_ENDS, TABLES, Loss, LossTable, expected_loss, tables_for
from llamad_tools.quantize.mixes import MIXES


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.model)
def test_a_table_names_its_source_and_loses_less_with_more_bits(table: LossTable) -> None:
    assert table.source.startswith("https://")
    assert set(table.perplexities) <= set(MIXES)
    k_mixes = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M")
    losses = [loss for name in k_mixes if (loss := table.loss(name)) is not None]
    assert len(losses) >= 4
    assert losses == sorted(losses)
    assert losses[0] >= 0
    assert losses[-1] < 0.2


@pytest.mark.parametrize(
    ("n_weights", "mix", "words"),
    [
        (0.135e9, "Q4_K_M", "1.7 %"),
        (1.1e9, "Q4_K_M", "1.7 %"),
        (6.7e9, "Q4_K_M", "0.9 to 2.8 %"),
        (6.7e9, "Q3_K_M", "3.4 to 10.5 %"),
        (13e9, "Q4_K_M", "0.9 to 1.2 %"),
        (0.5e9, "F16", "nothing"),
    ],
)
def test_a_loss_is_the_range_of_the_class(n_weights: float, mix: str, words: str) -> None:
    assert str(expected_loss(n_weights, mix)) == words


def test_what_nobody_published_is_not_known() -> None:
    assert expected_loss(7e9, "IQ4_XS") is None
    assert expected_loss(0.5e9, "Q3_K_S") is None
    assert expected_loss(7e9, "BF16") == Loss(0.0, 0.0)


def test_every_class_has_a_table() -> None:
    for low, high in itertools.pairwise((0, *CLASS_ENDS, 1e12)):
        assert tables_for((low + high) / 2)
