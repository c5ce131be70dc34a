"""Consecutive tokens of one sequence, as a step gives them to the engine: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens from ``position`` on; the state of what lies before them is in the blocks.

    blocks: ids in position order, enough for position + len(tokens) tokens. The logits of the last
    ``n_out`` tokens are kept, in the order of the step's runs. Of a model with states: ``state_in``
    is the slot of that before the tokens, where position is not 0, ``state_out`` of that behind
    them; the same slot changes in place.
    """

    tokens: Sequence[int]
    position: int
    blocks: Sequence[int]
    n_out: int = 0
    state_in: int = 0
    state_out: int = 0
