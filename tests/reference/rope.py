"""Rotary position embedding (RoFormer, arXiv 2104.09864) and its context extensions.

Linear interpolation: arXiv 2306.15595. YaRN: arXiv 2309.00071, section 3. Llama 3.1's scaling by
wavelength: Meta's llama-models, ``apply_scaling``; as per-pair divisors in ``rope_freqs.weight``.
"""

import math

import numpy as np
from numpy.typing import NDArray

from reference.families import FAMILIES
from reference.model import Array, Hyperparameters

BETA_FAST, BETA_SLOW = 32.0, 1.0  # YaRN: turns within the original context; its section 3.2


def _yarn_ramp(hp: Hyperparameters) -> NDArray[np.float64]:
    """Return how much of each pair's angle is interpolated: (n_rot/2), 0 = kept, 1 = interpolated.

    A pair i makes L*base^(-2i/n)/(2 pi) turns over the original context L. Pairs with more than
    BETA_FAST turns are kept, with fewer than BETA_SLOW interpolated, linearly between (by index).
    """

    def index(turns: float) -> float:
        ratio = hp.rope_original_context / (turns * 2 * math.pi)
        return hp.n_rot * math.log(ratio) / (2 * math.log(hp.rope_base))

    low, high = index(BETA_FAST), index(BETA_SLOW)
    if not FAMILIES[hp.architecture].splits_yarn_pairs:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0.0, low), min(hp.n_rot - 1.0, high)
    pairs = np.arange(hp.n_rot // 2)
    return np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)


def _llama3(hp: Hyperparameters, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the frequencies that turn too rarely within the original context by the factor.

    Pairs with at least ``high`` turns are kept, with at most ``low`` divided, smoothly between.
    """
    turns = hp.rope_original_context * frequencies / (2 * math.pi)
    low, high = hp.rope_low_turns, hp.rope_high_turns
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / hp.rope_factor


def angles(
    hp: Hyperparameters, positions: NDArray[np.int64], divisors: Array | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cos and sin, (n_tokens, n_rot/2), with YaRN's magnitude correction multiplied in."""
    frequencies = hp.rope_base ** (-np.arange(0, hp.n_rot, 2, dtype=np.float64) / hp.n_rot)
    if divisors is not None:
        frequencies = frequencies / divisors
    magnitude = hp.rope_attn_factor
    if hp.rope_scaling == "linear":
        frequencies = frequencies / hp.rope_factor
    elif hp.rope_scaling == "llama3":
        frequencies = _llama3(hp, frequencies)
    elif hp.rope_scaling == "yarn":
        ramp = _yarn_ramp(hp)
        frequencies = frequencies * (1 - ramp) + frequencies / hp.rope_factor * ramp
        growth = 0.1 * math.log(max(1.0, hp.rope_factor))
        magnitude *= (1.0 + growth) / (1.0 + hp.yarn_log_multiplier * growth)
    angle = positions[:, None] * frequencies[None, :]
    return np.cos(angle) * magnitude, np.sin(angle) * magnitude


def local_angles(
    hp: Hyperparameters, positions: NDArray[np.int64], base: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cos and sin of layers with a base of their own, which no context extension scales."""
    n_rot = hp.local_n_rot or hp.n_rot
    frequencies = base ** (-np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)
    angle = positions[:, None] * frequencies[None, :]
    return np.cos(angle), np.sin(angle)


def rotate(x: Array, cos: Array, sin: Array, *, neox: bool) -> Array:
    """Turn the first n_rot dimensions of every head. x: (n_tokens, n_heads, head_dim).

    The pairs are neighbours (2i, 2i+1), or with ``neox`` the halves (i, i + n_rot/2).
    """
    n_pairs = cos.shape[1]
    first = slice(0, n_pairs) if neox else slice(0, 2 * n_pairs, 2)
    second = slice(n_pairs, 2 * n_pairs) if neox else slice(1, 2 * n_pairs, 2)
    a, b = x[..., first], x[..., second]
    c, s = cos[:, None, :].astype(x.dtype), sin[:, None, :].astype(x.dtype)
    result = x.copy()
    result[..., first] = a * c - b * s
    result[..., second] = a * s + b * c
    return result
