"""Quantization through the bindings: the legacy blocks of ``gguf``, and buffers of all kinds.

The C tests bound every type's error; here the independent implementation is the measure.
"""

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llamad.engine.bindings import TENSOR_TYPES, EngineError, requantize, row_bytes

N_COLS = 512
LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
READ_ONLY = {  # and what the refusal advises
    "Q1_0": "trained in it",
    "Q2_0": "trained in it",
    "IQ2_XXS": "write Q2_K",
    "IQ2_XS": "write Q2_K",
    "IQ2_S": "write Q2_K",
    "IQ3_XXS": "write Q3_K",
    "IQ3_S": "write Q3_K",
    "MXFP4": "write Q4_K",
}
BLOCK_TYPES = sorted(set(TENSOR_TYPES) - {"F32", "F16", "BF16", *READ_ONLY})

# Levels that lie on a border round up or down by the order of the multiplications: none or a few in
# a hundred thousand.
BORDER_SHARE = 1e-4

Blocks = NDArray[np.uint8]
Floats = NDArray[np.float32]


def quantize(type_name: str, weights: Floats, importance: Floats | None = None) -> Blocks:
    """weights: (n_rows, N_COLS) -> (n_rows, row_bytes)."""
    out = bytearray(len(weights) * row_bytes(type_name, N_COLS))
    requantize(
        "F32",
        weights.data,
        type_name,
        out,
        N_COLS,
        importance=None if importance is None else importance.data,
        n_threads=2,
    )
    return np.frombuffer(out, np.uint8).reshape(len(weights), -1)


def theirs(type_name: str, weights: Floats) -> Blocks:
    blocks: Blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[type_name])
    return blocks.view(np.uint8)


def values(type_name: str, blocks: Blocks) -> Floats:
    result: Floats = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type_name])
    return result


def random_weights(n_rows: int, scale: float = 0.02) -> Floats:
    return np.random.default_rng(5).normal(0, scale, (n_rows, N_COLS)).astype(np.float32)


@pytest.mark.parametrize("type_name", ["F16", "BF16"])
def test_halves_are_those_of_gguf(type_name: str) -> None:
    weights = random_weights(64)
    weights[0, :8] = [0.0, -0.0, 1e-8, 6e-8, 65504.0, -65504.0, 1 + 2**-11, 1 + 3 * 2**-11]
    assert np.array_equal(quantize(type_name, weights), theirs(type_name, weights))


@pytest.mark.parametrize("type_name", READ_ONLY)
def test_types_that_are_only_read_are_not_written(type_name: str) -> None:
    out = bytearray(row_bytes(type_name, 256))
    advice = READ_ONLY[type_name]
    with pytest.raises(EngineError, match=f"{type_name} can be read, not written: .*{advice}"):
        requantize("F32", bytes(4 * 256), type_name, out, 256)


@pytest.mark.parametrize("type_name", LEGACY)
def test_legacy_blocks_are_those_of_gguf(type_name: str) -> None:
    weights = random_weights(256)
    weights[0] = 0
    weights[1, 7], weights[1, 9] = 0.5, -0.5  # the first of equal magnitudes decides
    weights[2, 7], weights[2, 9] = -0.5, 0.5
    ours, reference = quantize(type_name, weights), theirs(type_name, weights)
    assert np.mean(ours != reference) < BORDER_SHARE
    error = np.sqrt(np.mean((values(type_name, ours) - weights) ** 2))
    expected = np.sqrt(np.mean((values(type_name, reference) - weights) ** 2))
    assert error == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("type_name", BLOCK_TYPES)
def test_more_bits_err_less(type_name: str) -> None:
    weights = random_weights(64)
    error = values(type_name, quantize(type_name, weights)) - weights
    bits = 8 * row_bytes(type_name, N_COLS) / N_COLS
    # A step of 2 * 2.5 deviations in 2^bits, uniformly: no format is far from that.
    expected = 0.02 * 5.0 / 2 ** (bits - 0.5) / np.sqrt(12)
    assert 0.5 < np.sqrt(np.mean(error**2)) / expected < 2.0


@pytest.mark.parametrize("type_name", [name for name in BLOCK_TYPES if name != "Q8_0"])
def test_importance_lowers_the_error_of_what_matters(type_name: str) -> None:
    weights = random_weights(64)
    importance = np.ones(N_COLS, np.float32)
    importance[::8] = 100.0
    plain = values(type_name, quantize(type_name, weights)) - weights
    informed = values(type_name, quantize(type_name, weights, importance)) - weights
    assert np.mean(informed[:, ::8] ** 2) < 0.8 * np.mean(plain[:, ::8] ** 2)


def test_requantizing_reads_any_type() -> None:
    blocks = quantize("Q6_K", random_weights(16))
    halves = values("Q6_K", blocks).astype(np.float16)
    out = bytearray(halves.nbytes)
    requantize("Q6_K", blocks.data, "F16", out, N_COLS)
    assert bytes(out) == halves.tobytes()


def test_a_weight_that_is_not_finite_is_named() -> None:
    weights = random_weights(8)
    weights[6, 100] = np.nan
    with pytest.raises(EngineError, match="row 6 column 100 is nan, Q4_K holds at most 65504"):
        quantize("Q4_K", weights)


@pytest.mark.parametrize(
    ("source_bytes", "target_bytes", "n_cols"), [(128, 17, 32), (127, 18, 32), (128, 18, 33)]
)
def test_buffers_of_the_wrong_size_are_refused(
    source_bytes: int, target_bytes: int, n_cols: int
) -> None:
    with pytest.raises(ValueError, match="do not fit as Q4_0"):
        requantize("F32", bytes(source_bytes), "Q4_0", bytearray(target_bytes), n_cols)


def test_importance_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="importance of 32 columns"):
        requantize("F32", bytes(128), "Q4_0", bytearray(18), 32, importance=bytes(124))


def test_a_target_that_is_read_only_is_refused() -> None:
    with pytest.raises((BufferError, TypeError, ValueError)):
        requantize("F32", bytes(128), "Q4_0", bytes(18), 32)
