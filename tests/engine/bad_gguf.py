"""GGUF files that break their own format, each with the fault that the error must name.

The same bytes are the fuzzer's seeds (native/fuzz/make_corpus.py writes them there).
"""

import struct
from dataclasses import dataclass

from engine.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    INT32,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
    MXFP4,
    Q4_0,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    array,
    gguf,
    scalar,
    string,
    strings,
    tensor,
)


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file by name, its bytes, and words that its error message must hold."""

    name: str
    content: bytes
    fault: str


def _entry(key: str | bytes, value: bytes) -> bytes:
    return string(key) + value


def _alignment(value: bytes) -> bytes:
    return gguf([_entry("general.alignment", value)])


def _value(value: bytes) -> bytes:
    return gguf([_entry("some.key", value)])


def _tensor(*args: object, data: int = 256, **kwargs: int) -> bytes:
    return gguf(tensors=[tensor("t.weight", *args, **kwargs)], data=bytes(data))  # type: ignore[arg-type]


def _two(a: bytes, b: bytes) -> bytes:
    return gguf(tensors=[a, b], data=bytes(512))


_ROW = (32,)

HEADERS = [
    BadFile("three-bytes", b"GGU", "magic of 4 bytes at byte 0, file has 3 bytes"),
    BadFile("four-bytes", b"GGUF", "version of 4 bytes at byte 4, file has 4 bytes"),
    BadFile("magic", gguf(magic=b"\x7fELF"), "not a GGUF file: starts with bytes 7f 45 4c 46"),
    BadFile("legacy-magic", gguf(magic=b"lmgg"), "not a GGUF file"),
    BadFile("version-0", gguf(version=0), "GGUF version is 0, must be 2 or 3"),
    BadFile("version-1", gguf(version=1), "GGUF version 1 is obsolete"),
    BadFile("version-4", gguf(version=4), "GGUF version 4 is newer than 3"),
    BadFile("version-max", gguf(version=0xFFFFFFFF), "GGUF version 4294967295 is newer than 3"),
    BadFile("big-endian", gguf(version=0x03000000), "a big-endian file"),
    BadFile("n-kv-2^31", gguf(n_kv=1 << 31), "2147483648 metadata entries, limit is 65536"),
    BadFile("n-kv-2^32-1", gguf(n_kv=(1 << 32) - 1), "4294967295 metadata entries"),
    BadFile("n-kv-2^63", gguf(n_kv=1 << 63), "9223372036854775808 metadata entries"),
    BadFile("n-kv-60000", gguf(n_kv=60000), "60000 metadata entries do not fit a file of 24 bytes"),
    BadFile("n-tensors-2^31", gguf(n_tensors=1 << 31), "2147483648 tensors, limit is 65536"),
    BadFile("n-tensors-2^63", gguf(n_tensors=1 << 63), "9223372036854775808 tensors"),
    BadFile("n-tensors-9", gguf(n_tensors=9), "9 tensors do not fit a file of 24 bytes"),
]

KEYS = [
    BadFile("key-empty", gguf([_entry("", scalar(UINT8, 1)) + bytes(8)]), "name of 0 bytes"),
    BadFile(
        "key-2^63",
        gguf([string("k", 1 << 63) + bytes(64)]),
        "metadata entry 0: name of 9223372036854775808 bytes, must be 1..65535",
    ),
    BadFile(
        "key-wraps",
        gguf([string("k", (1 << 64) - 33) + bytes(64)]),
        "name of 18446744073709551583 bytes",
    ),
    BadFile("key-not-utf-8", gguf([_entry(b"k\xff\xfe", scalar(UINT8, 1))]), "not UTF-8"),
    BadFile("key-nul", gguf([_entry(b"k\0k", scalar(UINT8, 1))]), "name is not UTF-8 without NUL"),
    BadFile(
        "key-twice",
        gguf([_entry("a.key", scalar(UINT8, 1)), _entry("a.key", scalar(UINT8, 2))]),
        "key 'a.key': occurs twice",
    ),
]

VALUES = [
    BadFile("type-13", _value(struct.pack("<I", 13) + bytes(8)), "type 13 is unknown"),
    BadFile("type-max", _value(struct.pack("<I", 0xFFFFFFFF) + bytes(8)), "type 4294967295"),
    BadFile("bool-2", _value(scalar(BOOL, 2)), "key 'some.key': bool is 2, must be 0 or 1"),
    BadFile(
        "string-2^63",
        _value(struct.pack("<IQ", STRING, 1 << 63) + b"x" * 32),
        "key 'some.key': string of 9223372036854775808 bytes",
    ),
    BadFile(
        "string-wraps",
        _value(struct.pack("<IQ", STRING, (1 << 64) - 44) + b"x" * 32),
        "key 'some.key': string of 18446744073709551572 bytes",
    ),
    BadFile("array-2^63", _value(array(UINT8, 1 << 63, bytes(32))), "9223372036854775808 bytes"),
    BadFile("array-product-wraps", _value(array(UINT64, (1 << 61) + 1, bytes(32))), "overflows"),
    BadFile(
        "array-gigabytes", _value(array(INT32, 1 << 30, bytes(32))), "value of 4294967296 bytes"
    ),
    BadFile("array-type-13", _value(array(13, 1, bytes(32))), "element type 13 is unknown"),
    BadFile("array-nested", _value(array(ARRAY, 1, bytes(32))), "nested arrays are not supported"),
    BadFile("array-bool-3", _value(array(BOOL, 2, b"\x01\x03")), "bool is 3"),
    BadFile(
        "strings-gigabytes",
        _value(array(STRING, 1 << 30, string("a") * 8)),
        "array of 1073741824 strings does not fit a file of",
    ),
    BadFile(
        "strings-second-too-long",
        _value(array(STRING, 2, string("a") + string("b", 1 << 40))),
        "key 'some.key': string of 1099511627776 bytes",
    ),
    BadFile(
        "alignment-0", _alignment(scalar(UINT32, 0)), "'general.alignment': 0, must be a power"
    ),
    BadFile(
        "alignment-1", _alignment(scalar(UINT32, 1)), "'general.alignment': 1, must be a power"
    ),
    BadFile(
        "alignment-3", _alignment(scalar(UINT32, 3)), "'general.alignment': 3, must be a power"
    ),
    BadFile("alignment-2^31", _alignment(scalar(UINT32, 1 << 31)), "2147483648, must be a power"),
    BadFile("alignment-u64", _alignment(scalar(UINT64, 32)), "type 10, must be uint32"),
    BadFile("alignment-string", _alignment(scalar(STRING, "32")), "type 8, must be uint32"),
]

TENSORS = [
    BadFile("dims-0", _tensor(()), "tensor 't.weight': 0 dimensions, must be 1..4"),
    BadFile("dims-5", _tensor((1, 1, 1, 1, 1)), "tensor 't.weight': 5 dimensions, must be 1..4"),
    BadFile("dims-2^32-1", _tensor(_ROW, n_dims=(1 << 32) - 1), "4294967295 dimensions"),
    BadFile("dim-zero", _tensor((32, 0)), "dimension 1 is 0, must be 1..2^63-1"),
    BadFile("dim-negative", _tensor((32, (1 << 64) - 1)), "dimension 1 is 18446744073709551615"),
    BadFile(
        "dims-overflow", _tensor((1 << 33, 1 << 33)), "product of dimensions overflows 64 bits"
    ),
    BadFile("dims-wrap-to-32", _tensor((32, 1 << 62, 4), Q4_0), "product of dimensions overflows"),
    BadFile(
        "row-33", _tensor((33,), Q4_0), "rows of 33 elements, type Q4_0 needs a multiple of 32"
    ),
    BadFile(
        "row-128-of-256",
        _tensor((128,), IQ3_S),
        "rows of 128 elements, type IQ3_S needs",
    ),
    BadFile("row-257", _tensor((257, 2), IQ2_XXS), "type IQ2_XXS needs a multiple of 256"),
    BadFile("row-31", _tensor((31,), MXFP4), "rows of 31 elements, type MXFP4 needs"),
    BadFile("grid-past-end", _tensor((256, 4), IQ2_S), "tensor 't.weight': ends at byte"),
    BadFile(
        "tensor-type-grid",
        _tensor((256,), 19),
        "tensor 't.weight': type IQ1_S (19) is not supported: fetch the IQ2_XXS file",
    ),
    BadFile(
        "tensor-type-removed",
        _tensor(_ROW, 4),
        "tensor 't.weight': type Q4_2 (4) is not supported: fetch the Q4_0 file",
    ),
    BadFile(
        "tensor-type-arm",
        _tensor(_ROW, 31),
        "tensor 't.weight': type Q4_0_4_4 (31) is not supported: fetch the Q4_0 file",
    ),
    BadFile("tensor-type-unknown", _tensor(_ROW, 99), "tensor 't.weight': type 99"),
    BadFile("tensor-type-negative", _tensor(_ROW, (1 << 32) - 1), "type 4294967295"),
    BadFile(
        "offset-unaligned", _tensor(_ROW, F32, 4), "offset 4 is no multiple of the alignment 32"
    ),
    BadFile("offset-beyond", _tensor(_ROW, F32, 1 << 40), "tensor 't.weight': ends at byte"),
    BadFile("offset-wraps", _tensor(_ROW, F32, (1 << 64) - 32), "overflows 64 bits"),
    BadFile(
        "extent-beyond",
        _tensor((32, 2), data=255),
        "tensor 't.weight': ends at byte 352, file has 351 bytes",
    ),
    BadFile(
        "tensors-overlap",
        _two(tensor("a", (64,), F32, 0), tensor("b", (32,), F32, 224)),
        "tensor 'b': starts at byte",
    ),
    BadFile(
        "tensor-twice",
        _two(tensor("same", _ROW, F32, 0), tensor("same", _ROW, F32, 128)),
        "tensor 'same': occurs twice",
    ),
    BadFile(
        "tensor-name-not-utf-8",
        gguf(tensors=[tensor(b"\xc0\xaf", _ROW)]),
        "tensor entry 0: name is not",
    ),
    BadFile("tensor-name-empty", gguf(tensors=[tensor("", _ROW) + bytes(8)]), "name of 0 bytes"),
    BadFile(
        "tensor-name-terminal-codes",
        gguf(tensors=[tensor("\x1b[31mred", _ROW, 99)]),
        "tensor '?[31mred': type 99",
    ),
]

BAD_FILES = [*HEADERS, *KEYS, *VALUES, *TENSORS]

GOOD_FILES = {
    "nothing": gguf(),
    "version-2": gguf([_entry("general.architecture", scalar(STRING, "llama"))], version=2),
    "vocabulary": gguf([_entry("tokenizer.ggml.tokens", strings(["a", b"\xff", ""]))]),
    "empty-array": gguf([_entry("k", array(STRING, 0))]),
    "alignment-8": gguf([_entry("general.alignment", scalar(UINT32, 8))]),
    "grids": gguf(
        tensors=[
            tensor(f"t{i}", (256, 1), kind, 128 * i)
            for i, kind in enumerate((IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S))
        ],
        data=bytes(range(128)) * 5,
    ),
    "exponents": _tensor((64, 2), MXFP4),
    "two-tensors": _two(tensor("a", (64,), F32, 0), tensor("b", (32, 2), Q4_0, 256)),
}
