"""Consecutive tokens of one sequence, as a step gives them to the engine: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOT_HELD = (1 << 32) - 1  # in place of a local block that no row of the step sees


def blocks_seen(window: int, n_rows: int, block_tokens: int) -> int:
    """Return how many blocks n_rows of a sequence, and their window, lie in at most."""
    return -(-(window - 2 + n_rows) // block_tokens) + 1


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """An adapter that tokens go through, and a factor of what it adds; finite."""

    adapter: Any  # a ``bindings.Adapter`` of the engine's model
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens from ``position`` on; the state of what lies before them is in the blocks.

    blocks: ids in position order, enough for position + len(tokens) tokens. The logits of the last
    ``n_out`` tokens are kept, in the order of the step's runs. Of a model with states: ``state_in``
    is the slot of that before the tokens, where position is not 0, ``state_out`` of that behind
    them; the same slot changes in place. Of a model whose layers have a window: ``local_blocks``
    are ids of their blocks, one for each of ``blocks``, NOT_HELD where all tokens lie before the
    window of the first one here; empty: the same ids.
    """

    tokens: Sequence[int]
    position: int
    blocks: Sequence[int]
    n_out: int = 0
    state_in: int = 0
    state_out: int = 0
    local_blocks: Sequence[int] = ()
    row: int = 0  # of a guess: the kept row that its token was drawn from
    adapter: AdapterUse | None = None  # of all tokens; the engine has room for its rank
