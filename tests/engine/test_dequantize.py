"""Every block format against the ``gguf`` package, bit for bit, on random and extreme blocks.

Those that the package cannot compute, or that lie in blocks of indices, come from
``reference.dequantize`` too, which is written apart from both.
"""

import gguf
import numpy as np
import pytest

from llamad.engine.bindings import (
    TENSOR_TYPES,
    EngineError,
    block_size,
    dequantize,
    row_bytes,
)
from reference.grid_blocks import DECODERS
from reference.model import block_bytes
from reference.model import dequantize as reference_dequantize

N_BLOCKS = 257  # random blocks of each format: every byte value in nearly every place

FORMATS = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q1_0", "Q2_0",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "MXFP4",
]  # fmt: skip

# Byte offsets of a block's float16 fields.
HALF_FIELDS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
    "Q1_0": [0], "Q2_0": [0],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
}  # fmt: skip

# Zeros, subnormals, the smallest normal, one, the largest, infinities, NaN.
HALVES = [
    0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00,
]  # fmt: skip


def assert_same_bits(type_name: str, blocks: np.ndarray) -> None:
    """Compare both dequantizations of blocks: (n_blocks, block_bytes) uint8; NaN equals NaN."""
    with np.errstate(all="ignore"):
        wanted = [reference_dequantize(blocks, type_name).ravel()]
        if type_name in DECODERS:
            kind = gguf.GGMLQuantizationType[type_name]
            wanted.append(np.asarray(gguf.quants.dequantize(blocks, kind)).ravel())
    for values in wanted:
        assert_same_values(type_name, blocks, values)


def assert_same_values(type_name: str, blocks: np.ndarray, wanted: np.ndarray) -> None:
    got = np.asarray(dequantize(type_name, blocks.tobytes(), wanted.size))
    assert got.dtype == np.float32
    both_nan = np.isnan(wanted) & np.isnan(got)
    different = np.flatnonzero((wanted.view(np.uint32) != got.view(np.uint32)) & ~both_nan)
    assert different.size == 0, (
        f"{different.size} elements differ, the first is {different[0]}: "
        f"{got[different[0]]!r}, gguf has {wanted[different[0]]!r}"
    )


def random_blocks(type_name: str, n_blocks: int) -> np.ndarray:
    random = np.random.default_rng(FORMATS.index(type_name))
    return random.integers(0, 256, (n_blocks, block_bytes(type_name)), dtype=np.uint8)


def test_the_engine_supports_exactly_these_formats() -> None:
    assert set(TENSOR_TYPES) == set(FORMATS)
    for name in FORMATS:
        assert TENSOR_TYPES[name] == gguf.GGMLQuantizationType[name].value


@pytest.mark.parametrize("type_name", FORMATS)
def test_random_blocks_dequantize_as_gguf_does(type_name: str) -> None:
    assert_same_bits(type_name, random_blocks(type_name, N_BLOCKS))


@pytest.mark.parametrize("type_name", sorted(HALF_FIELDS))
def test_blocks_with_ordinary_scales_dequantize_as_gguf_does(type_name: str) -> None:
    blocks = random_blocks(type_name, N_BLOCKS)
    random = np.random.default_rng(99)
    for offset in HALF_FIELDS[type_name]:
        scales = random.normal(scale=0.02, size=N_BLOCKS).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    assert_same_bits(type_name, blocks)


@pytest.mark.parametrize("type_name", sorted(HALF_FIELDS))
@pytest.mark.parametrize("payload", [0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0, 0x55, 0xAA])
def test_extreme_blocks_dequantize_as_gguf_does(type_name: str, payload: int) -> None:
    scales = [(d, m) for d in HALVES for m in HALVES]
    blocks = np.full((len(scales), block_bytes(type_name)), payload, dtype=np.uint8)
    for row, halves in enumerate(scales):
        for offset, half in zip(HALF_FIELDS[type_name], halves, strict=False):
            blocks[row, offset : offset + 2] = np.array([half], "<u2").view(np.uint8)
    assert_same_bits(type_name, blocks)


@pytest.mark.parametrize("type_name", ["F16", "BF16"])
def test_every_half_dequantizes_as_gguf_does(type_name: str) -> None:
    halves = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    assert_same_bits(type_name, halves)


def test_ids_and_sizes_are_those_of_gguf() -> None:
    for name, type_id in TENSOR_TYPES.items():
        assert gguf.GGMLQuantizationType(type_id).name == name
        block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_id)]
        assert (block_size(name), row_bytes(name, 256)) == (block, 256 // block * n_bytes)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="type Q9_Z is not supported"):
        dequantize("Q9_Z", b"", 0)


@pytest.mark.parametrize(("n_bytes", "n"), [(18, 31), (17, 32), (36, 32), (0, 32)])
def test_a_row_of_the_wrong_size_is_refused(n_bytes: int, n: int) -> None:
    with pytest.raises(EngineError, match="Q4_0"):
        dequantize("Q4_0", bytes(n_bytes), n)
