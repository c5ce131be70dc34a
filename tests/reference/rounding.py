"""The roundings the engine makes on purpose, so that a comparison can be tight.

The engine multiplies quantized weights with activations quantized to int8 in blocks (kernels.h), in
two levels where forward.h says so, and keeps keys and values as f16, q8_0 or, rotated, q4_0. With
these modelled, what remains between the oracle and the engine is float32 arithmetic; without them
(``EXACT``) the oracle is the model of the papers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reference.model import Array

ZERO_BLOCK = 1e-30  # a block whose largest magnitude is below is all zeros
F16_MAX = 65504.0

_BLOCK_32 = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q1_0", "Q2_0", "MXFP4"})
_BLOCK_256 = frozenset(
    {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}
    | {"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"}
)


@dataclass(frozen=True, slots=True)
class Rounding:
    """Which roundings to make.

    kv_type: None (exact), "f16", "q8_0", "q4_0", or "q4_0 unrotated", which the engine has not.
    """

    activations: bool
    kv_type: str | None


EXACT = Rounding(activations=False, kv_type=None)


def engine_rounding(kv_type: str) -> Rounding:
    """Return the roundings of an engine with this KV cache."""
    return Rounding(activations=True, kv_type=kv_type)


def _int8_blocks(x: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Quantize the last axis as one block: int8 values as float32, and the scale amax/127."""
    values = x.astype(np.float32)
    amax = np.abs(values).max(axis=-1, keepdims=True)
    inverse = np.where(amax < ZERO_BLOCK, 0, np.float32(127) / np.maximum(amax, ZERO_BLOCK))
    scale = np.where(amax < ZERO_BLOCK, 0, amax / np.float32(127))
    return np.rint(values * inverse.astype(np.float32)), scale.astype(np.float32)


def round_activations(x: Array, weight_type: str, *, fine: bool) -> Array:
    """Return rows (n_tokens, n), from position 0 on, as a weight of this type meets them.

    ``fine``: every row in two levels, what the first has lost quantized again; else the first row.
    """
    block = 32 if weight_type in _BLOCK_32 else 256 if weight_type in _BLOCK_256 else None
    if block is None:
        return x
    rounded = _one_level(x, block)
    n_fine = x.shape[0] if fine else 1
    rounded[:n_fine] += _one_level(x[:n_fine] - rounded[:n_fine], block)
    return rounded


def _one_level(x: Array, block: int) -> Array:
    y, scale = _int8_blocks(x.reshape(x.shape[0], -1, block))
    return (y.astype(x.dtype) * scale).reshape(x.shape)


def round_kv(x: Array, kv_type: str | None) -> Array:
    """Return keys or values (n_tokens, n_kv_heads, head_dim) as the cache gives them back."""
    if kv_type is None:
        return x
    if kv_type == "f16":
        return np.clip(x, -F16_MAX, F16_MAX).astype(np.float16).astype(x.dtype)
    x = hadamard(x) if kv_type == "q4_0" else x
    groups = [x[..., start : start + 32] for start in range(0, x.shape[-1], 32)]
    rounded = np.concatenate([_kv_group(group, kv_type) for group in groups], axis=-1)
    return hadamard(rounded) if kv_type == "q4_0" else rounded


def _kv_group(x: Array, kv_type: str) -> Array:
    """Round the last axis as one group with one scale: amax/127, or in 4 bits largest/-8."""
    if kv_type == "q8_0":
        y, scale = _int8_blocks(x)
        rounded: Array = y.astype(x.dtype) * scale.astype(np.float16).astype(x.dtype)
        return rounded
    values = x.astype(np.float32)
    at = np.abs(values).argmax(axis=-1, keepdims=True)
    step = np.take_along_axis(values, at, axis=-1) / np.float32(-8)
    step = np.clip(step, -F16_MAX, F16_MAX).astype(np.float16).astype(np.float32)
    inverse = np.float32(1) / np.where(step == 0, np.float32(np.inf), step)
    levels: Array = np.rint(np.clip(values * inverse, -8, 7)) * step
    return levels.astype(x.dtype)


def hadamard(x: Array) -> Array:
    """Return the last axis times the orthonormal Walsh-Hadamard matrix, which is its own inverse.

    An axis whose size is no power of two is cut: the largest that fits, then that of the rest.
    """
    parts, first = [], 0
    while first < x.shape[-1]:
        block = 1 << ((x.shape[-1] - first).bit_length() - 1)
        matrix = np.ones((1, 1), x.dtype)
        while matrix.shape[0] < block:
            matrix = np.block([[matrix, matrix], [matrix, -matrix]])
        part = x[..., first : first + block] @ matrix
        parts.append(part / np.sqrt(x.dtype.type(block)))
        first += block
    return np.concatenate(parts, axis=-1)
