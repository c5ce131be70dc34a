"""The states of one engine's sequences, in slots: which are free, who has them, what is kept.

A layer without attention remembers a fixed number of bytes of a sequence, which change with every
token and cannot be cut. So a sequence has the state behind its last computed token, and states at
ends of blocks are *kept*: bound to the block's key, never written again, and found by sequences
that begin with the same tokens. Of kept ones that nobody has that one goes first whose loss costs
the fewest tokens to read again, unless it was used more recently than others: GreedyDual (Young,
"The k-server dual and loose competitiveness for paging", 1994). So many short texts do not push out
the one state far inside a long prompt. A step begins with the state that a sequence has and leaves
another one, so that a step that was stopped can be repeated; if there is no slot left for that, it
changes the one that there is.

There are at least as many slots as sequences that run, so each can always go on. What is beyond
keeps states, and the state before guesses until it is known which were right. No engine inside.
"""

from collections.abc import Iterable

from llamad.engine.worker import Cut
from llamad.schedule.sequence import Sequence


class StatePool:
    """The slots 0..n_slots-1; a state is kept every ``interval`` blocks. No slots: no states.

    Within a prompt that is longer than all slots reach so, as many are kept at greater distances.
    """

    def __init__(self, n_slots: int, n_sequences: int, block_tokens: int, interval: int) -> None:
        assert n_slots == 0 or n_slots >= n_sequences, "a slot for each sequence"
        self.n_slots = n_slots
        self._n_sequences = n_sequences
        self._block_tokens = block_tokens
        self._interval_tokens = interval * block_tokens
        self._free = list(range(n_slots - 1, -1, -1))
        self._by_key: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}  # of slots that are kept
        self._n_holders = 0  # sequences that have a state
        self._users: dict[int, int] = {}  # of kept slots: sequences whose state it is
        self._worth: dict[int, int] = {}  # of kept slots: tokens that are read again without it
        self._unused: dict[int, int] = {}  # kept, nobody's: at which loss it goes, GreedyDual's H
        self._loss = 0  # GreedyDual's L: of the one that went last

    @property
    def n_available(self) -> int:
        """Slots that nobody has, those of kept states included."""
        return len(self._free) + len(self._unused)

    @property
    def n_kept(self) -> int:
        """States that sequences may begin with."""
        return len(self._keys)

    # ---- a step -----------------------------------------------------------------------------

    def can_guess(self) -> bool:
        """Whether one more sequence may leave the state before its guesses as it is."""
        return not self.n_slots or self._has_spare()

    def plan(self, sequence: Sequence, n_tokens: int, n_guesses: int) -> tuple[Cut, ...]:
        """Return the runs of the sequence's next tokens, guesses behind them included.

        With guesses ``can_guess`` must hold.
        """
        if not self.n_slots:
            return ()
        begin, end = sequence.n_computed, sequence.n_computed + n_tokens + n_guesses
        last = self._last_slot(sequence, guessing=n_guesses > 0)
        planned = []
        for position in self._ends(sequence, begin, end):
            if not self._has_spare():
                break
            planned.append((position, self._take_slot()))
        if planned and planned[-1][0] == end:
            if last != sequence.state:
                self._free.append(last)
        else:
            planned.append((end, last))
        sequence.states_planned = planned
        cuts, state_in = [], last if sequence.state is None else sequence.state
        for position, slot in planned:
            cuts.append(Cut(position - begin, state_in, slot))
            begin, state_in = position, slot
        return tuple(cuts)

    def _ends(self, sequence: Sequence, begin: int, end: int) -> list[int]:
        """Return the ends of blocks in (begin, end] at which the sequence's state is kept."""
        block = self._block_tokens
        first, every = begin // block + 1, self._interval_tokens
        sparse = self._prompt_interval(sequence)
        shared = sequence.n_prompt - 1 - (sequence.n_prompt - 1) % block
        whole = sequence.n_prompt - sequence.n_prompt % block  # where a pinned prefix ends
        return [
            at
            for at in range(first * block, end + 1, block)
            if at % (every if at > sequence.n_prompt else sparse) == 0
            or at in (shared, whole, sequence.n_found)
        ]

    def _prompt_interval(self, sequence: Sequence) -> int:
        """Return the tokens from one kept state to the next within the sequence's prompt.

        So that they spread over all of it, and one slot is left for its end.
        """
        room = max(1, self.n_slots - self._n_sequences - 1)
        return self._interval_tokens * max(
            1, -(-(sequence.n_prompt // self._interval_tokens) // room)
        )

    def _last_slot(self, sequence: Sequence, *, guessing: bool) -> int:
        """Return the slot for the state behind a step: another one, so that it can be repeated.

        The sequence's own where there is no slot left for that.
        """
        state = sequence.state
        if state is None:
            return self._take_slot()
        if guessing or self._users.get(state, 1) > 1 or self._has_spare():
            return self._take_slot()
        if state in self._keys:
            self._forget(state)
        return state

    @staticmethod
    def can_repeat(sequence: Sequence) -> bool:
        """Whether the step that was planned leaves the sequence's state as it is."""
        return all(slot != sequence.state for _, slot in sequence.states_planned)

    def withdraw(self, sequence: Sequence) -> None:
        """Take back what was planned for a step that was stopped, if it can be repeated."""
        assert self.can_repeat(sequence)
        self._free.extend(slot for _, slot in sequence.states_planned)
        sequence.states_planned = []

    def settle(self, sequence: Sequence) -> None:
        """Take over what a step left, as far as its tokens were right; keep what is to be kept.

        Where the last right token has no state, the sequence goes back to one that it has.
        """
        planned, sequence.states_planned = sequence.states_planned, []
        if not planned:
            return
        right = [(at, slot) for at, slot in planned if at <= sequence.n_computed]
        for at, slot in planned[len(right) :]:
            if slot != sequence.state:
                self._free.append(slot)
            assert at > sequence.n_computed
        if right:
            before = sequence.state
            sequence.state_at, sequence.state = right[-1]
            self._n_holders += before is None
            if before is not None and before != sequence.state:
                self._let_go(before)
            for at, slot in right:
                self._keep(sequence, at, slot)
        sequence.replays = sequence.state_at < sequence.n_computed
        sequence.n_computed = sequence.state_at

    def _keep(self, sequence: Sequence, at: int, slot: int) -> None:
        """Bind the state at the end of a block to its key; one in the middle is the sequence's."""
        is_current = slot == sequence.state
        if at not in self._ends(sequence, at - 1, at):
            assert is_current
            return
        key = self._key(sequence, at)
        known = self._by_key.get(key)
        if known is not None:  # another computed it meanwhile, to the same bits
            if not is_current:
                self._free.append(slot)
            elif self._can_share(known):
                self._use(sequence, known)
                self._free.append(slot)
            return
        self._by_key[key] = slot
        self._keys[slot] = key
        self._users[slot] = int(is_current)
        self._worth[slot] = at - self._kept_before(sequence, at)
        if not is_current:
            self._put_unused(slot)

    def _kept_before(self, sequence: Sequence, at: int) -> int:
        """Return the last position before ``at`` at which its state is kept; 0 without one."""
        block = self._block_tokens
        positions = range(at - block, 0, -block)
        return next((p for p in positions if self._key(sequence, p) in self._by_key), 0)

    # ---- sequences --------------------------------------------------------------------------

    def find(self, keys: Iterable[bytes]) -> bytes | None:
        """Return the first of these keys of a block at whose end a state is kept.

        None also where that is another one's, and there is no slot left for both to go on.
        """
        found = (key for key in keys if key in self._by_key)
        return next((key for key in found if self._can_share(self._by_key[key])), None)

    def begin_with(self, sequence: Sequence, key: bytes, at: int) -> None:
        """Give a sequence the state that ``find`` found, of its first ``at`` tokens."""
        before, slot = sequence.state, self._by_key[key]
        self._n_holders += before is None
        self._use(sequence, slot)
        self._worth[slot] = at - self._kept_before(sequence, at)
        sequence.state_at = at
        if before is not None:
            self._let_go(before)

    def release(self, sequence: Sequence) -> None:
        """Take the states of a sequence."""
        slots = {slot for _, slot in sequence.states_planned} - {sequence.state}
        self._free.extend(slots)
        if sequence.state is not None:
            self._n_holders -= 1
            self._let_go(sequence.state)
        sequence.states_planned, sequence.state = [], None
        sequence.state_at, sequence.replays = 0, False

    def forget(self, keys: Iterable[bytes]) -> None:
        """Let nobody find the states of these keys any more."""
        for key in keys:
            slot = self._by_key.get(key)
            if slot is None:
                continue
            if self._users[slot] > 1:  # it stays until the last of them has gone on
                del self._by_key[key]
                continue
            unused = self._unused.pop(slot, None)
            self._forget(slot)
            if unused is not None:
                self._free.append(slot)

    # ---- states that are saved elsewhere ----------------------------------------------------

    def slot_of(self, key: bytes) -> int | None:
        """Return the slot of the state under a block's key; None when none is kept."""
        return self._by_key.get(key)

    @property
    def n_to_fill(self) -> int:
        """Kept states more that may be brought back before anything runs: half of the room."""
        return max(0, (self.n_slots - self._n_sequences) // 2 - self.n_kept)

    def reserve(self) -> int | None:
        """Take a slot, to fill it with what ``admit`` says; None when there is none."""
        return self._take_slot() if self.n_slots and self._has_spare() else None

    def admit(self, slot: int, key: bytes | None) -> None:
        """Give a reserved slot back: kept under a block's key, or empty when there is no key.

        Until somebody uses it, it counts as worth the distance at which states are kept.
        """
        if key is None or key in self._by_key:
            self._free.append(slot)
            return
        self._by_key[key], self._keys[slot], self._users[slot] = slot, key, 0
        self._worth[slot] = self._interval_tokens
        self._put_unused(slot)

    # ---- slots ------------------------------------------------------------------------------

    def _has_spare(self) -> bool:
        """Whether a slot can be taken that no running sequence could miss."""
        n_sharers = sum(n for n in self._users.values() if n > 1)  # each takes one in its next step
        return self.n_available > self._n_sequences - self._n_holders + n_sharers

    def _can_share(self, slot: int) -> bool:
        """Whether one more sequence may have a kept state; only a second one costs a slot."""
        return self._users[slot] != 1 or self._has_spare()

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        slot = min(self._unused, key=self._unused.__getitem__)  # of equals the longest unused
        self._loss = self._unused.pop(slot)
        self._forget(slot)
        return slot

    def _put_unused(self, slot: int) -> None:
        self._unused[slot] = self._loss + self._worth[slot]

    def _forget(self, slot: int) -> None:
        """Make a kept state one that is not."""
        key = self._keys.pop(slot)
        if self._by_key.get(key) == slot:
            del self._by_key[key]
        del self._users[slot], self._worth[slot]

    def _use(self, sequence: Sequence, slot: int) -> None:
        self._users[slot] += 1
        self._unused.pop(slot, None)
        sequence.state = slot

    def _let_go(self, slot: int) -> None:
        if slot not in self._keys:
            self._free.append(slot)
            return
        self._users[slot] -= 1
        if self._users[slot]:
            return
        if self._by_key.get(self._keys[slot]) == slot:
            self._put_unused(slot)
        else:
            self._forget(slot)
            self._free.append(slot)

    def _key(self, sequence: Sequence, at: int) -> bytes:
        index = at // self._block_tokens - 1
        return sequence.own_keys.get(index, sequence.tokens, self._block_tokens)
