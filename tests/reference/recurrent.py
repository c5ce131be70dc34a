"""Mixers of layers that have a state in place of attention, over one whole sequence.

LFM2's short convolution: its report (arXiv 2511.23404, section 2) and transformers'
``modeling_lfm2.py``, ``Lfm2ShortConv``. Gated DeltaNet: arXiv 2412.06464, equation 10, and
transformers' ``modeling_qwen3_next.py``, ``torch_recurrent_gated_delta_rule``. Mamba-2: arXiv
2405.21060, section 7 and listing 1, and transformers' ``modeling_mamba2.py``.
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


def _silu(x: Array) -> Array:
    result: Array = x / (1 + np.exp(-x))
    return result


def _unit(x: Array, eps: float) -> Array:
    result: Array = x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps)
    return result


def delta_net(model: ReferenceModel, linear: Linear, x: Array, layer: str) -> Array:
    """Return what the mixer makes of normed rows x: (n_tokens, dim)."""
    hp = model.hyperparameters
    n_k, n_v, n = hp.ssm_groups, hp.ssm_heads, hp.ssm_state

    def values(name: str) -> Array:
        result: Array = model.weight(layer + name).values.astype(x.dtype)
        return result

    u = _silu(convolve(linear(x, layer + "attn_qkv"), values("ssm_conv1d.weight")))
    heads = u.reshape(len(x), 2 * n_k + n_v, n)
    of_v = np.arange(n_v) % n_k  # the head of q and k that each head of v has
    q = _unit(heads[:, :n_k], hp.norm_eps)[:, of_v] / np.sqrt(n)
    k = _unit(heads[:, n_k : 2 * n_k], hp.norm_eps)[:, of_v]
    v = heads[:, 2 * n_k :]
    beta = 1 / (1 + np.exp(-linear(x, layer + "ssm_beta")))
    step = np.logaddexp(0, linear(x, layer + "ssm_alpha") + values("ssm_dt.bias"))
    decay = np.exp(values("ssm_a") * step)
    state = np.zeros((n_v, n, n), dtype=x.dtype)
    out = np.empty_like(v)
    for t in range(len(x)):
        state = state * decay[t][:, None, None]
        error = beta[t][:, None] * (v[t] - np.einsum("hij,hi->hj", state, k[t]))
        state = state + k[t][:, :, None] * error[:, None, :]
        out[t] = np.einsum("hij,hi->hj", state, q[t])
    scale = np.sqrt(np.mean(out * out, axis=-1, keepdims=True) + hp.norm_eps)
    z = _silu(linear(x, layer + "attn_gate").reshape(out.shape))
    mixed = out / scale * values("ssm_norm.weight") * z
    return linear(mixed.reshape(len(x), -1), layer + "ssm_out")


def state_space(model: ReferenceModel, linear: Linear, x: Array, layer: str) -> Array:
    """Return what the mixer makes of normed rows x: (n_tokens, dim)."""
    hp = model.hyperparameters
    inner, n_heads, n_groups, n = hp.ssm_inner, hp.ssm_heads, hp.ssm_groups, hp.ssm_state

    def values(name: str) -> Array:
        result: Array = model.weight(layer + name).values.astype(x.dtype)
        return result

    channels = inner + 2 * n_groups * n
    z, u, dt = np.split(linear(x, layer + "ssm_in"), [inner, inner + channels], axis=1)
    u = _silu(convolve(u, values("ssm_conv1d.weight")) + values("ssm_conv1d.bias"))
    heads, b, c = np.split(u, [inner, inner + n_groups * n], axis=1)
    heads = heads.reshape(len(x), n_heads, -1)
    group = np.arange(n_heads) // (n_heads // n_groups)  # whose B and C each head has
    b, c = (m.reshape(len(x), n_groups, n)[:, group] for m in (b, c))
    dt = np.logaddexp(0, dt + values("ssm_dt.bias"))
    decay = np.exp(dt * values("ssm_a").ravel())
    state = np.zeros((n_heads, n, heads.shape[2]), dtype=x.dtype)
    y = np.empty_like(heads)
    for t in range(len(x)):
        added = b[t][:, :, None] * (dt[t][:, None] * heads[t])[:, None, :]
        state = state * decay[t][:, None, None] + added
        y[t] = np.einsum("hnp,hn->hp", state, c[t]) + values("ssm_d").ravel()[:, None] * heads[t]
    y = y.reshape(len(x), -1) * _silu(z)
    if model.find(layer + "ssm_norm.weight") is not None:
        grouped = y.reshape(len(x), n_groups, -1)
        mean_square = np.mean(grouped * grouped, axis=-1, keepdims=True)
        y = (grouped / np.sqrt(mean_square + hp.norm_eps)).reshape(y.shape)
        y = y * values("ssm_norm.weight").ravel()
    return linear(y, layer + "ssm_out")
