"""A file system in memory that forgets at a power cut whatever was not synced.

What ``fsync`` was called for survives ``cut``: the content of a file by its own sync; a name
(created, renamed or removed) by a sync of the folder that it is in, and of each folder above, whose
name is one too. Real file systems forget less. A rename from one folder into another is refused,
because its two halves would be forgotten apart. Needs root.
"""

import errno
import os
import stat
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fuse import ROOT_ID, FuseFileSystem, Request, listed, name_in, range_in, written_in

# fuse_setattr_in up to the times; fuse_rename_in, fuse_rename2_in, fuse_create_in, fuse_mkdir_in
_SETATTR_IN = struct.Struct("<IIQQQQQQIII")
_RENAME_IN, _RENAME2_IN = struct.Struct("<Q"), struct.Struct("<QII")
_CREATE_IN, _MKDIR_IN = struct.Struct("<IIII"), struct.Struct("<II")
_SET_SIZE, _SET_TIME, _SET_TIME_NOW = 1 << 3, 1 << 5, 1 << 8  # FATTR_SIZE, _MTIME, _MTIME_NOW


@dataclass(eq=False)
class _File:
    id: int
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    changed: float = field(default_factory=time.time)  # seconds since 1970; never forgotten


@dataclass(eq=False)
class _Folder:
    id: int
    names: "dict[str, _Node]" = field(default_factory=dict)
    synced: "dict[str, _Node]" = field(default_factory=dict)


_Node: TypeAlias = _File | _Folder


class ForgetfulDisk(FuseFileSystem):
    """The file system, mounted at ``folder`` from ``open`` to ``close``."""

    def __init__(self, folder: Path) -> None:
        super().__init__("forgetful")
        self.folder = folder
        self.lost_bytes = 0  # of files that were written and not synced, over all cuts
        self.lost_names = 0  # likewise
        self.syncs = 0
        self.refusal = 0  # the errno that whatever writes is refused with; 0: nothing is
        self._root = _Folder(ROOT_ID)
        self._nodes: dict[int, _Node] = {ROOT_ID: self._root}
        self._next_id = ROOT_ID + 1

    def open(self) -> None:
        """Show the files."""
        self.mount(self.folder)

    def close(self) -> None:
        """Hide the files, and keep them as they are."""
        self.unmount(self.folder)

    def cut(self) -> None:
        """Lose the power, with everybody who had files open dead, and come back."""
        self.close()
        self._forget(self._root)
        self.open()

    def _forget(self, node: _Node) -> None:
        """Let a node, and all that is still below it, be as it was synced."""
        if isinstance(node, _File):
            self.lost_bytes += sum(a != b for a, b in zip(node.data, node.synced, strict=False))
            self.lost_bytes += max(0, len(node.data) - len(node.synced))
            node.data = bytearray(node.synced)
            return
        self.lost_names += len(node.names.items() ^ node.synced.items())
        node.names = dict(node.synced)
        for below in node.names.values():
            self._forget(below)

    # ---- requests --------------------------------------------------------------------------------

    def answer(self, request: Request, node: int, body: bytes) -> bytes:
        """Answer what files and folders are asked."""
        if self.refusal and request in _WRITING:
            raise OSError(self.refusal, os.strerror(self.refusal))
        match request:
            case Request.LOOKUP:
                return self.entry(self._named(node, name_in(body)).id)
            case Request.SETATTR:
                self._set(self._nodes[node], body)
                return self.attributes(node)
            case Request.MKDIR:
                return self.entry(self._add(node, body[_MKDIR_IN.size :], _Folder(self._next_id)))
            case Request.CREATE:
                new = self._add(node, body[_CREATE_IN.size :], _File(self._next_id))
                return self.entry(new) + bytes(16)
            case Request.UNLINK | Request.RMDIR:
                self._remove(node, name_in(body))
                return b""
            case Request.RENAME:
                self._rename(node, body, _RENAME_IN.size)
                return b""
            case Request.RENAME2:
                self._rename(node, body, _RENAME2_IN.size)
                return b""
            case Request.READ:
                offset, size = range_in(body)
                return bytes(self._file(node).data[offset : offset + size])
            case Request.WRITE:
                offset, data = written_in(body)
                self._write(self._file(node), offset, data)
                return struct.pack("<II", len(data), 0)
            case Request.FSYNC:
                self.syncs += 1
                self._file(node).synced = bytes(self._file(node).data)
                return b""
            case Request.FSYNCDIR:
                self.syncs += 1
                self._folder(node).synced = dict(self._folder(node).names)
                return b""
            case Request.READDIR:
                nodes = [
                    (name, one.id, isinstance(one, _Folder))
                    for name, one in self._folder(node).names.items()
                ]
                return listed(nodes, *range_in(body))
        return super().answer(request, node, body)

    def look(self, node: int) -> tuple[int, int, float]:
        """Return mode, bytes and time of a file or folder."""
        one = self._nodes[node]
        if isinstance(one, _File):
            return stat.S_IFREG | 0o600, len(one.data), one.changed
        return stat.S_IFDIR | 0o700, 0, 0.0

    def _file(self, node: int) -> _File:
        one = self._nodes[node]
        if not isinstance(one, _File):
            raise OSError(errno.EISDIR, "it is a folder")
        return one

    def _folder(self, node: int) -> _Folder:
        one = self._nodes[node]
        if not isinstance(one, _Folder):
            raise OSError(errno.ENOTDIR, "it is a file")
        return one

    def _named(self, folder: int, name: str) -> _Node:
        found = self._folder(folder).names.get(name)
        if found is None:
            raise OSError(errno.ENOENT, "no such file")
        return found

    def _add(self, folder: int, name: bytes, node: _Node) -> int:
        self._folder(folder).names[name_in(name)] = self._nodes[node.id] = node
        self._next_id += 1
        return node.id

    def _remove(self, folder: int, name: str) -> None:
        node = self._named(folder, name)
        if isinstance(node, _Folder) and node.names:
            raise OSError(errno.ENOTEMPTY, "the folder is not empty")
        del self._folder(folder).names[name]

    def _rename(self, folder: int, body: bytes, start: int) -> None:
        old, new, _ = body[start:].split(b"\0", 2)
        if _RENAME_IN.unpack_from(body)[0] != folder:
            raise OSError(errno.EXDEV, "a name goes into no other folder")
        names = self._folder(folder).names
        self._named(folder, old.decode())
        names[new.decode()] = names.pop(old.decode())

    def _write(self, file: _File, offset: int, data: bytes) -> None:
        file.data.extend(bytes(max(0, offset - len(file.data))))
        file.data[offset : offset + len(data)] = data
        file.changed = time.time()

    def _set(self, node: _Node, body: bytes) -> None:
        valid, _, _, size, _, _, seconds, _, _, nanoseconds, _ = _SETATTR_IN.unpack_from(body)
        if not isinstance(node, _File):
            return
        if valid & _SET_SIZE:
            node.data[size:] = bytes(max(0, size - len(node.data)))
        if valid & _SET_TIME_NOW:
            node.changed = time.time()
        elif valid & _SET_TIME:
            node.changed = seconds + nanoseconds / 1e9


_WRITING = (
    Request.CREATE,
    Request.FSYNC,
    Request.FSYNCDIR,
    Request.MKDIR,
    Request.RENAME,
    Request.RENAME2,
    Request.RMDIR,
    Request.SETATTR,
    Request.UNLINK,
    Request.WRITE,
)
