"""A file system served by a thread of a test, over FUSE's protocol (linux/fuse.h) on /dev/fuse.

A kernel need not have the device mapper, whose targets would do the same below a real file system.
Owns the mount, the reading of requests and the form of the answers; what the file system holds is a
subclass's, in ``answer``. What that raises as OSError the program sees. Needs root.
"""

import ctypes
import enum
import errno
import os
import stat
import struct
import threading
from pathlib import Path

ROOT_ID = 1  # the node of the folder that is mounted


class Request(enum.IntEnum):
    """The requests that some file system here answers (enum fuse_opcode)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    RENAME2 = 45


_SILENT = (Request.FORGET, Request.BATCH_FORGET, Request.INTERRUPT)  # they have no answer
_IN_HEADER, _OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_READ_IN, _WRITE_IN = struct.Struct("<QQI"), struct.Struct("<QQIIQII")
_MAX_WRITE = 1 << 17
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MNT_DETACH = 1, 2, 4, 4096, 2  # sys/mount.h


class FuseFileSystem:
    """A file system from ``mount`` to ``unmount``; a subclass has ``answer`` and ``look``."""

    def __init__(self, name: str, *, read_only: bool = False, valid_seconds: int = 0) -> None:
        """``valid_seconds``: so long the kernel need not ask again for a name or an attribute."""
        self._name = name
        self._read_only = read_only
        self._valid_seconds = valid_seconds
        self._device = -1
        self._thread: threading.Thread | None = None

    def mount(self, folder: Path) -> None:
        """Show it at a folder, to all users."""
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if self._read_only else 0)
        _mount(self._name.encode(), folder, b"fuse", flags, options)
        self._thread = threading.Thread(target=self._serve, name=f"{self._name}-disk", daemon=True)
        self._thread.start()

    def unmount(self, folder: Path) -> None:
        """Hide it, also from who has something of it open, and end the thread."""
        assert self._thread is not None
        unmount(folder)
        self._thread.join(10)
        os.close(self._device)

    # ---- what a subclass has ---------------------------------------------------------------------

    def answer(self, request: Request, node: int, body: bytes) -> bytes:
        """Return the body of the answer to a request for a node. Raises OSError."""
        match request:
            case Request.INIT:
                major, _, read_ahead, _ = struct.unpack_from("<IIII", body)
                return struct.pack(
                    "<IIIIHHIIHHI28x", major, 31, read_ahead, 0, 16, 12, _MAX_WRITE, 1, 0, 0, 0
                )
            case Request.GETATTR:
                return self.attributes(node)
            case Request.OPEN | Request.OPENDIR:
                return bytes(16)
            case Request.STATFS:
                n_blocks = 0 if self._read_only else 1 << 20
                return struct.pack("<QQQQQIIII24x", *[n_blocks] * 3, 99, 99, 4096, 255, 4096, 0)
            case Request.RELEASE | Request.RELEASEDIR | Request.FLUSH | Request.DESTROY:
                return b""
        raise OSError(errno.ENOSYS, "not implemented")

    def look(self, node: int) -> tuple[int, int, float]:
        """Return mode, bytes, and seconds since 1970 of the last change of a node."""
        raise NotImplementedError

    # ---- bodies ----------------------------------------------------------------------------------

    def attributes(self, node: int) -> bytes:
        """Return a node's attributes, as GETATTR and SETATTR answer (fuse_attr_out)."""
        return struct.pack("<QQ", self._valid_seconds, 0) + self._attributes(node)

    def entry(self, node: int) -> bytes:
        """Return a node by its name, as LOOKUP, MKDIR and CREATE answer (fuse_entry_out)."""
        valid = (self._valid_seconds, self._valid_seconds)
        return struct.pack("<QQQQII", node, 0, *valid, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        mode, size, changed = self.look(node)
        seconds, nanoseconds = int(changed), int(changed % 1 * 1e9)
        numbers = (node, size, -(-size // 512), *[seconds] * 3, *[nanoseconds] * 3)
        return struct.pack("<QQQQQQIIIIIIIIII", *numbers, mode, 1, 0, 0, 0, 4096, 0)

    # ---- the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _MAX_WRITE + 4096)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
            if opcode in _SILENT:
                continue
            try:
                body, fault = self._answer(opcode, node, request[_IN_HEADER.size :]), 0
            except OSError as error:
                body, fault = b"", error.errno or errno.EIO
            answer = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -fault, unique) + body
            try:
                os.write(self._device, answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # the request was interrupted
                    return

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:
        try:
            request = Request(opcode)
        except ValueError:
            raise OSError(errno.ENOSYS, "not implemented") from None
        return self.answer(request, node, body)


def name_in(body: bytes) -> str:
    """Return the name that ends a request's body."""
    return body.rstrip(b"\0").decode()


def range_in(body: bytes) -> tuple[int, int]:
    """Return offset and size of a READ or READDIR."""
    _, offset, size = _READ_IN.unpack_from(body)
    return offset, size


def written_in(body: bytes) -> tuple[int, bytes]:
    """Return offset and data of a WRITE."""
    _, offset, size, *_ = _WRITE_IN.unpack_from(body)
    return offset, body[_WRITE_IN.size : _WRITE_IN.size + size]


def listed(nodes: list[tuple[str, int, bool]], offset: int, size: int) -> bytes:
    """Return the answer to a READDIR: names, nodes, and whether each is a folder."""
    entries = b""
    for i, (name, node, is_folder) in enumerate(nodes[offset:], offset + 1):
        encoded = name.encode()
        kind = (stat.S_IFDIR if is_folder else stat.S_IFREG) >> 12
        entry = struct.pack("<QQII", node, i, len(encoded), kind) + encoded
        entry += bytes(-len(entry) % 8)
        if len(entries) + len(entry) > size:
            break
        entries += entry
    return entries


def bind(source: Path, target: Path) -> None:
    """Let an existing file or folder appear at another path too."""
    _mount(os.fsencode(source), target, None, _MS_BIND, "")


def unmount(path: Path) -> None:
    """Take away what is mounted there, also from who has it open."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH):
        raise OSError(ctypes.get_errno(), f"cannot unmount {path}")


def _mount(source: bytes, target: Path, kind: bytes | None, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount {target}")
