"""A file system in memory that forgets at a power cut whatever was not synced.

Speaks FUSE's protocol (linux/fuse.h), as memory/failing_disk.py does. One directory with files.
What ``fsync`` was called for survives ``cut``: the content of a file by its own sync, a name
(created, renamed or removed) only by a sync of the directory. Real file systems forget less. Needs
root.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

_ROOT_ID = 1
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _UNLINK, _RENAME = 1, 2, 3, 4, 10, 12
_OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT = 14, 15, 16, 17, 18, 20, 25, 26
_OPENDIR, _READDIR, _RELEASEDIR, _FSYNCDIR, _CREATE = 27, 28, 29, 30, 35
_INTERRUPT, _DESTROY, _BATCH_FORGET, _RENAME2 = 36, 38, 42, 45
_SILENT = (_FORGET, _BATCH_FORGET, _INTERRUPT)  # requests without an answer
_IN_HEADER, _OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_WRITE_IN, _READ_IN, _SETATTR_IN = (
    struct.Struct("<QQIIQII"), struct.Struct("<QQI"), struct.Struct("<IIQQ"),
)  # fmt: skip
_SET_SIZE = 1 << 3
_MAX_WRITE = 1 << 17
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2


@dataclass(eq=False)
class _File:
    id: int
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


class ForgetfulDisk:
    """The file system, mounted at ``folder`` from ``mount`` to ``cut`` or ``unmount``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost_bytes = 0  # that were written and not synced, over all cuts
        self.syncs = 0
        self._names: dict[str, _File] = {}
        self._synced_names: dict[str, _File] = {}
        self._files: dict[int, _File] = {}
        self._next_id = _ROOT_ID + 1
        self._device = -1
        self._thread: threading.Thread | None = None

    def mount(self) -> None:
        """Show the files."""
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0"
        libc = ctypes.CDLL(None, use_errno=True)
        flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
        if libc.mount(b"forgetful", os.fsencode(self.folder), b"fuse", flags, options.encode()):
            raise OSError(ctypes.get_errno(), f"cannot mount {self.folder}")
        self._thread = threading.Thread(target=self._serve, name="forgetful-disk", daemon=True)
        self._thread.start()

    def unmount(self) -> None:
        """Hide the files, also from who has them open, and keep them as they are."""
        assert self._thread is not None
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(self.folder), _MNT_DETACH):
            raise OSError(ctypes.get_errno(), f"cannot unmount {self.folder}")
        self._thread.join(10)
        os.close(self._device)

    def cut(self) -> None:
        """Lose the power, with everybody who had files open dead, and come back."""
        self.unmount()
        self._names = dict(self._synced_names)
        for file in self._names.values():
            self.lost_bytes += sum(a != b for a, b in zip(file.data, file.synced, strict=False))
            self.lost_bytes += max(0, len(file.data) - len(file.synced))
            file.data = bytearray(file.synced)
        self.mount()

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
                body, error_number = self._answer(opcode, node, request[_IN_HEADER.size :]), 0
            except OSError as error:
                body, error_number = b"", error.errno or errno.EIO
            answer = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error_number, unique) + body
            try:
                os.write(self._device, answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # the request was interrupted
                    return

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:
        match opcode:
            case 26:  # INIT
                major, _, read_ahead, _ = struct.unpack_from("<IIII", body)
                return struct.pack(
                    "<IIIIHHIIHHI28x", major, 31, read_ahead, 0, 16, 12, _MAX_WRITE, 1, 0, 0, 0
                )
            case 1:  # LOOKUP
                return self._entry(self._named(body.rstrip(b"\0").decode()))
            case 3:  # GETATTR
                return bytes(16) + self._attributes(node)
            case 4:  # SETATTR
                valid, _, _, size = _SETATTR_IN.unpack_from(body)
                if valid & _SET_SIZE:
                    data = self._files[node].data
                    data[size:] = bytes(max(0, size - len(data)))
                return bytes(16) + self._attributes(node)
            case 35:  # CREATE
                name = body[16:].rstrip(b"\0").decode()
                file = self._names[name] = _File(self._next_id)
                self._files[file.id] = file
                self._next_id += 1
                return self._entry(file) + bytes(16)
            case 10:  # UNLINK
                del self._names[self._named_key(body)]
                return b""
            case 12 | 45:  # RENAME, RENAME2
                old, new, _ = body[8 if opcode == _RENAME else 16 :].split(b"\0", 2)
                self._names[new.decode()] = self._named(old.decode())
                del self._names[old.decode()]
                return b""
            case 14 | 27:  # OPEN, OPENDIR
                return bytes(16)
            case 15:  # READ
                _, offset, size = _READ_IN.unpack_from(body)
                return bytes(self._files[node].data[offset : offset + size])
            case 16:  # WRITE
                _, offset, size, *_ = _WRITE_IN.unpack_from(body)
                data = self._files[node].data
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + size] = body[_WRITE_IN.size : _WRITE_IN.size + size]
                return struct.pack("<II", size, 0)
            case 20:  # FSYNC
                self.syncs += 1
                self._files[node].synced = bytes(self._files[node].data)
                return b""
            case 30:  # FSYNCDIR
                self._synced_names = dict(self._names)
                return b""
            case 28:  # READDIR
                return self._list(_READ_IN.unpack_from(body)[1])
            case 17:  # STATFS
                return struct.pack(
                    "<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 99, 99, 4096, 255, 4096, 0
                )
            case 18 | 29 | 25 | 38:  # RELEASE, RELEASEDIR, FLUSH, DESTROY
                return b""
            case _:
                raise OSError(errno.ENOSYS, "not implemented")

    def _named(self, name: str) -> _File:
        if name not in self._names:
            raise OSError(errno.ENOENT, "no such file")
        return self._names[name]

    def _named_key(self, body: bytes) -> str:
        name = body.rstrip(b"\0").decode()
        self._named(name)
        return name

    def _list(self, offset: int) -> bytes:
        entries = b""
        for i, (name, file) in enumerate(list(self._names.items())[offset:], offset + 1):
            encoded = name.encode()
            entry = struct.pack("<QQII", file.id, i, len(encoded), stat.S_IFREG >> 12) + encoded
            entries += entry + bytes(-len(entry) % 8)
            if len(entries) > 3000:
                break
        return entries

    def _entry(self, file: _File) -> bytes:
        return struct.pack("<QQQQII", file.id, 0, 0, 0, 0, 0) + self._attributes(file.id)

    def _attributes(self, node: int) -> bytes:
        is_file = node != _ROOT_ID
        size = len(self._files[node].data) if is_file else 0
        mode = (stat.S_IFREG | 0o600) if is_file else (stat.S_IFDIR | 0o700)
        numbers = (node, size, -(-size // 512), 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
        return struct.pack("<QQQQQQIIIIIIIIII", *numbers)
