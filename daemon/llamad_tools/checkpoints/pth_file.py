"""A .pth of torch 1.6 or later: a zip of stored members, one of them the pickle of the tensors.

Storages are read where they lie in the archive (PKWARE APPNOTE 6.3, 4.3.7: the local header says
how long it is), never unpacked. Their CRC-32 is checked along the way when they are read from
beginning to end, as the conversion does.
"""

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.pickle_tensors import (
    MAX_PICKLE_BYTES,
    PickledTensor,
    Storage,
    read_tensors,
)
from llamad_tools.checkpoints.source import Rows, SourceFile, SourceTensor, corrupt, unsupported

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_OLD_TORCH = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickled magic number 0x1950a86a20f9469cfc6c
)
_FLOATS = ("F32", "F16", "BF16")
_MAX_DIRECTORY_BYTES = 4 << 20  # of the zip; LLaMA-65B's has 80 KB


@dataclass(slots=True)
class _Member:
    """Where a storage lies, and the checksum of what was read so far."""

    name: str
    offset: int  # of its first byte in the archive
    n_bytes: int
    crc: int  # as the directory has it
    next_offset: int = 0  # within the member; where a sequential reader goes on
    crc_so_far: int = 0


class _ZipReader:
    """A file as ``zipfile`` reads its directory; a huge one would be taken into memory whole."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.n_bytes}
        position = start[whence] + offset
        if position < 0:
            raise OSError("before the beginning")  # which zipfile expects of short files
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def read(self, n_bytes: int = -1, /) -> bytes:
        left = max(self._file.n_bytes - self._position, 0)
        n_bytes = left if n_bytes < 0 else min(n_bytes, left)
        if n_bytes > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory is larger than {_MAX_DIRECTORY_BYTES} bytes")
        data = self._file.read(self._position, n_bytes)
        self._position += n_bytes
        return data


class PthFile:
    """An open .pth. ``tensors``: what it holds, by name, in file order."""

    def __init__(self, path: Path) -> None:
        """Read the directory and the pickle; raises LlamadError that names the path."""
        self.path = path
        self._file = SourceFile(path)
        try:
            _check_kind(self._file)
            self._members, pickled = self._read_directory()
            self._tensors = read_tensors(pickled, path)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        """Return the names of the tensors, in file order."""
        return list(self._tensors)

    def tensor(self, name: str) -> SourceTensor:
        """Return a tensor under its own name.

        Raises LlamadError: no floats, not contiguous, or beyond its storage.
        """
        tensor = self._tensors[name]
        kind = tensor.storage.kind
        if kind.type_name not in _FLOATS or len(tensor.shape) not in (1, 2) or 0 in tensor.shape:
            raise unsupported(
                self.path, f"{name} is {kind.type_name} of shape {tensor.shape}, not weights"
            )
        if tensor.strides != _contiguous(tensor.shape):
            raise unsupported(
                self.path, f"{name} of shape {tensor.shape} has strides {tensor.strides}"
            )
        member = self._member(name, tensor)
        row_bytes = tensor.shape[-1] * kind.item_bytes
        start_byte = tensor.offset * kind.item_bytes

        def read_rows(start: int, stop: int) -> Rows:
            data = self._read(member, start_byte + start * row_bytes, (stop - start) * row_bytes)
            return np.frombuffer(data, np.uint8).reshape(stop - start, row_bytes)

        return SourceTensor(name, tensor.shape, kind.type_name, read_rows)

    def _read_directory(self) -> tuple[dict[str, _Member], bytes]:
        """Return the storages by key and the bytes of the pickle."""
        try:
            with zipfile.ZipFile(_ZipReader(self._file)) as archive:
                infos = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise corrupt(self.path, f"is a broken zip, cut short perhaps: {error}") from None
        pickles = [name for name in infos if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise corrupt(self.path, f"has {len(pickles)} members data.pkl, must have one")
        prefix = pickles[0].removesuffix("data.pkl")
        order = infos.get(prefix + "byteorder")
        if order is not None and self._read_whole(order, len("little")) != b"little":
            raise unsupported(self.path, "its numbers are not little-endian")
        folder = prefix + "data/"
        members = {
            name.removeprefix(folder): self._locate(info)
            for name, info in infos.items()
            if name.startswith(folder)
        }
        return members, self._read_whole(infos[pickles[0]], MAX_PICKLE_BYTES)

    def _read_whole(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        member = self._locate(info)
        if member.n_bytes > limit:
            raise corrupt(self.path, f"member {info.filename} is larger than {limit} bytes")
        return self._read(member, 0, member.n_bytes)

    def _locate(self, info: zipfile.ZipInfo) -> _Member:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise unsupported(self.path, f"member {info.filename} is compressed or encrypted")
        header = self._file.read(info.header_offset, _LOCAL_HEADER.size)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise corrupt(self.path, f"member {info.filename} has no local header")
        offset = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if offset + info.file_size > self._file.n_bytes:
            raise corrupt(self.path, f"member {info.filename} reaches beyond the end of the file")
        return _Member(info.filename, offset, info.file_size, info.CRC)

    def _member(self, name: str, tensor: PickledTensor) -> _Member:
        storage: Storage = tensor.storage
        member = self._members.get(storage.key)
        if member is None:
            raise corrupt(self.path, f"storage {storage.key} of {name} is missing")
        n_bytes = storage.n_items * storage.kind.item_bytes
        if member.n_bytes != n_bytes:
            raise corrupt(self.path, f"storage of {name} has {member.n_bytes} bytes, not {n_bytes}")
        n_items = int(np.prod(tensor.shape, dtype=object))
        if tensor.offset + n_items > storage.n_items:
            raise corrupt(
                self.path,
                f"{name} of shape {tensor.shape} at {tensor.offset} reaches beyond its storage "
                f"of {storage.n_items} numbers",
            )
        return member

    def _read(self, member: _Member, offset: int, n_bytes: int) -> bytes:
        data = self._file.read(member.offset + offset, n_bytes)
        if offset == 0:
            member.next_offset, member.crc_so_far = 0, 0
        if offset == member.next_offset:
            member.crc_so_far = zlib.crc32(data, member.crc_so_far)
            member.next_offset += n_bytes
            if member.next_offset == member.n_bytes and member.crc_so_far != member.crc:
                raise corrupt(self.path, f"member {member.name} does not match its checksum")
        return data


def _check_kind(file: SourceFile) -> None:
    head = file.read(0, min(file.n_bytes, len(_OLD_TORCH)))
    if head == _OLD_TORCH:
        raise unsupported(
            file.path,
            "is in the format of torch before 1.6, which is no zip: "
            "load it with torch and torch.save it again",
        )
    if not head.startswith(b"PK"):
        raise corrupt(file.path, "is no file of torch.save: it does not begin as a zip")


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a row-major tensor, in items."""
    strides: list[int] = []
    step = 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))
