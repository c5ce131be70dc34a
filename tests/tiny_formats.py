"""The tensor types of tiny models, and random matrices of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """One tensor type: GGML id, elements and bytes of a block, and how to make sane random blocks.

    halves: byte offset of each f16 field and its value in units of the block's scale d; with
    uniformly random bytes elsewhere they give values of mean about 0. rms: their root mean square
    in units of d. Both follow from the layouts in ggml-common.h. has_exponent: the scale is no f16
    but a power of two, in the block's first byte with a bias of 128.
    """

    type_id: int
    block: int
    block_bytes: int
    halves: tuple[tuple[int, float], ...] = ()
    rms: float = 1.0
    has_exponent: bool = False


FORMATS: Mapping[str, BlockFormat] = {
    "F32": BlockFormat(0, 1, 4),
    "F16": BlockFormat(1, 1, 2),
    "Q4_0": BlockFormat(2, 32, 18, ((0, 1.0),), 4.6),
    "Q4_1": BlockFormat(3, 32, 20, ((0, 1.0), (2, -7.5)), 4.6),
    "Q5_0": BlockFormat(6, 32, 22, ((0, 1.0),), 9.2),
    "Q5_1": BlockFormat(7, 32, 24, ((0, 1.0), (2, -15.5)), 9.2),
    "Q8_0": BlockFormat(8, 32, 34, ((0, 1.0),), 73.9),
    "Q2_K": BlockFormat(10, 256, 84, ((80, 1.0), (82, 1.5)), 13.9),
    "Q3_K": BlockFormat(11, 256, 110, ((108, 1.0),), 43.3),
    "Q4_K": BlockFormat(12, 256, 144, ((0, 1.0), (2, 7.5)), 258.0),
    "Q5_K": BlockFormat(13, 256, 176, ((0, 1.0), (2, 15.5)), 527.0),
    "Q6_K": BlockFormat(14, 256, 210, ((208, 1.0),), 1366.0),
    "IQ4_NL": BlockFormat(20, 32, 18, ((0, 1.0),), 67.4),
    "IQ4_XS": BlockFormat(23, 256, 136, ((0, 1.0),), 1246.0),
    "BF16": BlockFormat(30, 1, 2),
    "Q1_0": BlockFormat(41, 128, 18, ((0, 1.0),), 1.0),
    "Q2_0": BlockFormat(42, 64, 18, ((0, 1.0),), 1.22),
    "IQ2_XXS": BlockFormat(16, 256, 66, ((0, 1.0),), 53.1),
    "IQ2_XS": BlockFormat(17, 256, 74, ((0, 1.0),), 55.7),
    "IQ2_S": BlockFormat(22, 256, 82, ((0, 1.0),), 56.4),
    "IQ3_XXS": BlockFormat(18, 256, 98, ((0, 1.0),), 142.0),
    "IQ3_S": BlockFormat(21, 256, 110, ((0, 1.0),), 140.0),
    "MXFP4": BlockFormat(39, 32, 17, (), 5.84, has_exponent=True),
}


def random_rows(
    rng: np.random.Generator, type_name: str, shape: tuple[int, int], rms: float
) -> bytes:
    """Return a matrix (n_rows, n_cols) of random valid blocks, values of about the given rms."""
    form = FORMATS[type_name]
    n_rows, n_cols = shape
    if n_cols % form.block:
        raise ValueError(f"{type_name} rows hold multiples of {form.block} elements, not {n_cols}")
    if form.block == 1:
        return _plain(type_name, rng.normal(0.0, rms, shape).astype(np.float32))
    n_blocks = n_rows * n_cols // form.block
    raw = rng.integers(0, 256, (n_blocks, form.block_bytes), dtype=np.uint8)
    scales = rms / form.rms * rng.uniform(0.5, 1.5, n_blocks)
    for offset, factor in form.halves:
        halves = (scales * factor).astype(np.float16)
        raw[:, offset : offset + 2] = halves.view(np.uint8).reshape(n_blocks, 2)
    if form.has_exponent:
        raw[:, 0] = 128 + np.round(np.log2(scales)).astype(np.int64)
    return raw.tobytes()


def _plain(type_name: str, values: NDArray[np.float32]) -> bytes:
    if type_name == "F16":
        return values.astype(np.float16).tobytes()
    if type_name == "BF16":  # the upper half of a float32; cutting is as good a random number
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.tobytes()
