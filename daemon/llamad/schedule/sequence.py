"""What a job is to the engine: tokens, and how far their state is computed. Plain data.

A sequence is its tokens, its seed and the number of its draws; everything else can be computed
again. So prefill and decode are the same thing, catching up with the tokens, and a sequence that
loses its blocks goes on later with the text it would have had.
"""

from dataclasses import dataclass, field

from llamad.schedule.block_keys import PUBLIC, BlockKeys


@dataclass(slots=True)
class Sequence:
    """The prompt and every drawn token."""

    tokens: list[int]
    n_prompt: int
    n_computed: int = 0  # the prefix whose keys and values the blocks hold
    blocks: list[int] = field(default_factory=list)  # ids in position order
    n_draws: int = 0
    n_shared: int = 0  # of the blocks, from the first on: full, and others may read them
    first_local: int = 0  # of the blocks: it holds the local blocks from here on (local_blocks.py)
    own_keys: BlockKeys = field(default_factory=lambda: BlockKeys(PUBLIC))  # of what it computes
    public_keys: BlockKeys = field(default_factory=lambda: BlockKeys(PUBLIC))
    # Of a model with states (states.py):
    state: int | None = None  # slot of the state behind the first state_at tokens
    state_at: int = 0
    states_planned: list[tuple[int, int]] = field(default_factory=list)  # (state_at, slot) to come
    replays: bool = False  # some tokens again, because guesses behind them were wrong
    n_found: int = 0  # tokens that were in the cache, with a state behind them or not

    @property
    def n_pending(self) -> int:
        """Tokens that are not computed: one while the sequence decodes."""
        return len(self.tokens) - self.n_computed

    @property
    def decodes(self) -> bool:
        """Whether its next rows are its last tokens, and not a prompt to read."""
        return self.n_pending == 1 or self.replays
