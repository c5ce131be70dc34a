"""Metadata values of GGUF: their types, and Python values to their bytes and back.

The layout is that of ggml's docs/gguf.md, "gguf_metadata_value_type": little-endian scalars; a
string is a uint64 length and its bytes. Text that is no UTF-8 is surrogate-escaped, so that it
comes back as the same bytes. Opens no file: ``bindings`` reads one, ``gguf.writer`` writes
one.
"""

import enum
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast, overload

_LENGTH_BYTES = 8  # before a string


class StringArray(Sequence[str]):
    """An array of strings as it lies in the file; each is decoded when it is asked for.

    A vocabulary of 262,144 tokens takes 5 MiB like this, as a list of ``str`` 24 MiB. Equal to any
    list or StringArray of the same strings.
    """

    __slots__ = ("_data", "_starts")

    def __init__(self, data: bytes, count: int) -> None:
        """Find ``count`` strings: each is a length, uint64, and that many bytes, as was checked."""
        self._data = data
        self._starts = array("I" if len(data) < 1 << 32 else "Q", [0])
        offset = 0
        for _ in range(count):
            start = offset + _LENGTH_BYTES
            offset = start + int.from_bytes(data[offset:start], "little")
            self._starts.append(offset)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[i] for i in places]
        start, end = self._starts[places] + _LENGTH_BYTES, self._starts[places + 1]
        return self._data[start:end].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        data = self._data
        for start, end in pairwise(self._starts):
            yield data[start + _LENGTH_BYTES : end].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self._data == other._data
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]


Scalar = bool | int | float | str
MetadataValue = Scalar | list["MetadataValue"] | StringArray


class ValueType(enum.IntEnum):
    """The types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_CODES: dict[int, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One metadata entry as it lies in a file: what a copy needs to change no byte of it."""

    key: str
    type_id: int  # ValueType
    element_type_id: int  # of an array, else equal to type_id
    count: int  # elements of an array, else 1
    data: bytes  # the value without its type, and without the length of a string or an array

    def decode(self) -> MetadataValue:
        """Return the value in Python's types."""
        if self.type_id == ValueType.STRING:
            return self.data.decode("utf-8", "surrogateescape")
        if self.type_id != ValueType.ARRAY:
            return cast(Scalar, struct.unpack("<" + _CODES[self.type_id], self.data)[0])
        if self.element_type_id == ValueType.STRING:
            return StringArray(self.data, self.count)
        return list(struct.unpack(f"<{self.count}{_CODES[self.element_type_id]}", self.data))

    def encode(self) -> bytes:
        """Return type, lengths and value as they follow the key in a file."""
        head = struct.pack("<I", self.type_id)
        if self.type_id == ValueType.ARRAY:
            head += struct.pack("<IQ", self.element_type_id, self.count)
        elif self.type_id == ValueType.STRING:
            head += struct.pack("<Q", len(self.data))
        return head + self.data


def raw_scalar(key: str, value: Scalar, value_type: ValueType) -> RawEntry:
    """Return an entry of one value. Raises ValueError for text that is to be a number."""
    data = encode_scalar(value, value_type)
    if value_type == ValueType.STRING:
        data = data[_LENGTH_BYTES:]
    return RawEntry(key, value_type, value_type, 1, data)


def raw_array(key: str, values: Sequence[Scalar], element_type: ValueType) -> RawEntry:
    """Return an entry of several values of one type."""
    data = b"".join(encode_scalar(value, element_type) for value in values)
    return RawEntry(key, ValueType.ARRAY, element_type, len(values), data)


def encode_string(text: str) -> bytes:
    """Return a string's length and bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def encode_scalar(value: Scalar, value_type: ValueType) -> bytes:
    """Return a scalar's bytes. Raises ValueError for text that is to be a number."""
    if isinstance(value, str):
        if value_type != ValueType.STRING:
            raise ValueError(f"{value!r} is no {value_type.name}")
        return encode_string(value)
    return struct.pack("<" + _CODES[value_type], value)
