"""A KV block as a file: the keys and values of 32 tokens, under the block's key.

Owns the format. A file fits one model, KV type, engine version and layout, its *identity*; another
one's bits would be of no use; its name says which. The header has a checksum of its own and one of
the content, so that no damaged byte is ever computed with. The content is the block, and behind it
its *tail* if it had one: the local block (schedule/local_blocks.py), or the state behind its tokens
(schedule/states.py); no model has both. So a file has one of two sizes, and nothing in it says how
much to read.
Blocking, as everything that waits for a disk.
"""

import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

VERSION = 1
SUFFIX = ".kv"
NEW_SUFFIX = ".new"  # of a file that is being written
KEY_BYTES = 16
_HEADER = struct.Struct("<8s32s16s16s16s32s")  # magic, identity, key, parent, scope, content
_MAGIC = b"LLDKV\0\0%c" % VERSION
SUM_BYTES = 32  # of the header, behind it
HEADER_BYTES = _HEADER.size + SUM_BYTES


class BlockFileError(Exception):
    """A file that is not what its name says; the message has the fault."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a block's bits depend on, beside its tokens."""

    model_digest: str
    kv_type: str
    engine_version: str
    block_bytes: int
    rope: str = ""  # which of a model's RoPEs, where the context decides it
    local_bytes: int = 0  # of a local block, or of a state; 0: the model has neither

    def digest(self) -> bytes:
        """Return 32 bytes that tell it from others."""
        text = (
            f"{VERSION} {self.model_digest} {self.kv_type} {self.engine_version} {self.block_bytes}"
        )
        if self.rope:  # without, the files of versions before are still found
            text += f" {self.rope}"
        if self.local_bytes:  # likewise
            text += f" {self.local_bytes}"
        return _sum(text.encode())


@dataclass(frozen=True, slots=True)
class BlockName:
    """Which block: its key, that of the block before it (zeros: none), and whose it is."""

    key: bytes
    parent: bytes
    scope: bytes  # KEY_BYTES


def file_name(key: bytes, identity: Identity) -> str:
    """Return the name of a block's file."""
    return f"{key.hex()}-{identity.digest()[:4].hex()}{SUFFIX}"


def file_bytes(identity: Identity, *, local: bool = False) -> int:
    """Return the size of a file; local: of one with a local block."""
    return HEADER_BYTES + identity.block_bytes + (identity.local_bytes if local else 0)


def write_block(directory: Path, identity: Identity, name: BlockName, content: bytes) -> None:
    """Write a block beside its place, and put it there when it is on the disk. Raises OSError.

    The caller syncs the directory, once for many files.
    """
    fields = (_MAGIC, identity.digest(), name.key, name.parent, name.scope, _sum(content))
    header = _HEADER.pack(*fields)
    path = directory / file_name(name.key, identity)
    fresh = path.with_name(path.name + NEW_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(fresh, flags, 0o600)
        try:
            _write_all(fd, header + _sum(header))
            _write_all(fd, content)
            os.fsync(fd)
            # the page cache belongs to the model
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def read_name(path: Path, identity: Identity) -> BlockName:
    """Return what a file's header says, without its content. Raises BlockFileError, OSError."""
    fd = _open(path, identity)
    try:
        return _check_header(path, identity, os.read(fd, HEADER_BYTES))[0]
    finally:
        os.close(fd)


def read_block(path: Path, identity: Identity) -> bytes:
    """Return a block's content, every byte of it checked. Raises BlockFileError, OSError."""
    fd = _open(path, identity)
    try:
        data = _read_all(fd, file_bytes(identity, local=True))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    _, content_sum = _check_header(path, identity, data[:HEADER_BYTES])
    content = data[HEADER_BYTES:]
    if _sum(content) != content_sum:
        raise BlockFileError("its content does not match its checksum")
    return content


def _open(path: Path, identity: Identity) -> int:
    """Open a file of a size that it may have."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    sizes = sorted({file_bytes(identity, local=local) for local in (False, True)})
    if size not in sizes:
        os.close(fd)
        allowed = " or ".join(map(str, sizes))
        raise BlockFileError(f"it has {size} bytes, must have {allowed}")
    return fd


def _check_header(path: Path, identity: Identity, data: bytes) -> tuple[BlockName, bytes]:
    """Return the name and the content's checksum."""
    header, header_sum = data[: _HEADER.size], data[_HEADER.size :]
    if _sum(header) != header_sum:
        raise BlockFileError("its header does not match its checksum")
    magic, owner, key, parent, scope, content_sum = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise BlockFileError("it is of another version of the format")
    if owner != identity.digest():
        raise BlockFileError("it is of another model, KV type or engine")
    name = BlockName(key, parent, scope)
    if file_name(key, identity) != path.name:
        raise BlockFileError("it has the key of another file")
    return name, content_sum


def _sum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=SUM_BYTES).digest()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_all(fd: int, n_bytes: int) -> bytes:
    """Return so many bytes, or fewer where the file ends."""
    parts = []
    while n_bytes and (part := os.read(fd, n_bytes)):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)
