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
from reference.rope import angles, rotate
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


FAMILIES: Mapping[str, Family] = {
    "llama": Family(neox=False, head_norm=False),
    "qwen2": Family(neox=True, head_norm=False),
    "qwen3": Family(neox=True, head_norm=True),
    "olmo2": Family(
        neox=True,
        head_norm=False,
        row_norm=True,
        norms=(None, "post_attention_norm", None, "post_ffw_norm"),
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

    def attention(self, x: Array, layer: str, cos: Array, sin: Array) -> Array:
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
        future = np.triu(np.ones((n_tokens, n_tokens), dtype=bool), k=1)
        scores = np.where(future, self.dtype(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n_tokens, -1)
        return self.linear(mixed, layer + "attn_output")

    def feed_forward(self, x: Array, layer: str) -> Array:
        """SwiGLU. x: (n_tokens, dim), normed."""
        gate = self.linear(x, layer + "ffn_gate")
        up = self.linear(x, layer + "ffn_up")
        return self.linear(gate / (1 + np.exp(-gate)) * up, layer + "ffn_down")

    def run(self, tokens: Sequence[int]) -> Array:
        """Return the logits of every token."""
        x: Array = self.model.weight("token_embd.weight").values[np.asarray(tokens)]
        x = x.astype(self.dtype)
        freqs = self.model.find("rope_freqs.weight")
        cos, sin = angles(self.hp, np.arange(len(tokens)), None if freqs is None else freqs.values)
        for index in range(self.hp.n_layers):
            layer = f"blk.{index}."
            before, after, before_feed, after_feed = self.family.norms
            mixed = self.attention(self.layer_norm(x, layer, before), layer, cos, sin)
            x = x + self.layer_norm(mixed, layer, after)
            fed = self.feed_forward(self.layer_norm(x, layer, before_feed), layer)
            x = x + self.layer_norm(fed, layer, after_feed)
        x = self.norm(x, "output_norm.weight")
        if self.model.find("output.weight") is not None:
            return self.linear(x, "output")
        return self.biased(self.linear(x, "token_embd"), "output")


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
