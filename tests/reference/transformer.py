"""The forward pass of the LLaMA family over one whole sequence.

Sources: LLaMA (arXiv 2302.13971): pre-norm, RMSNorm (arXiv 1910.07467), SwiGLU (arXiv 2002.05202);
grouped-query attention (arXiv 2305.13245); Qwen2 (arXiv 2407.10671): biases on q, k and v; Qwen3
(arXiv 2505.09388): RMSNorm of every query and key head before RoPE; OLMo 2 (arXiv 2501.00656,
section 3.2): norms after attention and feed-forward, none before, and RMSNorm of all queries, and
all keys, of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.model import Array, Hyperparameters, ReferenceModel
from reference.rope import angles, local_angles, rotate
from reference.rounding import EXACT, Rounding, round_activations, round_kv


@dataclass(frozen=True, slots=True)
class Family:
    """What a family does differently; biases are where the file has them."""

    neox: bool  # RoPE turns the halves of a head instead of neighbours
    head_norm: bool  # RMSNorm of each query and key head
    row_norm: bool = False  # RMSNorm of all queries, and all keys, of a token together
    # Norms before and after the mixer, before and after the feed-forward; None: there is none.
    norms: tuple[str | None, str | None, str | None, str | None] = (
        *("attn_norm", None),
        *("ffn_norm", None),
    )

    # Gemma (Google DeepMind, arXiv 2403.08295, 2408.00118, 2503.19786; gemma_pytorch model.py):
    gemma: bool = False  # the embedding times sqrt(dim), GELU by tanh for the gate
    window_period: int = 0  # layer N is local unless N % period == period - 1; 0: no windows
    local_rope_base: float | None = None  # of local layers, where the file does not say
    attention_softcap: float = 0.0  # s = c tanh(s / c) before the mask; 0: none
    logits_softcap: float = 0.0


_FOUR_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")

FAMILIES: Mapping[str, Family] = {
    "llama": Family(neox=False, head_norm=False),
    "qwen2": Family(neox=True, head_norm=False),
    "qwen3": Family(neox=True, head_norm=True),
    # M-RoPE (arXiv 2409.12191) of text, whose positions are all the same, is RoPE.
    "qwen2vl": Family(neox=True, head_norm=False),
    "qwen3vl": Family(neox=True, head_norm=True),
    "ernie4_5": Family(neox=False, head_norm=False),
    "internlm2": Family(neox=False, head_norm=False),
    "olmo2": Family(
        neox=True,
        head_norm=False,
        row_norm=True,
        norms=(None, "post_attention_norm", None, "post_ffw_norm"),
    ),
    "gemma": Family(neox=True, head_norm=False, gemma=True),
    "gemma2": Family(
        neox=True,
        head_norm=False,
        norms=_FOUR_NORMS,
        gemma=True,
        window_period=2,
        attention_softcap=50.0,
        logits_softcap=30.0,
    ),
    "gemma3": Family(
        neox=True,
        head_norm=True,
        norms=_FOUR_NORMS,
        gemma=True,
        window_period=6,
        local_rope_base=10000.0,
    ),
}


class _Pass:
    """One forward pass: the model, the roundings and the number type."""

    def __init__(self, model: ReferenceModel, rounding: Rounding, dtype: type[Any]) -> None:
        self.model = model
        self.hp: Hyperparameters = model.hyperparameters
        self.family = FAMILIES[self.hp.architecture]
        self.rounding = rounding
        self.dtype = dtype

    def norm(self, x: Array, name: str) -> Array:
        """RMSNorm over the last axis."""
        weight = self.model.weight(name).values.astype(self.dtype)
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        result: Array = x / np.sqrt(mean_square + self.hp.norm_eps) * weight
        return result

    def layer_norm(self, x: Array, layer: str, name: str | None) -> Array:
        """One of a layer's norms; x where the family has none there."""
        return x if name is None else self.norm(x, f"{layer}{name}.weight")

    def linear(self, x: Array, name: str) -> Array:
        """x: (n_tokens, columns) -> (n_tokens, rows), with the layer's bias where there is one."""
        weight = self.model.weight(name + ".weight")
        if self.rounding.activations:
            fine = name.endswith("attn_v") or "blk." not in name
            x = round_activations(x, weight.type_name, fine=fine)
        y: Array = x @ weight.values.astype(self.dtype).T
        return self.biased(y, name)

    def biased(self, y: Array, name: str) -> Array:
        """Add the bias of a matrix where the file has one."""
        bias = self.model.find(name + ".bias")
        return y if bias is None else y + bias.values.astype(self.dtype)

    def window(self, index: int) -> int:
        """How many tokens layer ``index`` sees, the own included; 0: all."""
        period = self.hp.window_pattern or self.family.window_period
        if self.family.window_period == 0 or self.hp.window == 0:
            return 0
        local = index % period < period - 1 if isinstance(period, int) else period[index]
        return self.hp.window if local else 0

    def attention(self, x: Array, layer: str, cos: Array, sin: Array, window: int) -> Array:
        """Causal grouped-query attention. x: (n_tokens, dim), normed."""
        n_tokens, hp = x.shape[0], self.hp
        q, k = self.linear(x, layer + "attn_q"), self.linear(x, layer + "attn_k")
        if self.family.row_norm:
            q = self.norm(q, layer + "attn_q_norm.weight")
            k = self.norm(k, layer + "attn_k_norm.weight")
        q = q.reshape(n_tokens, hp.n_heads, hp.head_dim)
        k = k.reshape(n_tokens, hp.n_kv_heads, hp.head_dim)
        v = self.linear(x, layer + "attn_v").reshape(n_tokens, hp.n_kv_heads, hp.head_dim)
        if self.family.head_norm:
            q = self.norm(q, layer + "attn_q_norm.weight")
            k = self.norm(k, layer + "attn_k_norm.weight")
        q = rotate(q, cos, sin, neox=self.family.neox)
        k = round_kv(rotate(k, cos, sin, neox=self.family.neox), self.rounding.kv_type)
        v = round_kv(v, self.rounding.kv_type)
        group = hp.n_heads // hp.n_kv_heads  # query heads that share one key/value head
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / self.dtype(np.sqrt(hp.head_dim))
        scores = softcap(scores, self.hp.attention_softcap, self.family.attention_softcap)
        behind = np.arange(n_tokens)[:, None] - np.arange(n_tokens)[None, :]
        hidden = (behind < 0) | ((behind >= window) if window else False)
        scores = np.where(hidden, self.dtype(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n_tokens, -1)
        return self.linear(mixed, layer + "attn_output")

    def feed_forward(self, x: Array, layer: str) -> Array:
        """SwiGLU, or GeGLU. x: (n_tokens, dim), normed."""
        gate = self.linear(x, layer + "ffn_gate")
        up = self.linear(x, layer + "ffn_up")
        if self.family.gemma:
            inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
            return self.linear(0.5 * gate * (1 + np.tanh(inner)) * up, layer + "ffn_down")
        return self.linear(gate / (1 + np.exp(-gate)) * up, layer + "ffn_down")

    def run(self, tokens: Sequence[int]) -> Array:
        """Return the logits of every token."""
        x: Array = self.model.weight("token_embd.weight").values[np.asarray(tokens)]
        x = x.astype(self.dtype)
        if self.family.gemma:
            x = x * self.dtype(np.sqrt(self.hp.dim))
        freqs = self.model.find("rope_freqs.weight")
        cos, sin = angles(self.hp, np.arange(len(tokens)), None if freqs is None else freqs.values)
        base = self.family.local_rope_base
        base = base and (self.hp.local_rope_base or base)
        local = local_angles(self.hp, np.arange(len(tokens)), base) if base else (cos, sin)
        for index in range(self.hp.n_layers):
            layer = f"blk.{index}."
            before, after, before_feed, after_feed = self.family.norms
            window = self.window(index)
            turn = local if window else (cos, sin)
            mixed = self.attention(self.layer_norm(x, layer, before), layer, *turn, window)
            x = x + self.layer_norm(mixed, layer, after)
            fed = self.feed_forward(self.layer_norm(x, layer, before_feed), layer)
            x = x + self.layer_norm(fed, layer, after_feed)
        x = self.norm(x, "output_norm.weight")
        if self.model.find("output.weight") is not None:
            logits = self.linear(x, "output")
        else:
            logits = self.biased(self.linear(x, "token_embd"), "output")
        return softcap(logits, self.hp.logits_softcap, self.family.logits_softcap)


def softcap(x: Array, limit: float | None, default: float) -> Array:
    """Bound x smoothly by the file's limit, or the family's; 0: not at all."""
    limit = default if limit is None else limit
    return x if limit == 0 else limit * np.tanh(x / limit)


def forward(
    model: ReferenceModel,
    tokens: Sequence[int],
    rounding: Rounding = EXACT,
    dtype: type[Any] = np.float64,
) -> Array:
    """Return the logits (n_tokens, vocab_size) of one sequence that starts at position 0."""
    return _Pass(model, rounding, dtype).run(tokens)


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Return natural log-probabilities over the last axis."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
