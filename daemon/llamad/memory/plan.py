"""The memory plan of one model: what everything takes, and what of the file stays in memory.

What of a model does not fit its memory is read from the disk again for every step, so the budget
is divided before anything is loaded: first what must be there, then one whole context of KV cache,
then the model, then more KV cache. Which parts of the model stay ``residency.py`` says. Pure
arithmetic on bytes; ``demand.py`` asks the engine for the sizes. The service, ``llamad fit`` and
the status say the numbers of this plan.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llamad.engine.info import Extent
from llamad.engine.run import blocks_seen
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.residency import choose_residency, least_memory_bytes, whole_bytes

MIB = 1 << 20

# Measured on x86-64 with Python 3.11: a service that has answered some requests has 25 MiB of its
# own and 24 MiB of mapped programs and libraries.
PROCESS_BYTES = 50 * MIB

# Of our tables, measured as above on vocabularies of 32,000 to 262,144 tokens and up to 280,147
# merges: they took 88 to 97 % of these. The library of SentencePiece is loaded only where needed.
BPE_TOKEN_BYTES, BPE_MERGE_BYTES = 50, 125
SENTENCEPIECE_TOKEN_BYTES, SENTENCEPIECE_BYTES = 250, 3 * MIB

HUGE_PAGES_ROOM = 1.3  # times the file that must be available before its weights are copied


def vocabulary_bytes(n_tokens: int, n_merges: int) -> int:
    """Return about what a tokenizer takes; one without merges is of SentencePiece."""
    if n_merges:
        return n_tokens * BPE_TOKEN_BYTES + n_merges * BPE_MERGE_BYTES
    return n_tokens * SENTENCEPIECE_TOKEN_BYTES + SENTENCEPIECE_BYTES


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model and its engine take, apart from how many KV blocks there are. Bytes."""

    file_bytes: int
    extents: tuple[Extent, ...]
    kv_block_bytes: int
    kv_block_tokens: int
    scratch_bytes: int
    sampler_bytes: int  # of one sequence
    vocabulary_bytes: int
    template_bytes: int  # of the process that renders chats
    connections_bytes: int  # of callers, by the door's capacity
    states_bytes: int = 0  # of all slots of states
    adapters_bytes: int = 0  # of adapters, and of the room that steps need for them
    draft_fixed_bytes: int = 0  # weights, scratch and sampler of a draft model
    draft_block_bytes: int = 0  # of its cache, which has a block for each of the model's
    draft_local_bytes: int = 0  # of a local block of its cache
    draft_local_blocks: int = 0  # that it needs, however many blocks there are
    kv_local_bytes: int = 0  # of a local block; 0: every layer sees all tokens
    kv_window: int = 0  # tokens
    step_rows: int = 0  # most rows of a step
    expert_share: float = 0.0  # of a layer's experts, those that a token uses

    def local_blocks(self, n_blocks: int, n_windows: int) -> int:
        """Return the local blocks beside n_blocks, for the windows of so many long sequences.

        A step and its rows have room beside them; what nobody holds keeps prefixes.
        """
        if not self.kv_local_bytes:
            return 0
        seen = blocks_seen(self.kv_window, 1, self.kv_block_tokens)
        return min(n_blocks, n_windows * seen + -(-self.step_rows // self.kv_block_tokens))

    def draft_locals(self, n_blocks: int) -> int:
        """Return the local blocks of the draft's cache beside n_blocks."""
        return min(n_blocks, self.draft_local_blocks) if self.draft_local_bytes else 0

    def draft_cache_bytes(self, n_blocks: int) -> int:
        """Return what the draft's cache takes beside n_blocks."""
        local = self.draft_locals(n_blocks) * self.draft_local_bytes
        return n_blocks * self.draft_block_bytes + local

    def cache_bytes(self, n_blocks: int, n_windows: int) -> int:
        """Return what so many blocks take, in the caches of model and draft."""
        local = self.local_blocks(n_blocks, n_windows) * self.kv_local_bytes
        return n_blocks * self.kv_block_bytes + self.draft_cache_bytes(n_blocks) + local


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What goes where, in bytes, and for how long a context."""

    budget_bytes: int | None  # None: no limit is known
    n_ctx: int  # tokens of one sequence
    process_bytes: int
    connections_bytes: int
    template_bytes: int
    vocabulary_bytes: int
    samplers_bytes: int
    scratch_bytes: int
    kv_blocks: int
    kv_bytes: int  # states of layers without attention included
    resident_bytes: int  # of the file, kept in memory
    streamed_bytes: int  # of the file, which the disk gives again for each step
    on_demand_bytes: int  # of the file, read where a token needs a row of it, or once at load
    streaming_bytes: int  # beside, for the ring that is read ahead into, and tables
    lockable_bytes: int  # of what stays of the file and the ring, as far as RLIMIT_MEMLOCK lets
    draft_bytes: int = 0  # everything of a draft model: weights, scratch and cache
    adapters_bytes: int = 0  # of adapters (LoRA), and of the room that steps need for them
    kv_local_blocks: int = 0  # of layers with a window
    draft_local_blocks: int = 0  # of those of the draft
    expert_bytes: int = 0  # of experts that are not in memory: part of on_demand_bytes
    expert_share: float = 0.0  # of a layer's experts, those that a token uses

    @property
    def planned_bytes(self) -> int:
        """Everything that is to be in memory."""
        return (
            self.process_bytes
            + self.connections_bytes
            + self.template_bytes
            + self.vocabulary_bytes
            + self.samplers_bytes
            + self.scratch_bytes
            + self.kv_bytes
            + self.draft_bytes
            + self.adapters_bytes
            + self.resident_bytes
            + self.streaming_bytes
        )

    @property
    def token_read_bytes(self) -> int:
        """What the disk has to give for a token of one sequence, where all experts are alike."""
        return self.streamed_bytes + int(self.expert_bytes * self.expert_share)

    @property
    def model_fits(self) -> bool:
        """Whether everything that a step may read of the file stays in memory."""
        return self.streaming_bytes == 0

    @property
    def room_bytes(self) -> int | None:
        """What the model may take, streaming included; None: no limit is known.

        ``choose_residency`` with it gives the extents that this plan keeps.
        """
        if self.budget_bytes is None:
            return None
        weights = self.resident_bytes + self.streaming_bytes
        return self.budget_bytes - (self.planned_bytes - weights)


def plan_memory(
    demand: Demand,
    *,
    budget_bytes: int | None,
    lock_limit_bytes: int | None = None,
    kv_tokens: int,
    n_ctx: int,
    n_sequences: int,
    n_local_blocks: int = 0,
) -> MemoryPlan:
    """Divide ``budget_bytes`` (None: no limit is known).

    ``kv_tokens`` 0 is one whole context, and up to one for each sequence as far as the model fits
    beside it: sequences share the blocks. Likewise ``n_local_blocks`` 0 is the window of one
    sequence, and up to one for each; these come before more blocks.
    lock_limit_bytes: of RLIMIT_MEMLOCK, None without one. Raises OUT_OF_MEMORY when the KV cache
    does not fit, or not beside what always stays of the model; that only a part of the model fits
    is no error.
    """
    block = demand.kv_block_tokens
    least = -(-n_ctx // block)
    blocks = -(-kv_tokens // block) if kv_tokens else least * n_sequences
    local = n_local_blocks or demand.local_blocks(blocks, n_sequences)
    left = None
    if budget_bytes is not None:
        room = budget_bytes - fixed_bytes(demand, n_sequences)
        beside = room - whole_bytes(demand.extents, demand.file_bytes)
        fewest = blocks if kv_tokens else least
        most = max(beside, demand.cache_bytes(fewest, 1))
        n_windows = largest(1, n_sequences, lambda n: demand.cache_bytes(fewest, n) <= most)
        if not kv_tokens:
            most = max(beside, demand.cache_bytes(least, n_windows))
            blocks = largest(least, blocks, lambda n: demand.cache_bytes(n, n_windows) <= most)
            if n_windows < n_sequences:
                blocks = least
        local = n_local_blocks or demand.local_blocks(blocks, n_windows)
        cache = blocks * demand.kv_block_bytes + local * demand.kv_local_bytes
        cache += demand.draft_cache_bytes(blocks)
        left = room - cache
        if left < 0:
            raise _too_little(budget_bytes, room, blocks * demand.kv_block_tokens, cache)
    residency = choose_residency(demand.extents, demand.file_bytes, left)
    if residency is None:
        raise _no_room_to_stream(budget_bytes or 0, left or 0, demand)
    lockable = residency.resident_bytes + residency.ring_bytes
    return MemoryPlan(
        budget_bytes=budget_bytes,
        n_ctx=n_ctx,
        process_bytes=PROCESS_BYTES,
        connections_bytes=demand.connections_bytes,
        template_bytes=demand.template_bytes,
        vocabulary_bytes=demand.vocabulary_bytes,
        samplers_bytes=demand.sampler_bytes * n_sequences,
        scratch_bytes=demand.scratch_bytes,
        kv_blocks=blocks,
        kv_bytes=blocks * demand.kv_block_bytes
        + local * demand.kv_local_bytes
        + demand.states_bytes,
        resident_bytes=residency.resident_bytes,
        streamed_bytes=residency.streamed_bytes,
        on_demand_bytes=residency.on_demand_bytes,
        streaming_bytes=residency.overhead_bytes,
        lockable_bytes=lockable if lock_limit_bytes is None else min(lockable, lock_limit_bytes),
        draft_bytes=demand.draft_fixed_bytes + demand.draft_cache_bytes(blocks),
        adapters_bytes=demand.adapters_bytes,
        kv_local_blocks=local,
        draft_local_blocks=demand.draft_locals(blocks),
        expert_bytes=residency.expert_bytes,
        expert_share=demand.expert_share,
    )


def largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number of low..high that fits, ``low`` when none does: by halving.

    What fits is all up to some number.
    """
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def fixed_bytes(demand: Demand, n_sequences: int) -> int:
    """Return what must be there, whatever becomes of model and KV cache."""
    return (
        PROCESS_BYTES
        + demand.connections_bytes
        + demand.template_bytes
        + demand.vocabulary_bytes
        + demand.sampler_bytes * n_sequences
        + demand.scratch_bytes
        + demand.states_bytes
        + demand.draft_fixed_bytes
        + demand.adapters_bytes
    )


def _too_little(budget_bytes: int, room: int, n_tokens: int, needed: int) -> LlamadError:
    return LlamadError(
        ErrorKind.EXHAUSTED,
        "OUT_OF_MEMORY",
        f"a KV cache of {n_tokens} tokens needs {-(-needed // MIB)} MiB,"
        f" the memory budget of {budget_bytes // MIB} MiB leaves {max(0, room) // MIB} MiB",
    )


def _no_room_to_stream(budget_bytes: int, left: int, demand: Demand) -> LlamadError:
    least = least_memory_bytes(demand.extents, demand.file_bytes)
    return LlamadError(
        ErrorKind.EXHAUSTED,
        "OUT_OF_MEMORY",
        f"to stream the model needs {-(-least // MIB)} MiB beside the KV cache,"
        f" the memory budget of {budget_bytes // MIB} MiB leaves {left // MIB} MiB",
    )


def plan_huge_pages(
    choice: str, *, file_bytes: int, available_bytes: int | None, is_board: bool
) -> bool:
    """Whether to copy the weights into huge pages, by ``choice``: auto, on or off.

    auto: with plenty of memory, and never on a small board, which needs its page cache.
    """
    if choice != "auto":
        return choice == "on"
    return not is_board and (
        available_bytes is None or available_bytes > HUGE_PAGES_ROOM * file_bytes
    )
