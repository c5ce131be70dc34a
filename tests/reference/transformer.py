"""The forward pass of the LLaMA family over one whole sequence.

Sources: LLaMA (arXiv 2302.13971): pre-norm, RMSNorm (arXiv 1910.07467), SwiGLU (arXiv 2002.05202);
grouped-query attention (arXiv 2305.13245). What families do differently: ``families.py``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.experts import Routes, mixture
from reference.families import FAMILIES
from reference.model import Array, Hyperparameters, ReferenceModel, Weight
from reference.recurrent import delta_net, short_convolution, state_space
from reference.rope import angles, local_angles, rotate
from reference.rounding import EXACT, Rounding, round_activations, round_kv

FINE = ("attn_v", "shortconv.out_proj", "ssm_out")  # whose inputs the engine rounds in two levels

Turn = tuple[Array, Array]  # cos and sin of each token, (n_tokens, n_rot / 2) each


class _Pass:
    """One forward pass: the model, the roundings and the number type."""

    def __init__(
        self,
        model: ReferenceModel,
        rounding: Rounding,
        dtype: type[Any],
        *,
        long_rope: bool = False,
        routes: Routes | None = None,
    ) -> None:
        self.model = model
        self.hp: Hyperparameters = model.hyperparameters
        self.family = FAMILIES[self.hp.architecture]
        self.rounding = rounding
        self.dtype = dtype
        self.long_rope = long_rope
        self.routes = routes or Routes()
        self.keys_values: dict[int, tuple[Array, Array]] = {}  # of each layer that has its own

    def norm(self, x: Array, name: str) -> Array:
        """RMSNorm over the last axis."""
        weight = self.model.weight(name).values.astype(self.dtype)
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        result: Array = x / np.sqrt(mean_square + self.hp.norm_eps) * weight
        return result

    def row_norm(self, x: Array, name: str | None) -> Array:
        """RMSNorm or LayerNorm of each token; x where the family has none there."""
        if name is None:
            return x
        if not self.family.layer_norm:
            # Falcon-H1's files have one whose name ends there
            return self.norm(x, name if self.model.find(name) else f"{name}.weight")
        centered = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centered * centered, axis=-1, keepdims=True)
        weight = self.model.weight(f"{name}.weight").values.astype(self.dtype)
        return self.biased(centered / np.sqrt(variance + self.hp.norm_eps) * weight, name)

    def linear(self, x: Array, name: str, *, fine: bool = False) -> Array:
        """x: (n_tokens, columns) -> (n_tokens, rows), with the layer's bias where there is one."""
        fine = fine or name.endswith(FINE) or "blk." not in name
        return self.biased(self.product(x, self.model.weight(name + ".weight"), fine=fine), name)

    def product(self, x: Array, weight: Weight, *, fine: bool = False) -> Array:
        """x: (n_tokens, columns) -> (n_tokens, rows), of a weight (rows, columns)."""
        if self.rounding.activations:
            x = round_activations(x, weight.type_name, fine=fine)
        y: Array = x @ weight.values.astype(self.dtype).T
        return y

    def plain_norm(self, x: Array) -> Array:
        """RMSNorm over the last axis, without weights."""
        result: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.hp.norm_eps)
        return result

    def queries_keys_values(self, x: Array, index: int) -> tuple[Array, Array, Array]:
        """Return the rows of each, out of three matrices or of one."""
        layer = f"blk.{index}."
        if self.model.find(layer + "attn_qkv.weight") is None:
            q = self.linear(x, layer + "attn_q")
            if self.model.find(layer + "attn_v.weight") is None:
                return q, (k := self.linear(x, layer + "attn_k", fine=True)), k
            return q, self.linear(x, layer + "attn_k"), self.linear(x, layer + "attn_v")
        n_q, n_kv = (n * self.hp.head_dim for n in (self.hp.n_heads, self.hp.kv_heads(index)))
        q, k, _ = np.split(self.linear(x, layer + "attn_qkv"), [n_q, n_q + n_kv], axis=1)
        v = self.linear(x, layer + "attn_qkv", fine=True)[:, n_q + n_kv :]
        return q, k, v

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

    def kv_layer(self, index: int) -> int:
        """Whose keys and values a layer reads: those of the last layer of its kind that has any."""
        own = range(self.hp.n_layers - self.hp.n_shared_kv)
        if index in own or index >= self.hp.n_layers:
            return index
        return max(i for i in own if self.window(i) == self.window(index))

    def layer_inputs(self, tokens: Sequence[int], x: Array) -> Array:
        """What each token gives each layer: (n_layers, n_tokens, layer_input_dim).

        x: (n_tokens, dim), the embedded tokens.
        """
        n, shape = self.hp.layer_input_dim, (len(tokens), self.hp.n_layers, -1)
        table = self.model.weight("per_layer_token_embd.weight").values[np.asarray(tokens)]
        projected = self.linear(x, "per_layer_model_proj") / np.sqrt(self.dtype(self.hp.dim))
        by_context = self.norm(projected.reshape(shape), "per_layer_proj_norm.weight")
        by_token = table.astype(self.dtype).reshape(shape) * np.sqrt(self.dtype(n))
        result: Array = (by_context + by_token) / np.sqrt(self.dtype(2))
        return result.transpose(1, 0, 2)

    def with_layer_input(self, x: Array, layer: str, given: Array) -> Array:
        """Return x behind a layer's feed-forward with the layer's input in it."""
        gate = self.activation(self.linear(x, layer + "inp_gate"))
        return x + self.norm(self.linear(gate * given, layer + "proj"), layer + "post_norm.weight")

    def rotates(self, index: int) -> bool:
        """Whether layer ``index`` has RoPE."""
        period = self.family.unrotated_period
        if not self.hp.rotates or (period and index % period == period - 1):
            return False
        has_windows = self.family.window_period > 0 and self.hp.window > 0
        return not (self.family.rotates_local_only and has_windows) or self.window(index) > 0

    def heads(self, x: Array, name: str, n: int, turn: Turn | None) -> Array:
        """Queries or keys: (n_tokens, n * head_dim) -> (n_tokens, n, head_dim), normed, rotated."""
        if self.family.row_norm:
            x = self.norm(x, name)
        x = x.reshape(x.shape[0], n, -1)
        if self.family.head_norm and not self.family.rotates_before_norm:
            x = self.norm(x, name)
        if turn is not None:
            x = rotate(x, *turn, neox=self.family.neox)
        if self.family.head_norm and self.family.rotates_before_norm:
            x = self.norm(x, name)
        return x

    def attention(self, x: Array, index: int, turn: Turn | None, window: int) -> Array:
        """Causal grouped-query attention. x: (n_tokens, dim), normed."""
        n_tokens, hp, layer = x.shape[0], self.hp, f"blk.{index}."
        n_kv_heads = hp.kv_heads(index)
        if self.kv_layer(index) != index:
            q = self.linear(x, layer + "attn_q")
        else:
            q, k, v = self.queries_keys_values(x, index)
            v = v.reshape(n_tokens, n_kv_heads, -1)
            v = self.plain_norm(v) if self.family.gemma4 else v
            k = self.heads(k, layer + "attn_k_norm.weight", n_kv_heads, turn)
            k, v = round_kv(k, self.rounding.kv_type), round_kv(v, self.rounding.kv_type)
            self.keys_values[index] = k, v
        gate = None
        if self.family.gates_attention:
            q, gate = np.split(q.reshape(n_tokens, hp.n_heads, 2 * hp.head_dim), 2, axis=-1)
            q = q.reshape(n_tokens, -1)
        q = self.heads(q, layer + "attn_q_norm.weight", hp.n_heads, turn)
        k, v = self.keys_values[self.kv_layer(index)]
        if self.family.late_queries:
            contexts = np.arange(n_tokens) // hp.rope_original_context
            grown = 1 + hp.late_query_scale * np.log(1 + contexts)
            q = q * grown.astype(self.dtype)[:, None, None]
        group = hp.n_heads // n_kv_heads  # query heads that share one key/value head
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scale = hp.attention_scale if self.family.scales else None
        scale = 1.0 if self.family.gemma4 else scale
        scores = np.einsum("qhd,khd->hqk", q, k) * self.dtype(scale or 1 / np.sqrt(hp.head_dim))
        scores = softcap(scores, self.hp.attention_softcap, self.family.attention_softcap)
        behind = np.arange(n_tokens)[:, None] - np.arange(n_tokens)[None, :]
        hidden = (behind < 0) | ((behind >= window) if window else False)
        scores = np.where(hidden, self.dtype(-np.inf), scores)
        if (sinks := self.model.find(layer + "attn_sinks.weight")) is not None:
            column = sinks.values.astype(self.dtype)[:, None, None]
            column = np.broadcast_to(column, (*scores.shape[:2], 1))
            scores = np.concatenate([scores, column], axis=-1)  # a token without a value
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        weights = weights[..., :n_tokens]
        mixed = np.einsum("hqk,khd->qhd", weights, v)
        if gate is not None:
            mixed = mixed / (1 + np.exp(-gate))
        mixed = mixed.reshape(n_tokens, -1)
        return self.linear(mixed, layer + "attn_output")

    def recurrent(self, x: Array, layer: str) -> Array:
        """What a layer that has a state mixes by. x: (n_tokens, dim), normed."""
        mixer = delta_net if self.hp.ssm_state else short_convolution
        if self.family.state_space:
            mixer = state_space
        return mixer(self.model, self.linear, x, layer)

    def feed_forward(self, x: Array, layer: str) -> Array:
        """SwiGLU and its like (arXiv 2002.05202), or without a gate. x: (n_tokens, dim), normed."""
        if self.model.find(layer + "ffn_gate_inp.weight") is not None:
            return mixture(self.model, self.family, self.product, self.gated, x, layer, self.routes)
        return self.dense(x, layer)

    def dense_and_experts(self, x: Array, layer: str) -> Array:
        """Gemma 4's dense feed-forward beside experts (``modeling_gemma4.py``). x: not normed."""
        dense = self.dense(self.row_norm(x, layer + "ffn_norm"), layer)
        scale = self.model.weight(layer + "ffn_gate_inp.scale").values.astype(self.dtype)
        mixed = mixture(
            self.model,
            self.family,
            self.product,
            self.gated,
            self.row_norm(x, layer + "pre_ffw_norm_2"),
            layer,
            self.routes,
            routed=self.plain_norm(x) * scale / np.sqrt(self.dtype(self.hp.dim)),
        )
        dense = self.row_norm(dense, layer + "post_ffw_norm_1")
        return dense + self.row_norm(mixed, layer + "post_ffw_norm_2")

    def dense(self, x: Array, layer: str) -> Array:
        """Return what a dense feed-forward makes of x: (n_tokens, dim), normed."""
        up = self.linear(x, layer + "ffn_up")
        if not self.family.gated:
            return self.linear(self.activation(up), layer + "ffn_down")
        if self.model.find(layer + "ffn_gate.weight") is None:
            gate, up = np.split(up, 2, axis=1)
        else:
            gate = self.linear(x, layer + "ffn_gate")
        return self.linear(self.gated(gate, up), layer + "ffn_down")

    def gated(self, gate: Array, up: Array) -> Array:
        """Return what the down matrix multiplies."""
        if not self.family.clamped:
            return self.activation(gate) * up
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        result: Array = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
        return result

    def activation(self, x: Array) -> Array:
        """SiLU, GELU by tanh or not (arXiv 1606.08415), or squared ReLU (arXiv 2109.08668)."""
        y: Array = x / (1 + np.exp(-x))
        if self.family.gelu:
            y = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        if self.family.gelu_erf:
            y = x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)).astype(self.dtype)) / 2
        if self.family.relu_squared:
            y = np.maximum(x, 0) ** 2
        return y

    def turns(self, positions: NDArray[np.int64]) -> tuple[Turn, Turn]:
        """Return cos and sin of layers that see all, and of local ones."""
        freqs = self.model.find("rope_freqs.weight")
        if freqs is None:
            length = "long" if self.long_rope else "short"
            freqs = self.model.find(f"rope_factors_{length}.weight")
        turn = angles(self.hp, positions, None if freqs is None else freqs.values)
        base = self.family.local_rope_base
        if self.family.leaves_local_unscaled:
            base = self.hp.rope_base
        if not base:
            return turn, turn
        return turn, local_angles(self.hp, positions, self.hp.local_rope_base or base)

    def embedded(self, tokens: Sequence[int]) -> Array:
        """Return what the layers begin with: (n_tokens, dim)."""
        x: Array = self.model.weight("token_embd.weight").values[np.asarray(tokens)]
        x = x.astype(self.dtype)
        if self.family.gemma:
            x = x * self.dtype(np.sqrt(self.hp.dim))
        if self.family.scales:
            x = x * self.dtype(self.hp.embedding_scale)
        return x

    def layer(self, x: Array, index: int, turn: Turn, local: Turn) -> Array:
        """Return what one layer makes of all tokens: (n_tokens, dim)."""
        residual = self.dtype(self.hp.residual_scale if self.family.scales else 1)
        parallel = self.family.parallel
        parallel = self.hp.is_parallel if parallel is None else parallel
        layer = f"blk.{index}."
        window = self.window(index)
        own = (local if window else turn) if self.rotates(index) else None
        names = (None if name is None else layer + name for name in self.family.norms)
        before, after, before_feed, after_feed = names
        normed = self.row_norm(x, before)
        if index < min(self.hp.n_layers, len(self.hp.recurrent)) and self.hp.recurrent[index]:
            mixed = self.recurrent(normed, layer)
        else:
            mixed = self.attention(normed, index, own, window)
        if self.family.mixes_twice:
            mixed = mixed + self.recurrent(normed, layer)
        y = x + residual * self.row_norm(mixed, after)
        x = x if parallel else y
        if self.family.feeds:
            if self.model.find(layer + "ffn_gate_inp.scale") is not None:
                fed = self.dense_and_experts(x, layer)
            else:
                fed = self.feed_forward(self.row_norm(x, before_feed), layer)
            x = y + residual * self.row_norm(fed, after_feed)
        return x

    def left(self, tokens: Sequence[int]) -> Array:
        """Return what the model leaves for every token, behind its last norm: (n_tokens, dim)."""
        x = self.embedded(tokens)
        turn, local = self.turns(np.arange(len(tokens)))
        inputs = self.layer_inputs(tokens, x) if self.hp.layer_input_dim else None
        for index in range(self.hp.n_layers):
            layer = f"blk.{index}."
            x = self.layer(x, index, turn, local)
            if inputs is not None:
                x = self.with_layer_input(x, layer, inputs[index])
            if (scale := self.model.find(layer + "layer_output_scale.weight")) is not None:
                x = x * scale.values.astype(self.dtype)
        return self.row_norm(x, self.family.output_norm)

    def logits(self, x: Array) -> Array:
        """Return the logits of rows behind the last norm."""
        if self.model.find("output.weight") is not None:
            logits = self.linear(x, "output")
        else:
            logits = self.biased(self.linear(x, "token_embd"), "output")
        if self.family.scales:
            logits = logits / self.dtype(self.hp.logit_scale)
        if self.family.logits_scaled:
            logits = logits * self.dtype(self.hp.logit_scale)
        return softcap(logits, self.hp.logits_softcap, self.family.logits_softcap)

    def run(self, tokens: Sequence[int]) -> Array:
        """Return the logits of every token."""
        return self.logits(self.left(tokens))

    def guess(self, tokens: Sequence[int], n_known: int) -> Array:
        """Return the logits of guesses behind tokens n_known - 1 and on, by the layer for them.

        DeepSeek-V3 (arXiv 2412.19437), section 2.2, as Qwen3.5 has it: what the model left for a
        token, behind its last norm, is joined with the next token. The model has read the first
        ``n_known - 1`` tokens, for later ones the layer's own result stands in.
        """
        left, layer = list(self.left(tokens[: n_known - 1])), f"blk.{self.hp.n_layers}."
        while True:
            n = len(left)  # of pairs: what was left for a token, and the one behind it
            token = self.norm(self.embedded(tokens[1 : n + 1]), f"{layer}nextn.enorm.weight")
            hidden = self.norm(np.stack(left), f"{layer}nextn.hnorm.weight")
            x = self.linear(np.concatenate([token, hidden], axis=1), f"{layer}nextn.eh_proj")
            x = self.layer(x, self.hp.n_layers, *self.turns(np.arange(n)))
            x = self.norm(x, f"{layer}nextn.shared_head_norm.weight")
            if n == len(tokens) - 1:
                return self.logits(x[n_known - 2 :])
            left.append(x[-1])


def softcap(x: Array, limit: float | None, default: float) -> Array:
    """Bound x smoothly by the file's limit, or the family's; 0: not at all."""
    limit = default if limit is None else limit
    return x if limit == 0 else limit * np.tanh(x / limit)


def forward(
    model: ReferenceModel,
    tokens: Sequence[int],
    rounding: Rounding = EXACT,
    dtype: type[Any] = np.float64,
    *,
    n_ctx: int = 0,
    routes: Routes | None = None,
) -> Array:
    """Return the logits (n_tokens, vocab_size) of one sequence that starts at position 0.

    n_ctx: the context that LongRoPE is to serve, which chooses its factors. routes: what is said
    of the choice of experts, and learns it.
    """
    long_rope = n_ctx > model.hyperparameters.rope_original_context
    return _Pass(model, rounding, dtype, long_rope=long_rope, routes=routes).run(tokens)


def guesses(
    model: ReferenceModel,
    tokens: Sequence[int],
    n_known: int,
    rounding: Rounding = EXACT,
    dtype: type[Any] = np.float64,
) -> Array:
    """Return the logits of guesses behind token n_known - 1 and each later one: (n, vocab_size).

    The model has read all tokens before that one.
    """
    return _Pass(model, rounding, dtype).guess(tokens, n_known)


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Return natural log-probabilities over the last axis."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
