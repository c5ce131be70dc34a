"""The head of a GGUF file while it arrives: where it ends, and the architecture, which is early.

It steps over the entries and the tensor table and keeps nothing of them; the engine reads them when
they are there (store/head_check.py). Format: GGUF versions 2 and 3,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import struct
from collections.abc import Generator

from llamad.gguf.value import ValueType

MAX_BYTES = 64 << 20  # of a head: vocabularies of 260,000 tokens take 12 MB
ARCHITECTURE_KEY = b"general.architecture"

_SIZES = {
    ValueType.UINT8: 1, ValueType.INT8: 1, ValueType.BOOL: 1,
    ValueType.UINT16: 2, ValueType.INT16: 2,
    ValueType.UINT32: 4, ValueType.INT32: 4, ValueType.FLOAT32: 4,
    ValueType.UINT64: 8, ValueType.INT64: 8, ValueType.FLOAT64: 8,
}  # fmt: skip
_FIXED_BYTES = 24  # magic, version, number of tensors, number of entries

Steps = Generator[None, None, None]


class ArrivingHead:
    """Takes the bytes of a file in order. ``data``: those of the head, and what came with them."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.architecture: str | None = None
        self.n_bytes: int | None = None  # of the whole head, padding not counted; None: not yet
        self.lost = False  # it is too long, or no head: no further byte is kept
        self._at = 0
        self._steps = self._scan()

    @property
    def ended(self) -> bool:
        """Whether further bytes change nothing."""
        return self.lost or self.n_bytes is not None

    def feed(self, data: bytes) -> None:
        """Take the next bytes and step over what is complete."""
        if self.ended:
            return
        self.data += data
        try:
            next(self._steps)
        except StopIteration:
            self.n_bytes = self._at
        except (KeyError, ValueError):  # the engine has the words for what is wrong
            self._lose()
        if self.n_bytes is None and len(self.data) > MAX_BYTES:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        self.data = bytearray()

    # Each of these waits, by yielding, until the bytes that it needs have come.

    def _scan(self) -> Steps:
        yield from self._need(_FIXED_BYTES)
        n_tensors, n_entries = struct.unpack_from("<QQ", self.data, 8)
        self._at = _FIXED_BYTES
        for _ in range(n_entries):
            yield from self._entry()
        for _ in range(n_tensors):
            yield from self._string()
            yield from self._need(4)
            [n_dims] = struct.unpack_from("<I", self.data, self._at)
            self._at += 4 + n_dims * 8 + 4 + 8  # the dimensions, the type, the offset
            yield from self._need(0)

    def _entry(self) -> Steps:
        key = self._at
        yield from self._string()
        named = self.data[key + 8 : self._at] == ARCHITECTURE_KEY
        yield from self._need(4)
        [kind] = struct.unpack_from("<I", self.data, self._at)
        self._at += 4
        value = self._at
        if kind == ValueType.STRING:
            yield from self._string()
            if named:
                self.architecture = self.data[value + 8 : self._at].decode("utf-8", "replace")
        elif kind == ValueType.ARRAY:
            yield from self._array()
        else:
            yield from self._skip(_SIZES[ValueType(kind)])

    def _array(self) -> Steps:
        yield from self._need(12)
        kind, count = struct.unpack_from("<IQ", self.data, self._at)
        self._at += 12
        if kind != ValueType.STRING:
            yield from self._skip(_SIZES[ValueType(kind)] * count)
            return
        while count:
            count -= self._strings(count)
            if count:
                yield

    def _strings(self, count: int) -> int:
        """Step over strings that have come, at most ``count``; return how many."""
        data, at, end = self.data, self._at, len(self.data)
        done = 0
        while done < count and at + 8 <= end:
            after = at + 8 + int.from_bytes(data[at : at + 8], "little")
            if after > end:
                break
            at, done = after, done + 1
        self._at = at
        if done < count and at + 8 <= end:
            self._check(int.from_bytes(data[at : at + 8], "little"))
        return done

    def _string(self) -> Steps:
        yield from self._need(8)
        [size] = struct.unpack_from("<Q", self.data, self._at)
        self._at += 8
        yield from self._skip(size)

    def _skip(self, n_bytes: int) -> Steps:
        self._check(n_bytes)
        self._at += n_bytes
        yield from self._need(0)

    def _need(self, n_bytes: int) -> Steps:
        self._check(n_bytes)
        while len(self.data) < self._at + n_bytes:
            yield

    def _check(self, n_bytes: int) -> None:
        if self._at + n_bytes > MAX_BYTES:
            raise ValueError
