"""The prefixes of the loaded model: those that are pinned, for everybody or by one owner.

Owns what an administrator, a request and the configuration ask to be kept: computing it, naming it,
forgetting it, telling of it. How blocks get to the disk and back is block_exchange.py's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.jobs.event import PrefillProgress
from llamad.jobs.request import GenerationRequest, Priority
from llamad.logs import fields
from llamad.sampling.parameters import Sampling
from llamad.schedule.block_keys import PUBLIC, BlockKeys, owner_scope
from llamad.schedule.generation import Generation
from llamad.schedule.loop import Scheduler
from llamad.service.block_exchange import (
    NO_PARENT,
    BlockExchange,
    guarded,
    scope_digest,
)
from llamad.store.block_file import BlockName
from llamad.store.pin_file import Pin

log = logging.getLogger(__name__)

MAX_OWN_PINS = 16  # of one owner, beside those of everybody
EVERYBODY = PUBLIC.decode()


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """A prefix as ListPrefixes tells it: `Prefix` in llamad.proto."""

    name: str
    tokens: int
    bytes_on_disk: int
    uses: int
    for_everybody: bool
    in_memory: bool
    age_seconds: float


class Prefixes:
    """What is pinned, while the model serves: ``open``, then ``run`` is its task."""

    def __init__(
        self,
        scheduler: Scheduler,
        exchange: BlockExchange,
        configured: Mapping[str, Callable[[], Sequence[int]]],
    ) -> None:
        """Keep the prefixes of a scheduler's model.

        ``configured``: for each name of the configuration, what returns its tokens; blocking.
        """
        self._scheduler = scheduler
        self._exchange = exchange
        self._pool = exchange.pool
        self._configured = configured
        self._pins: dict[tuple[str, str], Pin] = {}  # by owner and name
        exchange.on_pinned = self._keep_beginning

    async def run(self) -> None:
        """Bring back, complete and save until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._prepare())
                tasks.create_task(self._exchange.run())
        finally:
            await self._exchange.close()

    async def open(self) -> None:
        """Find out what is saved, and take over the pins; before ``run`` and the first request."""
        store = self._exchange.store
        if store is None:
            return
        try:
            await self._exchange.in_thread(store.open)
        except OSError as error:
            fault = f"{store.directory}: {error.strerror}"
            log.warning(fields("prefixes are not saved", message=fault))
            self._exchange.store = None
            return
        self._pins = dict(store.pins)
        for pin in list(self._pins.values()):
            if pin.configured and pin.name not in self._configured:
                await self._forget(pin)
        self._note_pins()

    async def _prepare(self) -> None:
        """Bring into memory what was used last, pinned prefixes first; compute what is missing."""
        pins = [pin for pin in self._pins.values() if pin.owner == EVERYBODY]
        keys = [key for pin in pins for key in self._keys(pin)]
        await guarded(partial(self._exchange.bring_all, keys))
        for pin in pins:
            if not pin.configured:
                await guarded(partial(self._complete, pin))
        for name, tokens in self._configured.items():
            await guarded(partial(self._configure, name, tokens))

    async def _configure(self, name: str, tokens: Callable[[], Sequence[int]]) -> None:
        """Keep a prefix of the configuration."""
        try:
            wanted = self.whole_blocks(await self._scheduler.tokenize(tokens, 0))
        except (OSError, UnicodeDecodeError) as error:
            log.warning(fields("prefix not read", name=name, fault=str(error)))
            return
        if not wanted:
            log.warning(fields("prefix is shorter than a block", name=name))
            return
        await self._complete(Pin(name, EVERYBODY, wanted, time.time(), configured=True))

    async def _complete(self, pin: Pin) -> None:
        """Compute what is missing of a pin, and save it."""
        old = self._pins.get((pin.owner, pin.name))
        if (
            old is not None
            and old.tokens == pin.tokens
            and self._on_disk(pin) == len(self._keys(pin))
        ):
            return
        async for _ in self.compute(pin, owner_uid=None):
            pass
        await self.keep(pin)

    async def _keep_beginning(self, generation: Generation) -> None:
        """Keep the beginning of a prompt for its owner."""
        record, sequence = generation.job.record, generation.sequence
        tokens = self.whole_blocks(sequence.tokens[: record.pinned_tokens])
        if tokens:
            owner = sequence.own_keys.scope.decode()
            await self.keep(Pin(record.request.pin, owner, tokens, time.time()))

    # ---- pins -------------------------------------------------------------------------------

    def whole_blocks(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Return as many tokens as fill blocks."""
        return tuple(tokens[: len(tokens) // self._pool.block_tokens * self._pool.block_tokens])

    def new_pin(self, name: str, tokens: Sequence[int]) -> Pin:
        """Return a prefix for everybody. Raises INVALID_PREFIX when it fills no block."""
        whole = self.whole_blocks(tokens)
        if not whole:
            raise invalid(
                "prefix",
                f"has {len(tokens)} tokens, must have at least {self._pool.block_tokens}",
            )
        if name in self._configured:
            raise _is_configured(name, "change")
        return Pin(name, EVERYBODY, whole, time.time())

    async def compute(
        self, pin: Pin, *, owner_uid: int | None
    ) -> AsyncGenerator[PrefillProgress, None]:
        """Compute a pin's blocks that are not there, as a job; yield how far it is.

        Raises what ``Scheduler.submit`` does, and the error of the job.
        """
        job = await self._scheduler.submit(
            GenerationRequest(
                tokens=pin.tokens,
                for_everybody=True,
                max_tokens=1,
                sampling=Sampling(temperature=0.0, seed=0),
                priority=Priority.BATCH,
                owner_uid=owner_uid,
            )
        )
        async with aclosing(job.stream) as stream:
            async for event in stream:
                if isinstance(event, PrefillProgress):
                    yield event

    async def keep(self, pin: Pin) -> int:
        """Pin a prefix that has been computed, in place of one of its name; save what is there.

        Return its bytes on the disk.
        """
        old = self._pins.get((pin.owner, pin.name))
        if old is not None and old.tokens != pin.tokens:
            await self._forget(old, keep=frozenset(self._keys(pin)))
        mine = sorted(
            (p for p in self._pins.values() if p.owner == pin.owner), key=lambda p: p.made_at
        )
        if pin.owner != EVERYBODY and old is None and len(mine) >= MAX_OWN_PINS:
            await self._forget(mine[0])
        self._pins[pin.owner, pin.name] = pin
        self._note_pins()
        store = self._exchange.store
        if store is None or not await self._exchange.in_thread(lambda: store.add_pin(pin)):
            return 0
        keys = self._keys(pin)
        parents = [NO_PARENT, *keys]
        self._exchange.note_end(keys)
        scope = scope_digest(pin.owner.encode())
        await self._exchange.save(
            [BlockName(k, p, scope) for k, p in zip(keys, parents, strict=False)]
        )
        return store.bytes_of(keys)

    async def remove(self, name: str) -> int:
        """Forget what is pinned under a name; return the bytes of the disk that are free again.

        Raises PREFIX_NOT_FOUND, PREFIX_CONFIGURED.
        """
        if name in self._configured:
            raise _is_configured(name, "remove")
        pins = [pin for pin in self._pins.values() if pin.name == name]
        if not pins:
            raise LlamadError(ErrorKind.NOT_FOUND, "PREFIX_NOT_FOUND", f"no prefix {name!r}")
        return sum([await self._forget(pin) for pin in pins])

    async def _forget(self, pin: Pin, keep: frozenset[bytes] = frozenset()) -> int:
        """Remove a pin and the blocks that no other one has, nor ``keep``."""
        self._pins.pop((pin.owner, pin.name), None)
        self._note_pins()
        keys = [key for key in self._keys(pin) if key not in self._exchange.pinned | keep]
        self._exchange.forget(keys)
        store = self._exchange.store
        if store is None:
            return 0

        def work() -> int:
            try:
                store.remove_pin(pin)
            except OSError as error:
                log.warning(fields("pin not removed", name=pin.name, fault=error.strerror))
            return store.remove(keys)

        return await self._exchange.in_thread(work)

    def _note_pins(self) -> None:
        self._exchange.pinned = frozenset(
            key for pin in self._pins.values() for key in self._keys(pin)
        )
        for pin in self._pins.values():
            if pin.owner == EVERYBODY:
                self._pool.pin(self._keys(pin))

    def _keys(self, pin: Pin) -> list[bytes]:
        keys, n = BlockKeys(pin.owner.encode()), self._pool.block_tokens
        return [keys.get(i, pin.tokens, n) for i in range(len(pin.tokens) // n)]

    def _on_disk(self, pin: Pin) -> int:
        """Return how many of a pin's blocks are saved."""
        return (
            0
            if self._exchange.store is None
            else sum(map(self._exchange.store.has, self._keys(pin)))
        )

    # ---- telling ----------------------------------------------------------------------------

    async def list(self, owner: str) -> list[KeptPrefix]:
        """Return the prefixes of everybody and of an owner, those without a name last."""
        scope = owner_scope(owner)
        seen = (EVERYBODY, scope.decode())
        pins = sorted((p for p in self._pins.values() if p.owner in seen), key=lambda p: p.made_at)
        listed = [
            self._kept(pin.name, self._keys(pin), pin.owner == seen[0], time.time() - pin.made_at)
            for pin in pins
        ]
        store = self._exchange.store
        if store is not None:
            names = await self._exchange.in_thread(store.names)
            own = {
                n.key: n
                for n in names
                if n.scope == scope_digest(scope) and n.key not in self._exchange.pinned
            }
            leaves = own.keys() - {name.parent for name in own.values()}
            for leaf in [key for key in own if key in leaves]:
                listed.append(self._kept("", _chain(leaf, own), False, store.age_seconds(leaf)))
        return listed

    def disk_bytes(self) -> dict[str, int]:
        """Return what the disk holds of this model, and was written to and read from it."""
        store = self._exchange.store
        if store is None:
            return {}
        return {
            "bytes_on_disk": store.bytes_on_disk,
            "bytes_written": store.bytes_written,
            "bytes_read": store.bytes_read,
        }

    def _kept(
        self, name: str, keys: Sequence[bytes], for_everybody: bool, age_seconds: float
    ) -> KeptPrefix:
        store = self._exchange.store
        return KeptPrefix(
            name=name,
            tokens=len(keys) * self._pool.block_tokens,
            bytes_on_disk=0 if store is None else store.bytes_of(keys),
            uses=self._exchange.uses[keys[-1]],
            for_everybody=for_everybody,
            in_memory=self._pool.holds(keys),
            age_seconds=max(0.0, age_seconds),
        )


def _chain(leaf: bytes, names: Mapping[bytes, BlockName]) -> list[bytes]:
    """Return the keys from the first block that is there to a leaf."""
    keys: list[bytes] = []
    name = names.get(leaf)
    while name is not None and len(keys) < len(names):
        keys.append(name.key)
        name = names.get(name.parent)
    return keys[::-1]


def _is_configured(name: str, doing: str) -> LlamadError:
    return LlamadError(
        ErrorKind.STATE,
        "PREFIX_CONFIGURED",
        f"prefix {name!r} is configured: {doing} [prefixes.{name}] in llamad.toml, and restart",
    )
