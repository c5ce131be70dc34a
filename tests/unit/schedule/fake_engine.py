"""An engine for the scheduler's tests: blocks of tokens in place of keys and values, no arithmetic.

Its "logits" are the sequence's whole history, so a wrong token, position or block changes what is
generated. Tokens are byte values.
"""

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from llamad.engine.run import Run
from llamad.errors import ErrorKind, LlamadError

END = 0  # the token that ends a generation
TIMEOUT_SECONDS = 300.0  # only reached by a test that hangs

History = tuple[int, ...]
Rule = Callable[[History, int, int], int]  # (history, seed, number of the draw) -> token


def letters(history: History, seed: int, draw: int) -> int:
    """Return a letter that depends on every token before it, the seed and the number of draws."""
    return 97 + zlib.crc32(repr((history, seed, draw)).encode()) % 26


def saying(text: str | bytes, then: int = END) -> Rule:
    """Return a rule that generates ``text``, then ``then`` for ever."""
    data = text.encode() if isinstance(text, str) else text
    return lambda history, seed, draw: data[draw] if draw < len(data) else then


class FakeEngine:
    """Blocks of tokens in place of keys and values; a step can be held, failed and cancelled.

    It checks what the C engine demands of a step, and reads the history of a sequence from its
    blocks: a block that two sequences write, or that is given away too early, changes the text.
    """

    def __init__(
        self,
        *,
        n_batch: int,
        n_blocks: int,
        block_tokens: int,
        n_states: int = 0,
        n_local: int = 0,
        window: int = 0,
    ) -> None:
        self.n_batch = n_batch
        self.window = window  # tokens that layers with one see
        self.local: list[list[int]] = [[-1] * block_tokens for _ in range(n_local)]
        self.states: list[History] = [()] * n_states  # the tokens that each is behind
        self.block_tokens = block_tokens
        self.blocks: list[list[int]] = [[-1] * block_tokens for _ in range(n_blocks)]
        self.steps: list[list[int]] = []  # rows of each run, for every completed step
        self.threads: set[str] = set()
        self.rule: Rule = letters
        self.errors: list[Exception | None] = []  # raised by the next steps, in order
        self.refused: Callable[[History], bool] = lambda history: (
            False
        )  # whose logits are not finite
        self.before_step: Callable[[], None] = lambda: None
        self.n_cancelled_steps = 0
        self.progress = 0  # layers finished; a test counts them
        self._cancelled = threading.Event()
        self._kept: list[History] = []

    def forward(self, runs: Sequence[Run]) -> None:
        self.threads.add(threading.current_thread().name)
        self._check(runs)
        self.before_step()
        if self._cancelled.is_set():
            self.n_cancelled_steps += 1
            self._spoil(runs)
            raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", "cancelled")
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self._kept = [history for run in runs for history in self._run(run)]
        self.rows = [token for run in runs for token in run.tokens]
        self.steps.append([len(run.tokens) for run in runs])

    def _spoil(self, runs: Sequence[Run]) -> None:
        """Leave what a step that was stopped leaves: anything where it would have written."""
        for run in runs:
            if self.states:
                self.states[run.state_out] = (-1,)
            for position in range(run.position, run.position + len(run.tokens)):
                block, slot = divmod(position, self.block_tokens)
                self.blocks[run.blocks[block]][slot] = -1
                if self.window:
                    self.local[run.local_blocks[block]][slot] = -1

    def _run(self, run: Run) -> list[History]:
        """Write a run into its blocks; return the history of each row that is kept."""
        for i, token in enumerate(run.tokens):
            block, slot = divmod(run.position + i, self.block_tokens)
            self.blocks[run.blocks[block]][slot] = token
            if self.window:
                self.local[run.local_blocks[block]][slot] = token
        if self.window:
            self._check_window(run)
        held = [token for block in run.blocks for token in self.blocks[block]]
        end = run.position + len(run.tokens)
        if self.states:
            if run.position:
                known = self.states[run.state_in]
                assert known == tuple(held[: run.position]), "the state of other tokens"
            self.states[run.state_out] = tuple(held[:end])
        return [tuple(held[: n + 1]) for n in range(end - run.n_out, end)]

    def _check(self, runs: Sequence[Run]) -> None:
        assert runs
        assert 1 <= sum(len(run.tokens) for run in runs) <= self.n_batch
        chains = self._chains(runs)
        named = [block for chain in chains for block in chain[0].blocks]
        local = [block for chain in chains for block in chain[0].local_blocks]
        assert all(0 <= block < len(self.blocks) for block in named)
        if self.states:
            self._check_states(chains)
        for run, *_ in chains:
            assert len(run.blocks) == len(set(run.blocks)), "a block twice in a run"
            for block in run.blocks[run.position // self.block_tokens :]:
                assert named.count(block) == 1, "a block is written that another run names"
            for block in run.local_blocks[run.position // self.block_tokens :]:
                assert local.count(block) == 1, "a local block is written that another run names"
        for run in runs:
            assert 0 <= run.n_out <= len(run.tokens)
            needed = -(-(run.position + len(run.tokens)) // self.block_tokens)
            assert len(run.blocks) >= needed, "a run has too few blocks"

    def _check_window(self, run: Run) -> None:
        """Look that the local blocks hold the tokens that each row sees."""
        end = run.position + len(run.tokens)
        for position in range(max(0, run.position - self.window + 1), end):
            index, slot = divmod(position, self.block_tokens)
            local = run.local_blocks[index]
            assert 0 <= local < len(self.local), "a local block that is seen is not held"
            seen = self.local[local][slot]
            assert seen == self.blocks[run.blocks[index]][slot], "a local block of other tokens"

    @staticmethod
    def _chains(runs: Sequence[Run]) -> list[list[Run]]:
        """Join runs that continue the one before them."""
        chains: list[list[Run]] = []
        for run in runs:
            last = chains[-1][-1] if chains else None
            if last is not None and run.blocks is last.blocks:
                assert run.position == last.position + len(last.tokens)
                assert not run.state_in or run.state_in == last.state_out
                chains[-1].append(run)
            else:
                chains.append([run])
        return chains

    def _check_states(self, chains: Sequence[Sequence[Run]]) -> None:
        written = [{run.state_out for run in chain} for chain in chains]
        begun = [{run.state_in for run in chain if run.position} for chain in chains]
        for i, slots in enumerate(written):
            others = [w | b for j, (w, b) in enumerate(zip(written, begun, strict=True)) if j != i]
            assert all(slots.isdisjoint(other) for other in others), "a state named twice"
            assert all(0 <= slot < len(self.states) for slot in slots | begun[i])

    def add_rows(self, first_row: int, n_rows: int, sums: Any) -> None:
        """A token's row is (token, 1), so that a sum tells what it is of."""
        rows = self.rows[first_row : first_row + n_rows]
        assert len(rows) == n_rows
        sums[0] += sum(rows)
        sums[1] += n_rows

    def rank(self, row: Any, n_scores: int) -> tuple[float, ...]:
        """Its one row is that of a pair's first or last token; it has been told of no other."""
        assert (n_scores, row[1]) == (1, 1)
        return (float(row[0]) / 100,)

    def block_read(self, block: int, *, local: bool = False) -> bytes:
        tokens = (self.local if local else self.blocks)[block]
        return b"".join(token.to_bytes(4, "little", signed=True) for token in tokens)

    def block_write(self, block: int, data: bytes, *, local: bool = False) -> None:
        tokens = [data[i : i + 4] for i in range(0, len(data), 4)]
        assert len(tokens) == self.block_tokens
        (self.local if local else self.blocks)[block] = [
            int.from_bytes(token, "little", signed=True) for token in tokens
        ]

    def state_read(self, slot: int) -> bytes:
        return b"".join(token.to_bytes(4, "little", signed=True) for token in self.states[slot])

    def state_write(self, slot: int, data: bytes) -> None:
        parts = [data[i : i + 4] for i in range(0, len(data), 4)]
        self.states[slot] = tuple(int.from_bytes(part, "little", signed=True) for part in parts)

    def row(self, k: int) -> History:
        return self._kept[k]

    def log_probability(self, k: int, token: int) -> float:
        return 0.0  # it is sure

    def token_probabilities(
        self, k: int, token: int, n_likeliest: int
    ) -> tuple[tuple[int, float], ...]:
        """Numbers that depend on all tokens before, as a model's do."""
        likeliest = [(97 + i, -float(i)) for i in range(n_likeliest)]
        return (token, -(zlib.crc32(repr(self.row(k)).encode()) % 1000) / 64), *likeliest

    def cancel(self) -> None:
        self._cancelled.set()

    def cancel_clear(self) -> None:
        self._cancelled.clear()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait_for_cancel(self) -> None:
        """Stand in for a long computation that only a cancel ends."""
        assert self._cancelled.wait(TIMEOUT_SECONDS)
