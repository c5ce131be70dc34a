"""How much all callers together may hold, so that a service with little memory has room for it.

Owns the rule by which limits of ``limits.py`` shrink with the memory, and what they cost at most.
They are halved until what they allow takes at most ``1 / SHARE`` of the memory, four times at most:
a service with less memory serves fewer callers, and takes shorter prompts, but it serves.

The costs were measured on x86-64 with gRPC 1.51, malloc set as in the unit, and the full limits:
240 connections took 3.5 MiB, 448 calls 3.6, prompts of a mebibyte that are refused as too long up
to 20 (38 with one heap a thread), all of them at once 33. What is counted beyond that is for
clients that read slowly: ``HELD_BYTES`` of their answers, and what the kernel holds.
"""

from dataclasses import dataclass

from llamad.door import limits
from llamad.ranges import MAX_TEXT_BYTES

MOST_HALVINGS = 4
SHARE = 32  # of the memory: at most this part, where four halvings reach it
CONNECTION_BYTES = 32 << 10
CALL_BYTES = 16 << 10
TEXT_TIMES = 24  # bytes for each byte of the longest prompt: those that wait, and its tokens
HEAP_BYTES = 1 << 20  # freed, and not given back

_WAITING_TEXTS = 4  # of the longest prompts: so much waits for the tokenizer
_MESSAGE_OVERHEAD_BYTES = limits.MESSAGE_BYTES - 4 * MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Capacity:
    """The limits of ``limits.py`` that cost memory, halved so many times."""

    halvings: int = 0

    @property
    def connections(self) -> int:
        """Most connections."""
        return limits.MAX_CONNECTIONS >> self.halvings

    @property
    def reserved_connections(self) -> int:
        """How many of these are for administrators only."""
        return -(-limits.RESERVED_CONNECTIONS >> self.halvings)

    @property
    def connections_of_a_user(self) -> int:
        """Most connections of one user."""
        return limits.CONNECTIONS_OF_A_USER >> self.halvings

    @property
    def calls_of_a_user(self) -> int:
        """Most calls of one user that run."""
        return max(1, limits.CALLS_OF_A_USER >> self.halvings)

    @property
    def calls_of_all_users(self) -> int:
        """Most calls of all users that run; what is beyond them is for administrators."""
        return max(1, limits.CALLS_OF_ALL_USERS >> self.halvings)

    @property
    def streams_of_a_connection(self) -> int:
        """Most calls that gRPC takes on one connection, refused ones included."""
        return max(1, limits.STREAMS_OF_A_CONNECTION >> self.halvings)

    @property
    def text_bytes(self) -> int:
        """Longest prompt, chat or text, in bytes of UTF-8."""
        return MAX_TEXT_BYTES >> self.halvings

    @property
    def waiting_bytes(self) -> int:
        """Most bytes of prompts that wait for the tokenizer."""
        return _WAITING_TEXTS * self.text_bytes

    @property
    def message_bytes(self) -> int:
        """Largest message that a user may send; AddModel's, of an administrator, may be larger."""
        return (4 * MAX_TEXT_BYTES >> self.halvings) + _MESSAGE_OVERHEAD_BYTES

    @property
    def memory_bytes(self) -> int:
        """What all of this takes at most."""
        calls = limits.CALLS_OF_ALL_USERS >> self.halvings
        return (
            self.connections * CONNECTION_BYTES
            + calls * CALL_BYTES
            + self.text_bytes * TEXT_TIMES
            + HEAP_BYTES
        )


FULL = Capacity()


def capacity_for(memory_bytes: int | None) -> Capacity:
    """Return the largest capacity for a service with so much memory; None: nobody knows."""
    for halvings in range(MOST_HALVINGS):
        capacity = Capacity(halvings)
        if memory_bytes is None or capacity.memory_bytes * SHARE <= memory_bytes:
            return capacity
    return Capacity(MOST_HALVINGS)
