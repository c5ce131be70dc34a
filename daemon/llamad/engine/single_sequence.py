"""A sequence with blocks of its own, for scripts and tools; the service has a scheduler."""

from collections.abc import Sequence

from llamad.engine.bindings import Engine
from llamad.engine.run import Run, blocks_seen

BLOCK_TOKENS = 32  # of every engine: LLD_KV_BLOCK


def blocks_for(n_tokens: int) -> int:
    """Return the blocks that n_tokens of a sequence need."""
    return -(-n_tokens // BLOCK_TOKENS)


def local_blocks_for(window: int, n_batch: int, n_ctx: int) -> int:
    """Return the local blocks that a sequence needs for a step of n_batch rows."""
    return min(blocks_for(n_ctx), blocks_seen(window, n_batch, BLOCK_TOKENS)) if window else 0


class SingleSequence:
    """The tokens from position 0 that an engine has computed; owns a fixed part of its blocks.

    Sequence ``index`` has the blocks of one whole context, and state ``index`` where the model has
    states; the engine must have them. Where it has fewer local blocks than blocks, each sequence
    goes round in its share of them: at least ``local_blocks_for`` one.
    """

    def __init__(self, engine: Engine, index: int = 0) -> None:
        self._engine = engine
        n_blocks = blocks_for(engine.n_ctx)
        self.blocks: Sequence[int] = range(index * n_blocks, (index + 1) * n_blocks)
        share = engine.n_local_blocks * n_blocks // engine.n_blocks
        self._goes_round = 0 < share < n_blocks
        self._local = [index * share + k % share for k in range(n_blocks) if self._goes_round]
        self.state = index
        self._state_in = index
        self.length = 0  # tokens

    def run(self, tokens: Sequence[int], n_out: int = 0) -> Run:
        """Return the run that appends tokens, for a step with others.

        After the step ``length`` is the caller's to advance.
        """
        state_in, self._state_in = self._state_in, self.state
        where = self.length, self.blocks, n_out, state_in, self.state
        return Run(tokens, *where, self._local)

    def begin_with(self, state: int) -> None:
        """Take the state of another sequence for what comes next; that slot stays as it is."""
        self._state_in = state

    def feed(self, tokens: Sequence[int], n_out: int = 0) -> None:
        """Append tokens in one step, alone; keep the logits of the last n_out."""
        self._engine.forward([self.run(tokens, n_out)])
        self.length += len(tokens)

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first n_tokens; of a model with states, all or none."""
        if self._engine.n_states and n_tokens not in (0, self.length):
            raise ValueError(f"a state of {self.length} tokens cannot be cut to {n_tokens}")
        if self._goes_round and n_tokens not in (0, self.length):
            raise ValueError(f"what {n_tokens} of {self.length} tokens see is gone")
        if not 0 <= n_tokens <= self.length:
            raise ValueError(f"cannot keep {n_tokens} of {self.length} tokens")
        self.length = n_tokens
