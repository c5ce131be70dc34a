"""BERT (arXiv 1810.04805) and Nomic's (arXiv 2402.01613) over one whole text, in float64.

Every token sees every other. Norms are behind the sum of a half and its input. Nomic's has RoPE in
place of learned positions, one matrix for q, k and v, and a SiLU gate.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reference.model import Array, ReferenceModel, load
from reference.rounding import EXACT, Rounding, round_activations, round_kv

Rows = Array


def encode(path: Path, tokens: Sequence[int], rounding: Rounding = EXACT) -> Rows:
    """Return what the last layer leaves of each token: (n_tokens, dim)."""
    return _Encoder(load(path), rounding).run(tokens)


def rank(path: Path, tokens: Sequence[int], rounding: Rounding = EXACT) -> Rows:
    """Return the scores of a text by a model that ranks: of its first token's row (n_scores,)."""
    return _Encoder(load(path), rounding).rank(tokens)


class _Encoder:
    def __init__(self, model: ReferenceModel, rounding: Rounding) -> None:
        self._model = model
        self._rounding = rounding
        self._hp = model.hyperparameters

    def _values(self, name: str) -> Rows:
        return self._model.weight(name).values.astype(np.float64)

    def _linear(self, x: Rows, name: str, *, fine: bool = False) -> Rows:
        """fine: the engine rounds x in two levels."""
        bias, weight = self._model.find(f"{name}.bias"), self._model.weight(f"{name}.weight")
        if self._rounding.activations:
            x = round_activations(x, weight.type_name, fine=fine)
        y: Rows = x @ weight.values.astype(np.float64).T
        return y if bias is None else y + bias.values

    def _norm(self, x: Rows, name: str) -> Rows:
        centered = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + self._hp.norm_eps)
        y: Rows = centered / scale * self._values(f"{name}.weight") + self._values(f"{name}.bias")
        return y

    def _turned(self, x: Rows) -> Rows:
        """RoPE of the halves of heads: (n_tokens, n_heads, head_dim)."""
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(x.shape[0]), self._hp.rope_base ** (-np.arange(half) / half))[
            :, None, :
        ]
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    def _attention(self, x: Rows, layer: str) -> Rows:
        n, heads = x.shape[0], self._hp.n_heads
        if self._model.find(f"{layer}attn_qkv.weight") is None:
            parts = [self._linear(x, f"{layer}attn_{name}", fine=name == "v") for name in "qkv"]
        else:
            q, k, _ = np.split(self._linear(x, f"{layer}attn_qkv"), 3, axis=1)
            v = np.split(self._linear(x, f"{layer}attn_qkv", fine=True), 3, axis=1)[2]
            parts = [q, k, v]
        q, k, v = (part.reshape(n, heads, -1) for part in parts)
        if self._model.find("position_embd.weight") is None:
            q, k = self._turned(q), self._turned(k)
        k, v = (round_kv(part, self._rounding.kv_type) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1)
        return self._linear(mixed, f"{layer}attn_output")

    def _feed_forward(self, x: Rows, layer: str) -> Rows:
        up = self._linear(x, f"{layer}ffn_up")
        if self._model.find(f"{layer}ffn_gate.weight") is not None:
            gate = self._linear(x, f"{layer}ffn_gate")
            return self._linear(gate / (1 + np.exp(-gate)) * up, f"{layer}ffn_down")
        gelu = up * (1 + np.vectorize(math.erf)(up / np.sqrt(2))) / 2
        return self._linear(gelu, f"{layer}ffn_down")

    def rank(self, tokens: Sequence[int]) -> Rows:
        """Return the scores by the first token's row."""
        row = self.run(tokens)[:1]
        if self._model.find("cls.weight") is not None:
            row = np.tanh(self._linear(row, "cls"))
        scores: Rows = self._linear(row, "cls.output")[0]
        return scores

    def run(self, tokens: Sequence[int]) -> Rows:
        """Return the rows behind the last layer."""
        x = self._values("token_embd.weight")[list(tokens)] + self._values("token_types.weight")[0]
        if self._model.find("position_embd.weight") is not None:
            x = x + self._values("position_embd.weight")[: len(tokens)]
        x = self._norm(x, "token_embd_norm")
        for i in range(self._hp.n_layers):
            layer = f"blk.{i}."
            x = self._norm(x + self._attention(x, layer), f"{layer}attn_output_norm")
            x = self._norm(x + self._feed_forward(x, layer), f"{layer}layer_output_norm")
        return x
