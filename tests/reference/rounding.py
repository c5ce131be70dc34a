"""The roundings the engine makes on purpose, so that a comparison can be tight.

The engine multiplies quantized weights with activations quantized to int8 in blocks (kernels.h), in
two levels where forward.h says so, and keeps keys and values as f16 or q8_0. With these modelled,
what remains between the oracle and the engine is float32 arithmetic; without them (``EXACT``) the
oracle is the model of the papers.
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
    """Which roundings to make. kv_type: None (exact), "f16" or "q8_0"."""

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
    groups = [x[..., start : start + 32] for start in range(0, x.shape[-1], 32)]
    rounded = []
    for group in groups:
        y, scale = _int8_blocks(group)
        rounded.append(y.astype(x.dtype) * scale.astype(np.float16).astype(x.dtype))
    return np.concatenate(rounded, axis=-1)
