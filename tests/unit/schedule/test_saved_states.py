"""States that come from elsewhere: a slot is reserved, filled, and kept under a block's key."""

from llamad.schedule.states import StatePool

KEY, OTHER = b"k" * 16, b"o" * 16


def pool() -> StatePool:
    """Return a pool of two sequences with room for two kept states."""
    return StatePool(4, 2, 32, 1)


def test_an_admitted_state_is_found_under_its_key() -> None:
    states = pool()
    slot = states.reserve()
    assert slot is not None
    assert (states.find([KEY]), states.slot_of(KEY)) == (None, None)
    states.admit(slot, KEY)
    assert (states.find([OTHER, KEY]), states.slot_of(KEY)) == (KEY, slot)
    assert (states.n_kept, states.n_available) == (1, 4)


def test_what_was_not_filled_or_is_there_already_is_free_again() -> None:
    states = pool()
    for key in (KEY, KEY, None):
        slot = states.reserve()
        assert slot is not None
        states.admit(slot, key)
    assert (states.n_kept, states.n_available) == (1, 4)


def test_places_of_sequences_are_never_taken() -> None:
    states = pool()
    taken = [states.reserve() for _ in range(4)]
    assert [slot is None for slot in taken] == [False, False, True, True]
    assert pool().n_to_fill == 1
    assert StatePool(0, 0, 32, 1).reserve() is None


def test_the_state_used_longest_ago_gives_way() -> None:
    states = pool()
    for i in range(6):
        slot = states.reserve()
        assert slot is not None
        states.admit(slot, bytes([i]) * 16)
    assert states.slot_of(bytes([5]) * 16) is not None
    assert states.slot_of(bytes([0]) * 16) is None
    assert states.n_available == 4
