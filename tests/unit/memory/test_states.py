"""How many states there is room for: bounded below and above, and by a share of the memory."""

import pytest

from llamad.memory.states import KEPT_SHARE, LEAST_KEPT, MIB, MOST_KEPT, state_slots

GIB = 1 << 30


@pytest.mark.parametrize(
    ("state_bytes", "memory_bytes", "kept"),
    [
        (19 * MIB, 4 * GIB, 4 * GIB // KEPT_SHARE // (19 * MIB)),
        (19 * MIB, 8 * GIB, 8 * GIB // KEPT_SHARE // (19 * MIB)),
        (50 * MIB, 1 * GIB, LEAST_KEPT),
        (50 * MIB, None, LEAST_KEPT),
        (1 << 16, None, MOST_KEPT),
    ],
)
def test_kept_states_are_a_share_of_the_memory(
    state_bytes: int, memory_bytes: int | None, kept: int
) -> None:
    assert state_slots(state_bytes, 4, memory_bytes) == 4 + kept


def test_a_model_without_states_has_no_slots() -> None:
    assert state_slots(0, 4, 8 * GIB) == 0
