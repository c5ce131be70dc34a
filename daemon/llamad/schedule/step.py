"""Composing a step: which rows of which jobs go into it, and who gives way for blocks.

Decoding sequences come first, one row each, so that text keeps flowing, and a few rows of guesses
where the step stays bound by memory, not by arithmetic. What is left of the step's time goes to
prompts, in turns of one block: a short prompt never waits for all of a long one, and a new one has
the first turn. Beside a prompt, less urgent jobs get no rows (policy.py). The cut changes no
result: the engine's arithmetic does not depend on it. Of prompts that go on with the same block one
computes it, and the others read it after the step.

When no block is free, the job that goes last (policy.py) gives its blocks back and waits again.
"""

from collections import deque
from collections.abc import Sequence as Rows

from llamad.engine.worker import Chunk
from llamad.schedule.blocks import BlockPool
from llamad.schedule.cost import StepCost
from llamad.schedule.generation import Generation
from llamad.schedule.policy import Policy
from llamad.schedule.prefix_reuse import PrefixReuse
from llamad.schedule.speculation import Speculation

MAX_DECODE_ROWS = 8  # with guesses, where nothing streams: beyond, a small board computes longer
LEAST_PROMPT_ROWS = 8  # below this many, a step costs what its weights cost to read

Part = tuple[Generation, Chunk]


class StepComposer:
    """Makes one step after the other for the sequences of one engine."""

    def __init__(
        self,
        pool: BlockPool,
        reuse: PrefixReuse,
        cost: StepCost,
        policy: Policy,
        speculation: Speculation,
        *,
        n_batch: int,
        guess_rows: int,
        whole_texts: bool = False,
    ) -> None:
        """Compose steps of at most ``n_batch`` rows, which must be enough for one of each sequence.

        ``guess_rows``: most rows of guesses that the engine has room for. ``whole_texts``: of an
        encoder, every prompt is computed in one step.
        """
        self._pool = pool
        self._reuse = reuse
        self._cost = cost
        self._policy = policy
        self._speculation = speculation
        self._n_batch = n_batch
        self._whole_texts = whole_texts
        self._guess_rows = guess_rows
        self._number = 0  # of the step that is composed

    def come(self, generation: Generation, running: Rows[Generation]) -> None:
        """Let a job in that starts; the prompt whose turn is open lets it go first."""
        generation.turn.come(self._number)
        for other in running:
            other.turn.close(self._number)

    def compose(
        self, running: Rows[Generation], budget_seconds: float, now: float
    ) -> tuple[list[Part], list[Generation]]:
        """Return the next step, and those that gave their blocks back for it.

        There is always a step while anything runs: whoever goes first gets the blocks it needs.
        """
        self._number += 1
        for generation in running:
            if not generation.sequence.decodes:
                self._reuse.take(generation)
        ready, preempted = self._secure(self._policy.running_order(running, now))
        ready = self._policy.taking_part(ready, now)
        decoding = [g for g in ready if g.sequence.decodes]
        n_replayed = sum(g.sequence.n_pending - 1 for g in decoding)
        if len(decoding) + n_replayed > self._n_batch:  # these go on as prompts do, in pieces
            decoding, n_replayed = [g for g in decoding if g.sequence.n_pending == 1], 0
        prompts = [g for g in ready if g not in decoding]
        prompts.sort(key=lambda g: g.turn.rank())
        prompts = self._without_followers(prompts)
        least = LEAST_PROMPT_ROWS if prompts else 0
        left = self._n_batch - len(decoding) - n_replayed - least
        spare = min(self.guess_rows(len(decoding), budget_seconds), left)
        if not prompts and self._speculation.wants_plain(len(decoding)):
            spare = 0
        free = len(decoding) + spare <= self._cost.rows_behind_reading()
        step = self._decode_parts(decoding, spare, free=free)
        n_rows = sum(len(chunk.tokens) for _, chunk in step)
        rows = max(least, self._cost.rows_within(budget_seconds) - n_rows)
        share = self._whole if self._whole_texts else self._share
        for generation, n in share(prompts, min(rows, self._n_batch - n_rows)).items():
            n = min(n, self._pool.room(generation.sequence))
            self._pool.grow(generation.sequence, n)
            generation.turn.count(n, self._number, self._pool.block_tokens)
            step.append((generation, self._chunk(generation, n)))
        return step, preempted

    def _secure(self, ranked: Rows[Generation]) -> tuple[list[Generation], list[Generation]]:
        """Give each a block for its next token, at the cost of those behind it.

        Return those that have one, and those that gave theirs back; the others wait.
        """
        behind = deque(ranked)
        ready: list[Generation] = []
        preempted: list[Generation] = []
        while behind:
            generation = behind.popleft()
            while self._pool.room(generation.sequence) < 1 and behind:
                last = behind.pop()
                if last.sequence.blocks:
                    self.preempt(last)
                    preempted.append(last)
            if self._pool.room(generation.sequence) >= 1:
                self._pool.grow(generation.sequence, 1)
                ready.append(generation)
        return ready, preempted

    def preempt(self, generation: Generation) -> None:
        """Take a job's blocks: what they held is computed again when it goes on."""
        self._pool.release(generation.sequence)
        generation.pause()

    # ---- decode rows ------------------------------------------------------------------------

    def guess_rows(self, n_decoding: int, budget_seconds: float) -> int:
        """Return how many rows of guesses a step has beside a row for each that decodes."""
        reading = self._cost.waits_for_the_disk(budget_seconds)
        most = self._n_batch if reading else min(MAX_DECODE_ROWS, self._n_batch)
        return max(0, min(self._guess_rows, most - n_decoding))

    def _decode_parts(self, decoding: Rows[Generation], spare: int, *, free: bool) -> list[Part]:
        """Return a row of each, and up to ``spare`` rows of guesses; free: they cost nothing."""
        step: list[Part] = []
        for generation in decoding:
            guesses = self._guesses(generation, spare, free=free)
            spare -= len(guesses)
            n_pending = generation.sequence.n_pending
            step.append((generation, self._chunk(generation, n_pending, guesses)))
        return step

    def _guesses(self, generation: Generation, spare: int, *, free: bool) -> tuple[int, ...]:
        """Return guesses within what the job may still say and the blocks that are free."""
        sequence = generation.sequence
        if generation.guesser is None or not self._pool.states.can_guess():
            self._pool.grow(sequence, sequence.n_pending)
            return ()
        record = generation.job.record
        left = record.max_tokens - record.completion_tokens - 1
        room = self._pool.room(sequence) - sequence.n_pending
        guesses = generation.guesser.guess(min(spare, left, room), free=free)
        self._pool.grow(sequence, sequence.n_pending + len(guesses))
        return guesses

    # ---- prompt rows ------------------------------------------------------------------------

    def _without_followers(self, prompts: Rows[Generation]) -> list[Generation]:
        """Leave out prompts whose next block comes, from the disk or from another one's rows."""
        keys: set[bytes] = set()
        leaders = []
        for generation in prompts:
            if generation.pool is not None:
                leaders.append(generation)
                continue
            if generation.blocks_coming:
                continue
            key = self._pool.next_key(generation.sequence)
            if key not in keys:
                leaders.append(generation)
            if key is not None:
                keys.add(key)
        return leaders

    def _share(self, prompts: Rows[Generation], rows: int) -> dict[Generation, int]:
        """Give the rows out in turns of one block, as often as they last."""
        shares: dict[Generation, int] = {}
        turn_rows = self._pool.block_tokens
        unread = {generation: generation.sequence.n_pending for generation in prompts}
        while rows and any(unread.values()):
            for generation in prompts:
                begun = 0 if generation in shares else generation.turn.rows
                n = min(rows, turn_rows - begun, unread[generation])
                if n:
                    shares[generation] = shares.get(generation, 0) + n
                    unread[generation] -= n
                    rows -= n
        return shares

    def _whole(self, prompts: Rows[Generation], rows: int) -> dict[Generation, int]:
        """Take prompts whole as far as the rows last, the first in any case."""
        taken: dict[Generation, int] = {}
        free = self._pool.n_free
        for generation in prompts:
            sequence = generation.sequence
            n = sequence.n_pending
            n_blocks = self._pool.blocks_for(n) - len(sequence.blocks)
            if n_blocks <= free and n <= (rows if taken else self._n_batch):
                taken[generation] = n
                rows -= n
                free -= n_blocks
        return taken

    def _chunk(self, generation: Generation, n_tokens: int, guesses: tuple[int, ...] = ()) -> Chunk:
        """Return the next n_tokens of a sequence, with guesses behind its last one."""
        sequence = generation.sequence
        end = sequence.n_computed + n_tokens
        return Chunk(
            tokens=(*sequence.tokens[sequence.n_computed : end], *guesses),
            position=sequence.n_computed,
            blocks=tuple(sequence.blocks),
            sampler=generation.sampler if end == len(sequence.tokens) else None,
            n_drafts=len(guesses),
            cuts=self._pool.states.plan(sequence, n_tokens, len(guesses)),
            local_blocks=self._pool.local.named_by(sequence),
            reader=generation.pool,
            adapter=generation.adapter,
        )
