"""Whether SentencePiece can safely read a ``precompiled_charsmap``: which characters become which.

The library up to 0.2.0, which Debian 12 and Ubuntu 24.04 have, trusts it and reads wherever it
points. The layout is that of ``normalizer.cc`` and of Darts-clone, whose double-array trie it has:
the bytes of the trie (uint32, little-endian), the trie, then texts that end with NUL.

A unit of the trie is a uint32. Bits 0 to 7 and bit 31: its label, which no byte equals where bit 31
is set; bit 8: a value lies where its children begin; from bit 9 on: how far that is, XORed with its
own place. A value is where a text begins. The search starts at unit 0 and follows one byte after
the other.
"""

import struct
from array import array
from collections.abc import Sequence

_BLOCK_BYTES = 1024  # 256 units: a place in the trie with any last byte is in it, too
_MOST_MATCHES = 32  # beginnings of a text that the library has room for
_NO_LABEL, _HAS_VALUE = 1 << 31, 1 << 8


def fault_of(charsmap: bytes) -> str:
    """Return why the library must not read it; empty: it may."""
    if len(charsmap) <= 4:
        return f"has {len(charsmap)} bytes, must have a trie and texts"
    (n_bytes,) = struct.unpack_from("<I", charsmap)
    if n_bytes == 0 or n_bytes % _BLOCK_BYTES or n_bytes >= len(charsmap) - 4:
        return (
            f"has a trie of {n_bytes} bytes of {len(charsmap)},"
            f" must be a multiple of {_BLOCK_BYTES} with texts behind it"
        )
    if charsmap[-1] != 0:
        return "has a last text that does not end"
    units = array("I")
    if units.itemsize != 4:
        units = array("L")
    units.frombytes(charsmap[4 : 4 + n_bytes])
    return _fault_of_trie(units, len(charsmap) - 4 - n_bytes)


def _fault_of_trie(units: Sequence[int], n_texts: int) -> str:
    """Return what of a trie would be read elsewhere. n_texts: bytes of the texts behind it."""
    begins: dict[int, list[int]] = {}  # where children begin: units that are children there
    for at, unit in enumerate(units):
        if unit & _NO_LABEL and at:  # the search begins at unit 0, whatever its label
            continue
        children = _children(at, unit)
        if children >= len(units):
            return f"has a trie of {len(units)} units, whose unit {at} leads to {children}"
        if unit & _HAS_VALUE and units[children] & ~_NO_LABEL >= n_texts:
            value = units[children] & ~_NO_LABEL
            return f"has {n_texts} bytes of texts, unit {at} of its trie means that at {value}"
        begins.setdefault(at ^ (unit & 0xFF), []).append(at)
    return _fault_of_paths(units, begins)


def _fault_of_paths(units: Sequence[int], begins: dict[int, list[int]]) -> str:
    """Return whether a text could match without end, or too often."""
    matches: dict[int, int] = {}  # most of a path from here; of one that is begun: -1
    stack = [_children(0, units[0])]
    while stack:
        place = stack[-1]
        nexts = [(at, _children(at, units[at])) for at in begins.get(place, ())]
        if place not in matches:
            matches[place] = -1
            for _, children in nexts:
                if matches.get(children) == -1:
                    return "has a trie that goes in a circle"
                if children not in matches:
                    stack.append(children)
            continue
        stack.pop()
        counts = (matches[next_] + bool(units[at] & _HAS_VALUE) for at, next_ in nexts)
        matches[place] = max(counts, default=0)
        if matches[place] > _MOST_MATCHES:
            return f"matches more than {_MOST_MATCHES} beginnings of a text"
    return ""


def _children(at: int, unit: int) -> int:
    """Return where the children of a unit begin."""
    return at ^ (unit >> 10 << ((unit & 1 << 9) >> 6))
