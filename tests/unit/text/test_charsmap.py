"""A charsmap that would make SentencePiece read elsewhere is refused; those it writes are not."""

import io
import random
import struct
from collections.abc import Iterator
from functools import cache

import pytest
import sentencepiece

from llamad.errors import ErrorKind, LlamadError
from llamad.text import tokenizer_from_metadata
from llamad.text.charsmap import fault_of
from unit.text.vocabularies import spm_metadata

RULES = ("nfkc", "nmt_nfkc_cf")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of a protobuf message's fields."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        n_bytes = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield number, message[at : at + n_bytes]
        at += n_bytes


@cache
def charsmap(rule: str) -> bytes:
    """Return what SentencePiece itself writes for one of its rules."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world this is a test"] * 50),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        normalization_rule_name=rule,
        minloglevel=2,
    )
    normalizer = dict(_fields(model.getvalue()))[3]
    assert isinstance(normalizer, bytes)
    result = dict(_fields(normalizer))[2]
    assert isinstance(result, bytes)
    return result


def read(blob: bytes, text: bytes) -> list[int]:
    """Read a charsmap as the library does; IndexError where it would read elsewhere."""
    (n_bytes,) = struct.unpack_from("<I", blob)
    units = struct.unpack(f"<{n_bytes // 4}I", blob[4 : 4 + n_bytes])
    texts = blob[4 + n_bytes :]

    def children(at: int) -> int:
        unit = units[at]
        result: int = at ^ (unit >> 10) << ((unit & (1 << 9)) >> 6)
        return result

    found = []
    place = children(0)
    for byte in text:
        at = place ^ byte
        if units[at] & (1 << 31 | 0xFF) != byte:
            break
        place = children(at)
        if units[at] & 1 << 8:
            value = units[place] & ~(1 << 31)
            if b"\0" not in texts[value:]:
                raise IndexError("a text beyond the end")
            found.append(value)
    if len(found) > 32:
        raise IndexError("more matches than there is room for")
    return found


@pytest.mark.parametrize("rule", RULES)
def test_what_the_library_writes_is_taken(rule: str) -> None:
    blob = charsmap(rule)
    assert fault_of(blob) == ""
    assert read(blob, "ﬁ".encode())  # a ligature, which becomes two letters
    metadata = {**spm_metadata(), "tokenizer.ggml.precompiled_charsmap": list(blob)}
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("ﬁ") == tokenizer.encode("fi")


@pytest.mark.parametrize("seed", range(40))
def test_what_is_taken_is_read_within_its_bounds(seed: int) -> None:
    rng = random.Random(seed)
    blob = bytearray(charsmap(RULES[0]))
    for _ in range(rng.choice([1, 1, 10, 1000])):
        at = rng.randrange(4, len(blob))
        blob[at] ^= 1 << rng.randrange(8)
    if fault_of(bytes(blob)):
        return
    for _ in range(2000):
        code = rng.choice([rng.randrange(1, 0xD800), rng.randrange(0x10000, 0x30000)])
        read(bytes(blob), chr(code).encode() + rng.randbytes(6))


def _trie(units: dict[int, int], texts: bytes = b"x\0", n_units: int = 256) -> bytes:
    raw = struct.pack(f"<{n_units}I", *(units.get(at, 1 << 31) for at in range(n_units)))
    return struct.pack("<I", len(raw)) + raw + texts


# Unit 0 leads to 1 (1 ^ 0); the unit of byte "a" there is 1 ^ 97 = 96.
ROOT = {0: 1 << 10}
LETTER = {**ROOT, 96: 97 | 1 << 8 | (96 ^ 2) << 10, 2: 0 | 1 << 31}
BAD = {
    "empty": (b"\0\0", "has 2 bytes, must have a trie and texts"),
    "longer than it is": (struct.pack("<I", 1 << 31) + b"\0" * 9, "has a trie of 2147483648 bytes"),
    "cut blocks": (struct.pack("<I", 1000) + bytes(2000), "must be a multiple of 1024"),
    "no trie": (struct.pack("<I", 0) + bytes(2000), "must be a multiple of 1024"),
    "no texts": (struct.pack("<I", 1024) + bytes(1024), "with texts behind it"),
    "a text without an end": (_trie(LETTER, b"x"), "has a last text that does not end"),
    "children elsewhere": (_trie({0: 300 << 10}), "whose unit 0 leads to 300"),
    "a root of no label": (_trie({0: (1 << 32) - 1}), "whose unit 0 leads to"),
    "children far away": (_trie({0: 1 << 9 | 1 << 10}), "whose unit 0 leads to 256"),
    "a text elsewhere": (_trie({**LETTER, 2: 2 | 1 << 31}), "unit 96 of its trie means that at 2"),
    "a value with a label": (_trie({**LETTER, 2: 99}), "means that at 99"),
    "a circle": (_trie({**ROOT, 96: 97 | (96 ^ 1) << 10}), "has a trie that goes in a circle"),
}


def test_a_trie_of_one_letter_is_taken() -> None:
    assert fault_of(_trie(LETTER)) == ""
    assert read(_trie(LETTER), b"ab") == [0]


@pytest.mark.parametrize("name", BAD)
def test_what_would_be_read_elsewhere_is_refused(name: str) -> None:
    blob, fault = BAD[name]
    assert fault in fault_of(blob)
    metadata = {**spm_metadata(), "tokenizer.ggml.precompiled_charsmap": list(blob)}
    with pytest.raises(LlamadError) as caught:
        tokenizer_from_metadata(metadata)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert "tokenizer.ggml.precompiled_charsmap: " in caught.value.message


@pytest.mark.parametrize(("length", "refused"), [(32, False), (33, True)])
def test_a_text_matches_no_more_beginnings_than_the_library_has_room_for(
    length: int, refused: bool
) -> None:
    # "aaa...": the children of letter i begin in block i + 1
    units, n_units = {0: 256 << 10}, 256 * (length + 2)
    for i in range(1, length + 1):
        at = 256 * i ^ 97
        begin = 256 * (i + 1)
        units[at] = 97 | 1 << 8 | (at ^ begin) << 10
        units[begin] = 1 << 31
    blob = _trie(units, n_units=n_units)
    assert (fault_of(blob) != "") == refused
    if refused:
        with pytest.raises(IndexError):
            read(blob, b"a" * length)
    else:
        assert len(read(blob, b"a" * length)) == length
