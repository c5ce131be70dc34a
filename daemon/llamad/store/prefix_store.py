"""The saved KV blocks and pins of one model: ``prefixes/<model digest>/`` in the state directory.

Owns the directory, and its bounds: bytes in all, over all models, and bytes written a day. Where
there is no room the block that was used longest ago goes first, other models' before this one's;
what is pinned stays. A file that is damaged, or of another version, is removed with a line in the
journal, and what it held is computed again. What the disk refuses is told once, and tried again
later. Blocking: one thread uses it, but for ``has``, which any may.
"""

import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from llamad.logs import fields
from llamad.sizes import compact_size
from llamad.small_file import sync_directory
from llamad.store.block_file import (
    HEADER_BYTES,
    KEY_BYTES,
    NEW_SUFFIX,
    SUFFIX,
    BlockFileError,
    BlockName,
    Identity,
    file_bytes,
    file_name,
    read_block,
    read_name,
    write_block,
)
from llamad.store.pin_file import SUFFIX as PIN_SUFFIX
from llamad.store.pin_file import Pin, PinFileError, read_pin, write_pin
from llamad.store.write_budget import WriteBudget

log = logging.getLogger(__name__)

BUDGET_FILE = "written-today"
LEAST_FREE_BYTES = 256 << 20  # of the disk, that are left to others
TOUCH_SECONDS = 86_400  # a file's time is set to its last use at most so often
RETRY_SECONDS = 60.0  # after the disk refused something


@dataclass(slots=True)
class _Saved:
    """A file with a block."""

    used: float  # the last time, in seconds since 1970
    n_bytes: int


class PrefixStore:
    """What is saved for one model; ``open`` first."""

    def __init__(
        self, root: Path, identity: Identity, *, max_bytes: int, bytes_per_day: int
    ) -> None:
        """Save below ``root``; ``max_bytes`` 0 saves no blocks, and reads those that are there."""
        self.directory = root / identity.model_digest
        self.pins: dict[tuple[str, str], Pin] = {}  # by owner and name
        self.bytes_on_disk = 0  # of the blocks of this model
        self.bytes_written = 0  # since it was opened, as the next one
        self.bytes_read = 0
        self.fault = ""  # why nothing is saved at the moment; empty: it is
        self._root = root
        self._identity = identity
        self._max_bytes = max_bytes
        self._budget = WriteBudget(root / BUDGET_FILE, bytes_per_day)
        self._blocks: OrderedDict[bytes, _Saved] = OrderedDict()  # by key, oldest use first
        self._names: dict[bytes, BlockName] = {}  # of those whose header was read
        self._others: list[
            tuple[float, int, Path]
        ] = []  # of other models: time, bytes; newest first
        self._retry_at = 0.0

    def open(self) -> None:
        """Find out what is there; leftovers of an interrupted write are removed. Raises OSError."""
        for directory in (self._root, self.directory):
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)
        for path in self.directory.glob(f"*{NEW_SUFFIX}"):
            path.unlink(missing_ok=True)
        for path in self.directory.glob(f"*{PIN_SUFFIX}"):
            self._open_pin(path)
        self._open_blocks()
        self._others = sorted(self._of_others(), reverse=True)

    def _open_pin(self, path: Path) -> None:
        try:
            pin = read_pin(path)
        except (PinFileError, OSError) as error:
            self._remove(path, str(error))
        else:
            self.pins[pin.owner, pin.name] = pin

    def _open_blocks(self) -> None:
        """Find the blocks of this version; others are of no use any more."""
        found, others = [], []
        for path in self.directory.glob(f"*{SUFFIX}"):
            key = _key_of(path, self._identity)
            if key is None:
                others.append(path)
            else:
                status = path.lstat()
                found.append((status.st_mtime, key, status.st_size))
        for path in others:
            path.unlink(missing_ok=True)
        if others:
            log.info(
                fields("prefixes of another version removed", n=len(others), at=str(self.directory))
            )
        self._blocks = OrderedDict((key, _Saved(used, size)) for used, key, size in sorted(found))
        self.bytes_on_disk = sum(saved.n_bytes for saved in self._blocks.values())

    def _of_others(self) -> Iterable[tuple[float, int, Path]]:
        for path in self._root.glob(f"*/*{SUFFIX}"):
            if path.parent != self.directory:
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    yield status.st_mtime, status.st_size, path

    # ---- blocks -----------------------------------------------------------------------------

    def has(self, key: bytes) -> bool:
        """Whether a block is saved. Any thread."""
        return key in self._blocks

    def has_local(self, key: bytes) -> bool:
        """Whether a block is saved with its local block. Any thread."""
        saved = self._blocks.get(key)
        return saved is not None and saved.n_bytes == file_bytes(self._identity, local=True)

    def bytes_of(self, keys: Iterable[bytes]) -> int:
        """Return the bytes that these blocks have on the disk. Any thread."""
        return sum(saved.n_bytes for key in keys if (saved := self._blocks.get(key)) is not None)

    def newest(self) -> list[bytes]:
        """Return the keys of all blocks, the one that was used last first."""
        return list(reversed(self._blocks))

    def age_seconds(self, key: bytes) -> float:
        """Return how long ago a block was used last; 0 for one that is not there. Any thread."""
        saved = self._blocks.get(key)
        return 0.0 if saved is None else max(0.0, time.time() - saved.used)

    def read(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return a block, and its local block, empty where that is not saved.

        None when it cannot be used, and then it is not there any more.
        """
        path = self._path(key)
        try:
            content = read_block(path, self._identity)
        except BlockFileError as error:
            self._forget(key)
            self._remove(path, str(error))
            return None
        except OSError as error:
            self._forget(key)
            log.warning(fields("prefix not read", file=str(path), fault=error.strerror))
            return None
        self.bytes_read += HEADER_BYTES + len(content)
        self.touch([key])
        size = self._identity.block_bytes
        return content[:size], content[size:]

    def write(self, name: BlockName, content: bytes, pinned: Collection[bytes]) -> bool:
        """Save a block, if there is room for it; ``pinned`` ones are not given up for that.

        content: the block, and its local block if it has one; that is added to one that was saved
        without. ``sync`` lets its name last.
        """
        need = HEADER_BYTES + len(content)
        if self.bytes_of([name.key]) >= need:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            fault = self._refusal(need, pinned)
            if not fault:
                write_block(self.directory, self._identity, name, content)
        except OSError as error:
            fault = f"{self.directory}: {error.strerror}"
        self._tell(fault)
        if fault:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        self._forget(name.key)
        self.bytes_written += need
        self.bytes_on_disk += need
        self._blocks[name.key] = _Saved(time.time(), need)
        self._names[name.key] = name
        return True

    def sync(self) -> None:
        """Let the names of what was written last."""
        try:
            sync_directory(self.directory)
        except OSError as error:
            self._tell(f"{self.directory}: {error.strerror}")

    def touch(self, keys: Iterable[bytes]) -> None:
        """Take note that blocks were used."""
        now = time.time()
        for key in keys:
            saved = self._blocks.get(key)
            if saved is None:
                continue
            self._blocks.move_to_end(key)
            if not 0 <= now - saved.used < TOUCH_SECONDS:
                saved.used = now
                with contextlib.suppress(OSError):
                    os.utime(self._path(key))

    def remove(self, keys: Iterable[bytes]) -> int:
        """Remove blocks; return the bytes that are free again."""
        freed = 0
        for key in keys:
            n_bytes = self._forget(key)
            if n_bytes:
                freed += n_bytes
                with contextlib.suppress(OSError):
                    self._path(key).unlink()
        return freed

    def names(self) -> list[BlockName]:
        """Return the names of all blocks; reads the headers that were not read yet."""
        for key in list(self._blocks):
            if key not in self._names:
                path = self._path(key)
                try:
                    self._names[key] = read_name(path, self._identity)
                except (BlockFileError, OSError) as error:
                    self._forget(key)
                    self._remove(path, str(error))
        return [self._names[key] for key in self._blocks]

    # ---- pins -------------------------------------------------------------------------------

    def add_pin(self, pin: Pin) -> bool:
        """Save a pin, in place of one of its name; False when it could not be saved."""
        self.pins[pin.owner, pin.name] = pin
        try:
            write_pin(self.directory, pin)
        except OSError as error:
            self._tell(f"{self.directory}: {error.strerror}")
            return False
        return True

    def remove_pin(self, pin: Pin) -> None:
        """Forget a pin; its blocks are removed apart. Raises OSError."""
        self.pins.pop((pin.owner, pin.name), None)
        (self.directory / (pin.file_name + PIN_SUFFIX)).unlink(missing_ok=True)
        sync_directory(self.directory)

    # ---- room -------------------------------------------------------------------------------

    def _refusal(self, need: int, pinned: Collection[bytes]) -> str:
        """Make room for so many bytes more, or return why there is none."""
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES + need:
            return (
                f"{self.directory}: less than {compact_size(LEAST_FREE_BYTES)} of the disk is free"
            )
        if not self._make_room(need, pinned):
            return f"prefix_cache.max_bytes = {self._max_bytes} is used up by what is pinned"
        if not self._budget.take(need):
            return "prefix_cache.write_bytes_per_day is used up for today"
        return ""

    def _make_room(self, need: int, pinned: Collection[bytes]) -> bool:
        in_all = self.bytes_on_disk + sum(size for _, size, _ in self._others)
        while in_all + need > self._max_bytes and self._others:
            _, size, path = self._others.pop()
            path.unlink(missing_ok=True)
            in_all -= size
        if in_all + need <= self._max_bytes:
            return True
        for key in [key for key in self._blocks if key not in pinned]:
            in_all -= self.remove([key])
            if in_all + need <= self._max_bytes:
                return True
        return False

    # ---- single files -----------------------------------------------------------------------

    def _path(self, key: bytes) -> Path:
        return self.directory / file_name(key, self._identity)

    def _forget(self, key: bytes) -> int:
        """Return the bytes that its file has; 0: there is none."""
        self._names.pop(key, None)
        saved = self._blocks.pop(key, None)
        n_bytes = 0 if saved is None else saved.n_bytes
        self.bytes_on_disk -= n_bytes
        return n_bytes

    def _remove(self, path: Path, fault: str) -> None:
        log.warning(fields("prefix removed", file=str(path), fault=fault))
        with contextlib.suppress(OSError):
            path.unlink()

    def _tell(self, fault: str) -> None:
        """Write one line when saving stops, for another reason than before."""
        if fault and fault != self.fault:
            log.warning(fields("prefix not saved", message=fault))
        self.fault = fault


def _key_of(path: Path, identity: Identity) -> bytes | None:
    """Return the key in a file's name; None for one of another version, or of nothing of ours."""
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(path.name[: 2 * KEY_BYTES])
        if path.name == file_name(key, identity):
            return key
    return None
