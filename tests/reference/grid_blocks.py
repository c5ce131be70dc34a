"""Blocks of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S and MXFP4 to weights, as strings of bits.

Written from the layouts of ggml-common.h, apart from the engine's code and the ``gguf`` package's;
of that only the tables of magnitudes are taken, which are constants of the file format.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gguf import quants
from numpy.typing import NDArray

Integers = NDArray[np.int64]
E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # OCP MX specification 1.0, 5.3.3


class _Blocks:
    """Blocks of 256 weights behind an f16 scale, their fields counted in bits."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        """Take (n_blocks, block_bytes)."""
        self.bits = np.unpackbits(data, axis=1, bitorder="little")
        self.scale = np.ascontiguousarray(data[:, :2]).view("<f2").astype(np.float32)  # (n, 1)

    def field(self, byte: int, count: int, width: int, stride: int | None = None) -> Integers:
        """Return (n_blocks, count) numbers of `width` bits, each `stride` bits behind the last."""
        starts = 8 * byte + np.arange(count) * (width if stride is None else stride)
        places = starts[:, None] + np.arange(width)
        numbers: Integers = (self.bits[:, places].astype(np.int64) << np.arange(width)).sum(axis=2)
        return numbers

    def weights(
        self, codec: Any, index: Integers, signs: Integers, steps: Integers, unit: float
    ) -> NDArray[np.float32]:
        """Return (n_blocks, 256): magnitudes of `index`, of these signs (0, 1) and scales."""
        codec.init_grid()
        magnitudes = np.asarray(codec.grid).reshape(codec.grid_shape)[index]
        magnitudes = magnitudes.reshape(len(index), 256)
        scales = self.scale * np.float32(unit) * steps.astype(np.float32)
        scales = np.repeat(scales, 256 // steps.shape[1], axis=1)
        result: NDArray[np.float32] = scales * (magnitudes * (1 - 2 * signs)).astype(np.float32)
        return result


def _with_eighth(sevens: Integers) -> Integers:
    """Return (n, 256) signs of (n, 32) sevens of bits: the eighth makes their number even."""
    bits = (sevens[:, :, None] >> np.arange(7)) & 1
    eighth = bits.sum(axis=2, keepdims=True) % 2
    return np.concatenate([bits, eighth], axis=2).reshape(len(sevens), 256)


def _sevens(blocks: _Blocks, byte: int, stride: int) -> Integers:
    """Return (n, 32): four sevens in each of eight 32-bit words, `stride` bits apart."""
    return np.stack(
        [blocks.field(byte, 8, 28, stride) >> (7 * i) & 127 for i in range(4)], axis=2
    ).reshape(-1, 32)


def _iq2_xxs(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = _Blocks(data)
    index = (blocks.field(2, 8, 32, 64)[:, :, None] >> (8 * np.arange(4))) & 255
    steps = 2 * (blocks.field(6, 8, 32, 64) >> 28) + 1
    signs = _with_eighth(_sevens(blocks, 6, 64))
    return blocks.weights(quants.IQ2_XXS, index.reshape(-1, 32), signs, steps, 0.125)


def _iq2_xs(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = _Blocks(data)
    codes = blocks.field(2, 32, 16)
    steps = 2 * blocks.field(66, 16, 4) + 1
    return blocks.weights(quants.IQ2_XS, codes & 511, _with_eighth(codes >> 9), steps, 0.125)


def _iq2_s(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = _Blocks(data)
    index = blocks.field(2, 32, 8) + 256 * blocks.field(66, 32, 2)
    steps = 2 * blocks.field(74, 16, 4) + 1
    return blocks.weights(quants.IQ2_S, index, blocks.field(34, 256, 1), steps, 0.125)


def _iq3_xxs(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = _Blocks(data)
    steps = 2 * (blocks.field(66, 8, 32) >> 28) + 1
    signs = _with_eighth(_sevens(blocks, 66, 32))
    return blocks.weights(quants.IQ3_XXS, blocks.field(2, 64, 8), signs, steps, 0.25)


def _iq3_s(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = _Blocks(data)
    index = blocks.field(2, 64, 8) + 256 * blocks.field(66, 64, 1)
    steps = 2 * blocks.field(106, 8, 4) + 1
    return blocks.weights(quants.IQ3_S, index, blocks.field(74, 256, 1), steps, 1.0)


def _mxfp4(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    codes = np.concatenate([data[:, 1:] & 15, data[:, 1:] >> 4], axis=1)
    signs = np.where(codes > 8, -1.0, 1.0)  # code 8, minus zero, is zero
    exponents = data[:, :1].astype(np.int64) - 127  # 255 is no NaN to ggml
    result: NDArray[np.float32] = np.ldexp(signs * E2M1[codes & 7], exponents).astype(np.float32)
    return result


DECODERS: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "MXFP4": _mxfp4,
}
