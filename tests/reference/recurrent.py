"""Mixers of layers that have a state in place of attention, over one whole sequence.

LFM2's short convolution: its report (arXiv 2511.23404, section 2) and transformers'
``modeling_lfm2.py``, ``Lfm2ShortConv``.
"""

from collections.abc import Callable

import numpy as np

from reference.model import Array, ReferenceModel

Linear = Callable[[Array, str], Array]


def convolve(x: Array, weights: Array) -> Array:
    """Causal convolution of each channel. x: (n_tokens, n); weights: (n, width), newest last."""
    width = weights.shape[1]
    before = np.concatenate([np.zeros((width - 1, x.shape[1]), dtype=x.dtype), x])
    parts = [before[j : j + x.shape[0]] * weights[:, j].astype(x.dtype) for j in range(width)]
    result: Array = np.sum(parts, axis=0)
    return result


def short_convolution(model: ReferenceModel, linear: Linear, x: Array, layer: str) -> Array:
    """Return what the mixer makes of normed rows x: (n_tokens, dim)."""
    b, c, u = np.split(linear(x, layer + "shortconv.in_proj"), 3, axis=1)
    y = c * convolve(b * u, model.weight(layer + "shortconv.conv.weight").values)
    return linear(y, layer + "shortconv.out_proj")
