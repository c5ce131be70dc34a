"""Quantized blocks of ggml before GGUF: 32 weights each, as values or as today's blocks.

Sources, all in ggml.c of llama.cpp's history. Until 11 May 2023 (files of magic "ggml" and "ggmf",
"ggjt" version 1) byte j of the nibbles held weights 2j and 2j + 1; pull request 1405 (version 2)
made it weights j and j + 16, as in GGUF. Q4_0, Q4_1 and Q8_0 had float32 scales until pull request
1508 (19 May 2023, version 3), whose blocks are GGUF's; Q5_0 and Q5_1 always had float16 ones.

In the first days (magic "ggml", March 2023) a row was not made of blocks: all its scales
came first (of Q4_1 all minimums, then all scales), then all its quants. Nothing in a file says so,
but scales read from the wrong places are no plausible numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamad_tools.checkpoints.source import Rows

BLOCK = 32  # weights
Floats = NDArray[np.float32]

# Of a float32 made of quants one in twelve lies between, of a model's scales every one does.
_SMALLEST_SCALE, _LARGEST = 1e-9, 1e3


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One type in its layout of versions 1 and 2: scale, minimum if it has one, high bits, quants.

    zero: what is subtracted from a quant before it is scaled.
    """

    type_name: str
    scale: str  # numpy type of the scale and of the minimum
    has_minimum: bool
    bits: int
    zero: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        scales = np.dtype(self.scale).itemsize * (2 if self.has_minimum else 1)
        return scales + self.bits * BLOCK // 8


LAYOUTS = {
    layout.type_name: layout
    for layout in (
        BlockLayout("Q4_0", "<f4", False, 4, 8),
        BlockLayout("Q4_1", "<f4", True, 4, 0),
        BlockLayout("Q5_0", "<f2", False, 5, 16),
        BlockLayout("Q5_1", "<f2", True, 5, 0),
        BlockLayout("Q8_0", "<f4", False, 8, 0),
    )
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Unpacked blocks: scales and minimums (n, 1), quants (n, 32) in the order of the weights."""

    layout: BlockLayout
    scales: Floats
    minimums: Floats | None
    quants: NDArray[np.int16]

    def values(self) -> Floats:
        """Return the weights, (n, 32), in the arithmetic of the time: float32, product then sum.

        Weights that are no numbers are for the reader to refuse.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            result = self.scales * (self.quants - self.layout.zero).astype(np.float32)
            return result if self.minimums is None else result + self.minimums

    def as_gguf(self) -> Rows:
        """Return GGUF's blocks, (n, bytes): the same quants, scales rounded to float16."""
        parts: list[Rows] = [_halves(self.scales)]
        if self.minimums is not None:
            parts.append(_halves(self.minimums))
        if self.layout.bits == 5:
            high_bits = (self.quants >> 4).astype(np.uint8)
            parts.append(np.packbits(high_bits, axis=1, bitorder="little"))
        if self.layout.bits == 8:
            parts.append(self.quants.astype(np.uint8))
        else:
            low = (self.quants & 15).astype(np.uint8)
            parts.append(
                low[:, : BLOCK // 2] | np.left_shift(low[:, BLOCK // 2 :], 4, dtype=np.uint8)
            )
        return np.concatenate(parts, axis=1)


def row_as_blocks(layout: BlockLayout, rows: Rows) -> Rows:
    """Return the blocks, (n, block_bytes), of rows of the first days, (n_rows, row_bytes)."""
    n_blocks = rows.shape[1] // layout.block_bytes
    n_heads = 2 if layout.has_minimum else 1  # float32 numbers of a block
    heads = rows[:, : 4 * n_heads * n_blocks].reshape(-1, n_heads, n_blocks, 4)
    scale_first = heads[:, ::-1].swapaxes(1, 2).reshape(-1, 4 * n_heads)
    quants = rows[:, 4 * n_heads * n_blocks :].reshape(len(scale_first), -1)
    return np.concatenate((scale_first, quants), axis=1)


def is_plausible(layout: BlockLayout, blocks: Rows) -> bool:
    """Say whether blocks of version 1, (n, block_bytes), begin with scales of a model's weights."""
    scales = _floats(blocks[:, :4], layout.scale)
    sane = (scales == 0) | ((scales > _SMALLEST_SCALE) & (scales < _LARGEST))
    if layout.has_minimum:
        minimums = np.abs(_floats(blocks[:, 4:8], layout.scale))
        sane &= (minimums == 0) | ((minimums > _SMALLEST_SCALE) & (minimums < _LARGEST))
    return bool(sane.all())


def unpack(layout: BlockLayout, raw: Rows, *, interleaved: bool) -> Blocks:
    """Unpack raw blocks, (n, block_bytes); interleaved: the order of nibbles of version 1."""
    size = np.dtype(layout.scale).itemsize
    scales = _floats(raw[:, :size], layout.scale)
    position = size
    minimums = None
    if layout.has_minimum:
        minimums = _floats(raw[:, size : 2 * size], layout.scale)
        position += size
    if layout.bits == 8:
        quants = np.ascontiguousarray(raw[:, position:]).view(np.int8).astype(np.int16)
        return Blocks(layout, scales, minimums, quants)
    high: NDArray[np.int16] | int = 0
    if layout.bits == 5:
        bits = np.unpackbits(raw[:, position : position + 4], axis=1, bitorder="little")
        high = bits.astype(np.int16) << 4
        position += 4
    low, upper = raw[:, position:] & 15, raw[:, position:] >> 4
    if interleaved:
        nibbles = np.stack((low, upper), axis=2).reshape(-1, BLOCK)
    else:
        nibbles = np.concatenate((low, upper), axis=1)
    return Blocks(layout, scales, minimums, nibbles.astype(np.int16) | high)


def _floats(raw: Rows, kind: str) -> Floats:
    return np.ascontiguousarray(raw).view(kind).astype(np.float32)


def _halves(values: Floats) -> Rows:
    """Return (n, 2) bytes; raises ValueError for a scale that float16 cannot hold."""
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        raise ValueError("a scale is no finite float16")
    return halves.view(np.uint8)
