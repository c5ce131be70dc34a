"""KV blocks on their way between memory and disk.

Owns which blocks are saved without a pin (those that a second prompt began with) and when (while
nothing runs, or a minute later), and brings back those that a prompt needs. Files and their bounds
are store/prefix_store.py's, the blocks in memory schedule/blocks.py's. A block passes the engine's
thread in pieces of a few megabytes, between two steps. Reading one takes a small part of the time
that computing it would: 32 rows of a model cost more than their keys and values do on any disk. So
what is saved is always read.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.logs import fields
from llamad.schedule import sequence as schedule
from llamad.schedule.generation import Generation
from llamad.schedule.loop import Scheduler
from llamad.store.block_file import KEY_BYTES, BlockName
from llamad.store.prefix_store import PrefixStore

log = logging.getLogger(__name__)

T = TypeVar("T")

_Kind = Literal["block", "local", "state"]
_Part = tuple[_Kind, int]  # what of the engine, and its number

PIECE_BYTES = 4 << 20  # of blocks that pass the engine's thread at once, and are in memory twice
SAVE_AFTER_SECONDS = 60.0  # where something always runs
POLL_SECONDS = 2.0  # while something waits to be saved
TRY_AGAIN_SECONDS = 30.0  # what was brought and did not stay is computed meanwhile
MOST_REMEMBERED = 1 << 16  # blocks of which it is known how often they helped
NO_PARENT = bytes(KEY_BYTES)


class BlockEngine(Protocol):
    """The part of ``bindings.Engine`` that this needs; the engine's thread."""

    def block_read(self, block: int, *, local: bool = False) -> bytes:
        """Return a block, or a local block, as bytes."""

    def block_write(self, block: int, data: bytes, *, local: bool = False) -> None:
        """Fill one with what ``block_read`` returned."""

    def state_read(self, slot: int) -> bytes:
        """Return the state in a slot as bytes."""

    def state_write(self, slot: int, data: bytes) -> None:
        """Fill one with what ``state_read`` returned."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block of a prompt is, in memory or only saved, and its local block or state."""

    key: bytes
    here: bool
    tail_here: bool
    tail_saved: bool


class BlockExchange:
    """The blocks of one scheduler's pool and those of a store, as ``SavedBlocks`` of the first."""

    def __init__(
        self,
        scheduler: Scheduler,
        worker: EngineWorker,
        engine: BlockEngine,
        store: PrefixStore | None,
        *,
        block_bytes: int,
    ) -> None:
        """Join a scheduler to a store; None saves nothing. block_bytes: with a local block."""
        self.store = store
        self.pool = scheduler.attach(self)
        self.pinned: frozenset[bytes] = (
            frozenset()
        )  # keys of blocks that the store must not give up
        self.on_pinned: Callable[[Generation], Awaitable[object]] = _nothing
        self.uses: Counter[bytes] = Counter()  # prompts that a block helped, by its key
        self._scheduler = scheduler
        self._worker = worker
        self._engine = engine
        self._piece = max(1, PIECE_BYTES // block_bytes)  # blocks
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llamad-prefixes")
        self._work: deque[Callable[[], Awaitable[object]]] = deque()
        self._coming: set[bytes] = set()
        self._brought: dict[bytes, float] = {}  # when it was tried
        self._unsaved: dict[bytes, BlockName] = {}
        self._unsaved_since = 0.0
        self._ends: set[bytes] = set()  # blocks whose states are saved, too
        self._wake = asyncio.Event()

    # ---- what the scheduler tells -----------------------------------------------------------

    def want(self, sequence: schedule.Sequence) -> bool:
        """Begin to bring what is saved of the sequence's next blocks; whether they are coming."""
        store, first = self.store, sequence.n_shared
        if store is None or first >= self.pool.n_shareable(sequence):
            return False
        if not self._coming.isdisjoint(self.pool.keys_at(sequence, first)):
            return True
        chain, local = self._saved_chain(sequence, store)
        now = time.monotonic()
        if not chain or now - self._brought.get(chain[0], -TRY_AGAIN_SECONDS) < TRY_AGAIN_SECONDS:
            return False
        if len(self._brought) > MOST_REMEMBERED:
            self._brought.clear()
        self._brought.update(dict.fromkeys(chain, now))
        self._coming.update(chain)
        self._order(partial(self._bring, chain, local))
        return True

    def _saved_chain(
        self, sequence: schedule.Sequence, store: PrefixStore
    ) -> tuple[list[bytes], frozenset[bytes]]:
        """Return the keys of the saved blocks that continue the sequence's shared ones.

        And of those the ones whose local blocks, or states, are wanted.
        """
        pool, first = self.pool, sequence.n_shared
        places: list[_Place] = []
        n_absent = 0
        for index in range(first, pool.n_shareable(sequence)):
            place = self._place(pool.keys_at(sequence, index), store)
            n_absent += place is not None and not place.here
            if place is None or n_absent > pool.n_free:
                break
            places.append(place)
        has_tail = [p.tail_here or p.tail_saved for p in places]
        if pool.states.n_slots:  # sequences go on behind a state only
            n = max((i + 1 for i, has in enumerate(has_tail) if has), default=0)
            seen = n - 1
        else:
            n = pool.local.reach(has_tail, first)
            seen = pool.local.seen_from((first + n) * pool.block_tokens) - first
        tails = {p.key for p in places[max(0, seen) : n] if p.tail_saved and not p.tail_here}
        chain = [p.key for p in places[:n] if not p.here or p.key in tails]
        return chain, frozenset(tails)

    def _place(self, keys: Iterable[bytes], store: PrefixStore) -> "_Place | None":
        """Return where the block is that has one of these keys; None: nowhere."""
        for key in keys:
            block = self.pool.block_of(key)
            if block is not None:
                return _Place(key, True, self._tail(key) is not None, store.has_local(key))
        saved = next((key for key in keys if store.has(key)), None)
        if saved is None:
            return None
        state_here = self.pool.states.slot_of(saved) is not None
        return _Place(saved, False, state_here, store.has_local(saved))

    def _tail(self, key: bytes) -> _Part | None:
        """Return where the local block, or the state, of a block in memory is."""
        slot = self.pool.states.slot_of(key)
        if slot is not None:
            return "state", slot
        block = self.pool.block_of(key)
        local = None if block is None else self.pool.local.of(block)
        return None if local is None else ("local", local)

    def on_used(self, sequence: schedule.Sequence, first: int) -> None:
        """Take note of blocks with which a prompt more began; they will be saved."""
        keys = [self.pool.key_of(block) for block in sequence.blocks[: sequence.n_shared]]
        known = [key for key in keys if key is not None]
        if len(known) < len(keys):
            return  # a prefix was removed meanwhile
        used = known[first:]
        self.uses.update(used)
        if len(self.uses) > MOST_REMEMBERED:  # those of pins are told to people
            self.uses = Counter({key: n for key, n in self.uses.items() if key in self.pinned})
        if self.store is None:
            return
        self._thread.submit(self.store.touch, used)
        if len(self._ends) > MOST_REMEMBERED:
            self._ends.clear()
        self._ends.update(known[-1:])
        for index in range(first, len(known)):
            public, _ = self.pool.keys_at(sequence, index)
            named = sequence.public_keys if known[index] == public else sequence.own_keys
            parent = known[index - 1] if index else NO_PARENT
            self._save_later(BlockName(known[index], parent, scope_digest(named.scope)))

    def on_read(self, generation: Generation) -> None:
        """Keep the beginning of a prompt that wants it."""
        if generation.job.record.pinned_tokens:
            self._order(partial(self.on_pinned, generation))

    def _save_later(self, name: BlockName) -> None:
        if not self._is_new(name.key) or name.key in self._unsaved:
            return
        if not self._unsaved:
            self._unsaved_since = time.monotonic()
        self._unsaved[name.key] = name
        self._wake.set()

    def _order(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work.append(work)
        self._wake.set()

    # ---- the task ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Save and bring back until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._wake.wait(), POLL_SECONDS if self._unsaved and self.store else None
                )
            self._wake.clear()
            while self._work:
                await guarded(self._work.popleft())
            if self._unsaved and self._may_save():
                names, self._unsaved = list(self._unsaved.values()), {}
                await guarded(partial(self.save, names))

    async def close(self) -> None:
        """End the thread, after what it does."""
        self._coming.clear()
        await asyncio.to_thread(self._thread.shutdown)

    def _may_save(self) -> bool:
        waited = time.monotonic() - self._unsaved_since
        return not self._scheduler.counts().running or waited > SAVE_AFTER_SECONDS

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run something of the store in the one thread that may use it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Let nobody find these blocks in memory any more, nor save them."""
        self.pool.forget(keys)
        for key in keys:
            self._unsaved.pop(key, None)

    # ---- bringing back ----------------------------------------------------------------------

    async def bring_all(self, first: Sequence[bytes]) -> None:
        """Fill up to half of the blocks while they are empty: these, then those used last."""
        store = self.store
        if store is None:
            return
        known = set(first)
        wanted = [*first, *(key for key in store.newest() if key not in known)]
        wanted = [key for key in wanted if store.has(key)]
        for piece in _pieces(wanted, self._piece):
            keys = [k for k in piece if k not in self._coming and self.pool.block_of(k) is None]
            if self.pool.n_empty - len(keys) < self.pool.n_blocks // 2:
                break
            self._coming.update(keys)
            local, states = self.pool.local, self.pool.states
            room = max(0, local.n_empty - local.n_total // 2) + states.n_to_fill
            await self._bring(keys, frozenset([k for k in keys if store.has_local(k)][:room]))

    async def _bring(self, keys: Sequence[bytes], local: frozenset[bytes]) -> None:
        """Read blocks from the disk into free ones, in their order, as far as that goes.

        local: of which the local blocks, or states, are wanted too.
        """
        try:
            for piece in _pieces(keys, self._piece):
                if not await self._bring_piece(piece, local):
                    break
        finally:
            self._coming.difference_update(keys)
            self._scheduler.wake()

    async def _bring_piece(self, keys: Sequence[bytes], local: frozenset[bytes]) -> bool:
        store = self.store
        if store is None:
            return False
        contents = await self.in_thread(lambda: [store.read(key) for key in keys])
        filled: list[tuple[int, bytes]] = []
        states: list[tuple[int, bytes]] = []
        writes: list[tuple[_Part, bytes]] = []
        for key, content in zip(keys, contents, strict=True):
            wants_tail = content is not None and len(content[1]) > 0 and key in local
            block = None if content is None else self.pool.reserve(local=wants_tail)
            if content is None or block is None:
                break
            filled.append((block, key))
            writes.append((("block", block), content[0]))
            local_block = self.pool.local.of(block)
            slot = self.pool.states.reserve() if wants_tail else None
            if local_block is not None:
                writes.append((("local", local_block), content[1]))
            if slot is not None:
                states.append((slot, key))
                writes.append((("state", slot), content[1]))
        written = False
        try:
            await self._worker.call(partial(self._write_blocks, writes))
            written = True
        finally:
            # the last one first, so that it is the first to be evicted
            for block, key in reversed(filled):
                self.pool.admit(block, key if written else None)
            for slot, key in states:
                self.pool.states.admit(slot, key if written else None)
            self._coming.difference_update(keys)
            self._scheduler.wake()
        return len(filled) == len(keys)

    def _write_blocks(self, writes: Iterable[tuple[_Part, bytes]]) -> None:
        for (kind, number), content in writes:
            if kind == "state":
                self._engine.state_write(number, content)
            else:
                self._engine.block_write(number, content, local=kind == "local")

    # ---- saving -----------------------------------------------------------------------------

    async def save(self, names: Iterable[BlockName]) -> None:
        """Save blocks that are in memory, as far as the bounds allow."""
        store = self.store
        if store is None:
            return
        for piece in _pieces([name for name in names if self._is_new(name.key)], self._piece):
            blocks = [(name, self.pool.block_of(name.key)) for name in piece]
            found = [(name, block) for name, block in blocks if block is not None]
            # Called before anything else can be: no step gives a block away before it was read.
            reads = [self._places_of(name.key, block) for name, block in found]
            contents = await self._worker.call(partial(self._read_blocks, reads))
            pairs = [(name, data) for (name, _), data in zip(found, contents, strict=True)]
            self._ends.difference_update(name.key for name, _ in pairs)
            pinned = self.pinned
            if not await self.in_thread(
                lambda: all([store.write(name, data, pinned) for name, data in pairs])  # noqa: B023, C419
            ):
                break
        await self.in_thread(store.sync)

    def _is_new(self, key: bytes) -> bool:
        """Whether a block in memory, or its local block, is not saved."""
        block, store = self.pool.block_of(key), self.store
        if block is None or store is None:
            return False
        has_tail = len(self._places_of(key, block)) > 1
        return not store.has(key) or (has_tail and not store.has_local(key))

    def _places_of(self, key: bytes, block: int) -> list[_Part]:
        """Return what a block's file is made of: of states only those at the end of a prefix."""
        tail = self._tail(key)
        if tail is None or (tail[0] == "state" and key not in self._ends):
            return [("block", block)]
        return [("block", block), tail]

    def _read_blocks(self, reads: Iterable[Iterable[_Part]]) -> list[bytes]:
        return [b"".join(map(self._read, places)) for places in reads]

    def _read(self, place: _Part) -> bytes:
        kind, number = place
        if kind == "state":
            return self._engine.state_read(number)
        return self._engine.block_read(number, local=kind == "local")

    def note_end(self, keys: Sequence[bytes]) -> None:
        """Of blocks that follow each other, save the last state that is there with its block."""
        ends = [key for key in keys if self.pool.states.slot_of(key) is not None]
        self._ends.update(ends[-1:])


async def guarded(work: Callable[[], Awaitable[object]]) -> None:
    """Do something; a bug costs what is saved, not the service."""
    try:
        await work()
    except LlamadError as error:
        log.info(fields("prefixes not kept", reason=error.reason, message=error.message))
    except Exception:
        log.exception("prefixes failed")


async def _nothing(generation: Generation) -> None:
    pass


def scope_digest(scope: bytes) -> bytes:
    """Return whose a block is, as its file says it."""
    return hashlib.blake2b(scope, digest_size=KEY_BYTES).digest()


def _pieces(items: Sequence[T], n: int) -> Iterator[Sequence[T]]:
    return (items[i : i + n] for i in range(0, len(items), n))
