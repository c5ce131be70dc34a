"""How the limits of all callers shrink with the memory of the service."""

import pytest

from llamad.door import limits
from llamad.door.capacity import FULL, MOST_HALVINGS, SHARE, Capacity, capacity_for
from llamad.ranges import MAX_TEXT_BYTES

MIB = 1 << 20


def test_with_enough_memory_the_limits_are_the_full_ones() -> None:
    assert capacity_for(None) == capacity_for(4 << 30) == FULL
    assert (FULL.connections, FULL.reserved_connections) == (
        limits.MAX_CONNECTIONS,
        limits.RESERVED_CONNECTIONS,
    )
    assert FULL.calls_of_all_users == limits.CALLS_OF_ALL_USERS
    assert (FULL.text_bytes, FULL.message_bytes) == (MAX_TEXT_BYTES, limits.MESSAGE_BYTES)
    assert FULL.memory_bytes == 40 * MIB


@pytest.mark.parametrize("halvings", range(1, MOST_HALVINGS))
def test_less_memory_halves_them_until_they_take_a_small_part_of_it(halvings: int) -> None:
    least = Capacity(halvings).memory_bytes * SHARE
    assert capacity_for(least) == Capacity(halvings)
    assert capacity_for(least - 1) == Capacity(halvings + 1)


def test_the_least_capacity_serves_administrators_and_more_than_one_user() -> None:
    least = capacity_for(1)
    assert least == Capacity(MOST_HALVINGS)
    assert (least.connections, least.calls_of_all_users, least.text_bytes) == (16, 28, 64 << 10)
    assert least.memory_bytes < 4 * MIB
    users = least.connections - least.reserved_connections
    assert 0 < least.connections_of_a_user < users < least.connections
    assert least.calls_of_a_user < least.streams_of_a_connection < least.calls_of_all_users


@pytest.mark.parametrize("halvings", range(MOST_HALVINGS + 1))
def test_a_message_holds_the_longest_text_and_nobody_keeps_all_others_out(halvings: int) -> None:
    capacity = Capacity(halvings)
    assert capacity.message_bytes > 2 * capacity.text_bytes
    assert capacity.waiting_bytes >= capacity.text_bytes
    assert capacity.connections_of_a_user < capacity.connections - capacity.reserved_connections
    assert capacity.calls_of_a_user < capacity.calls_of_all_users
