"""Write model files of llama.cpp from before GGUF: "ggml", "ggmf" and "ggjt", from their layouts.

Owns its own quantizer and packing of each era's blocks, element by element, so that it shares no
idea of a layout with the reader. Sources: ggml.c and llama.cpp, March to August 2023.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGICS = {"ggml": 0x67676D6C, "ggmf": 0x67676D66, "ggjt": 0x67676A74}
TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
BLOCK = 32

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Era:
    """A format: its magic and version (0 for "ggml", which has none)."""

    magic: str
    version: int
    scales_first: frozenset[str] = frozenset()  # types whose rows begin with all their scales

    @property
    def interleaved(self) -> bool:
        """Whether a byte of nibbles holds two neighbours."""
        return self.magic != "ggjt" or self.version < 2

    @property
    def scale_format(self) -> str:
        """How scales of Q4_0, Q4_1 and Q8_0 are packed."""
        return "<e" if (self.magic, self.version) == ("ggjt", 3) else "<f"


# The magic "ggml" had three layouts of quantized rows: of Q4_0 the scales moved into the blocks a
# few days before those of Q4_1 did (quantize.cpp and utils.cpp, March 2023).
FIRST_DAYS = (
    Era("ggml", 0, frozenset({"Q4_0", "Q4_1"})),
    Era("ggml", 0, frozenset({"Q4_1"})),
)
ERAS = tuple(
    Era(magic, version)
    for magic, version in (("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3))
)


def types_of(era: Era) -> tuple[str, ...]:
    """Return the types that files of an era may have."""
    return tuple(TYPE_IDS) if era.magic == "ggjt" else ("F32", "F16", "Q4_0", "Q4_1")


def packed_block(values: Vector, type_name: str, era: Era) -> tuple[bytes, Vector]:
    """Return the bytes of 32 values and what they stand for, float32."""
    form = "<e" if type_name.startswith("Q5") else era.scale_format
    if type_name in ("Q4_1", "Q5_1"):
        steps = 15 if type_name == "Q4_1" else 31
        low = rounded(float(values.min()), form)
        scale = rounded(float(values.max() - values.min()) / steps, form)
        quants = np.clip(np.round((values - low) / scale), 0, steps).astype(int)
        head = struct.pack(form, scale) + struct.pack(form, low)
        meant = np.float32(scale) * quants.astype(np.float32) + np.float32(low)
    else:
        zero = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 0}[type_name]
        scale = rounded(float(np.abs(values).max()) / ((zero or 128) - 1), form)
        quants = np.round(values / scale).astype(int) + zero
        head = struct.pack(form, scale)
        meant = np.float32(scale) * (quants - zero).astype(np.float32)
    return head + _packed_quants(quants.tolist(), type_name, era), meant


def rounded(value: float, form: str) -> float:
    """Return a value as it comes back from its packed form."""
    result: float = struct.unpack(form, struct.pack(form, value))[0]
    return result


def _packed_quants(quants: list[int], type_name: str, era: Era) -> bytes:
    if type_name == "Q8_0":
        return struct.pack("<32b", *quants)
    high = b""
    if type_name in ("Q5_0", "Q5_1"):
        bits = sum((quant >> 4) << i for i, quant in enumerate(quants))
        high = struct.pack("<I", bits)
    low = [quant & 15 for quant in quants]
    pairs = zip(low[::2], low[1::2]) if era.interleaved else zip(low[:16], low[16:])
    return high + bytes(first | second << 4 for first, second in pairs)


def packed(values: Vector, type_name: str, era: Era) -> tuple[bytes, Vector]:
    """Return the bytes of a tensor and what they stand for, in its shape."""
    if type_name == "F32":
        return values.tobytes(), values
    if type_name == "F16":
        halves = values.astype(np.float16)
        return halves.tobytes(), halves.astype(np.float32)
    blocks = [packed_block(block, type_name, era) for block in values.reshape(-1, BLOCK)]
    meant = np.stack([block for _, block in blocks]).reshape(values.shape)
    data = [block for block, _ in blocks]
    if type_name in era.scales_first:
        n_blocks = values.shape[1] // BLOCK
        rows = [data[i : i + n_blocks] for i in range(0, len(data), n_blocks)]
        return b"".join(_scales_first(row, type_name) for row in rows), meant
    return b"".join(data), meant


def _scales_first(row: Sequence[bytes], type_name: str) -> bytes:
    """Return the blocks of one row taken apart: minimums if any, scales, quants."""
    quants = 4 if type_name == "Q4_0" else 8  # where they begin in a block
    minimums = b"".join(block[4:quants] for block in row)
    scales = b"".join(block[:4] for block in row)
    return minimums + scales + b"".join(block[quants:] for block in row)


def vocabulary_of(pieces: Sequence[str], *, first_days: bool = False) -> list[bytes]:
    """Return texts as the converters of the time wrote them: bytes bare, "▁" as a space.

    first_days: as the very first did, which printed each token: no byte above 127 is a character.
    """
    special = [" ⁇ ".encode(), b"", b""]
    byte_tokens = [bytes((i,)) for i in range(256)]
    if first_days:
        byte_tokens[128:] = ["\ufffd".encode()] * 128
    return special + byte_tokens + [piece.replace("▁", " ").encode() for piece in pieces[259:]]


def write_legacy(
    path: Path,
    era: Era,
    weights: Mapping[str, Vector],
    type_name: str,
    *,
    texts: Sequence[bytes],
    scores: Sequence[float],
    n_heads: int,
    n_layers: int,
    dim: int,
) -> dict[str, Vector]:
    """Write one file, matrices as ``type_name``; return what its weights stand for."""
    out = bytearray(struct.pack("<I", MAGICS[era.magic]))
    if era.magic != "ggml":
        out += struct.pack("<I", era.version)
    file_type = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9}
    numbers = (len(texts), dim, 32, n_heads, n_layers, dim // n_heads, file_type[type_name])
    out += struct.pack("<7i", *numbers)
    for text, score in zip(texts, scores, strict=True):
        out += struct.pack("<I", len(text)) + text
        if era.magic != "ggml":
            out += struct.pack("<f", score)
    meant = {}
    for name, values in weights.items():
        kind = type_name if values.ndim == 2 else "F32"
        data, meant[name] = packed(values, kind, era)
        out += struct.pack("<3i", values.ndim, len(name), TYPE_IDS[kind])
        out += struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + name.encode()
        if era.magic == "ggjt":
            out += bytes(-len(out) % 32)
        out += data
    path.write_bytes(out)
    return meant
