"""A sentencepiece ModelProto, written field by field.

Only what a vocabulary from a GGUF file needs. The protobuf classes that come with
sentencepiece are not used: they exist in several versions that clash with the protobuf runtime.
Field numbers are those of sentencepiece_model.proto (google/sentencepiece).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

_VARINT, _BYTES, _FLOAT = 0, 2, 5  # protobuf wire types

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType


@dataclass(frozen=True)
class Normalization:
    """What a text becomes before it is cut into pieces, beside "▁" for each space."""

    charsmap: bytes = b""  # precompiled_charsmap: which characters become which
    removes_extra_spaces: bool = False  # at both ends too
    adds_space_prefix: bool = False  # behind that


def serialize_model(
    model_type: int,
    pieces: Iterable[tuple[str, float, int]],
    *,
    byte_fallback: bool,
    special_ids: tuple[int, int, int],
    normalization: Normalization,
) -> bytes:
    """Return the serialized ModelProto of a vocabulary.

    pieces: (text, score, type), in id order; special_ids: unknown, BOS and EOS, -1 where absent.
    """
    unk_id, bos_id, eos_id = special_ids
    trainer = b"".join(
        (
            _integer(3, model_type),
            _integer(35, byte_fallback),
            _integer(40, unk_id),
            _integer(41, bos_id),
            _integer(42, eos_id),
            _integer(43, -1),  # pad_id
        )
    )
    normalizer = b"".join(
        (
            _string(1, b"user_defined" if normalization.charsmap else b"identity"),
            _string(2, normalization.charsmap) if normalization.charsmap else b"",
            _integer(3, normalization.adds_space_prefix),
            _integer(4, normalization.removes_extra_spaces),
            _integer(5, True),  # escape_whitespaces
        )
    )
    head = _key(1, _BYTES)
    model = BytesIO()
    for piece in pieces:
        model.write(_prefixed(head, _piece(*piece)))
    model.write(_string(2, trainer) + _string(3, normalizer))
    return model.getvalue()


def _piece(text: str, score: float, kind: int) -> bytes:
    """Return the fields of one piece; a start of the service makes some 100,000 of them."""
    return b"".join(
        (
            _prefixed(_key(1, _BYTES), text.encode("utf-8", "surrogateescape")),
            _key(2, _FLOAT),
            struct.pack("<f", score),
            _integer(3, kind),
        )
    )


def _varint(value: int) -> bytes:
    if 0 <= value <= 0x7F:
        return value.to_bytes()
    value &= (1 << 64) - 1  # negative integers are ten bytes of two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@cache
def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


@cache
def _integer(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _string(field: int, value: bytes) -> bytes:
    return _prefixed(_key(field, _BYTES), value)


def _prefixed(key: bytes, value: bytes) -> bytes:
    """Return a field of bytes: its key, the length, the bytes."""
    return key + _varint(len(value)) + value
