"""Mixtures of experts: Mixtral, arXiv 2401.04088; shared ones: DeepSeekMoE, arXiv 2401.06066."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference.families import Family
from reference.model import Array, ReferenceModel, Weight

Product = Callable[[Array, Weight], Array]  # (n_tokens, columns) times a matrix of (rows, columns)
Gated = Callable[[Array, Array], Array]  # of gate and up, each (n_tokens, hidden_dim)
LEAST_SUM = 6.103515625e-5  # of weights that are divided by it
Chosen = np.ndarray[Any, Any]  # numbers of experts by rank: (n_tokens, n_used)


@dataclass(slots=True)
class Routes:
    """Which experts a pass chose, layer by layer, and how near others were.

    given: the choices of another pass, which this one is to follow instead of its own.
    """

    given: "Routes | None" = None
    chosen: list[Chosen] = field(default_factory=list)
    margins: list[Array] = field(default_factory=list)  # of the last one chosen, (n_tokens,)

    def choose(self, scores: Array, n_used: int) -> Chosen:
        """Return each token's experts by score, (n_tokens, n_experts), equal ones by number."""
        order = np.argsort(-scores, axis=-1, kind="stable")
        own = order[:, :n_used]
        if n_used < scores.shape[-1]:
            edge = np.take_along_axis(scores, order[:, n_used - 1 : n_used + 1], axis=-1)
            self.margins.append(edge[:, 0] - edge[:, 1])
        self.chosen.append(own)
        return own if self.given is None else self.given.chosen[len(self.chosen) - 1]


def _expert(model: ReferenceModel, name: str, index: int) -> Weight:
    weight = model.weight(name)
    return Weight(weight.values[index], weight.type_name)


def _gate_up(model: ReferenceModel, layer: str, index: int) -> tuple[Weight, Weight]:
    if model.find(f"{layer}ffn_gate_up_exps.weight") is None:
        names = (f"{layer}ffn_gate_exps.weight", f"{layer}ffn_up_exps.weight")
        return _expert(model, names[0], index), _expert(model, names[1], index)
    both = _expert(model, f"{layer}ffn_gate_up_exps.weight", index)
    gate, up = np.split(both.values, 2)
    return Weight(gate, both.type_name), Weight(up, both.type_name)


def _softmax(x: Array) -> Array:
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = p / p.sum(axis=-1, keepdims=True)
    return result


def _biased(model: ReferenceModel, y: Array, name: str, index: int | None = None) -> Array:
    """Add a bias where the file has one; of experts that of one."""
    bias = model.find(f"{name}.bias")
    if bias is None:
        return y
    return y + (bias.values if index is None else bias.values[index]).astype(y.dtype)


def route(
    model: ReferenceModel, family: Family, logits: Array, layer: str, routes: Routes
) -> tuple[Array, Chosen]:
    """Return weights and numbers of each token's experts by rank: (n_tokens, n_used) each."""
    hp = model.hyperparameters
    if family.softmax_of_chosen:
        p = logits
    elif hp.expert_gating == 2:
        p = 1 / (1 + np.exp(-logits))
    else:
        p = _softmax(logits)
    bias = model.find(f"{layer}exp_probs_b.bias")
    scores = p if bias is None else p + bias.values
    chosen = routes.choose(scores, hp.n_experts_used)
    weights = np.take_along_axis(p, chosen, axis=-1)
    if family.softmax_of_chosen:
        weights = _softmax(weights)
    norms = family.norms_experts if hp.expert_weights_norm is None else hp.expert_weights_norm
    if norms:
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), LEAST_SUM)
    return weights * hp.expert_weights_scale, chosen


def mixture(
    model: ReferenceModel,
    family: Family,
    product: Product,
    gated: Gated,
    x: Array,
    layer: str,
    routes: Routes,
    *,
    routed: Array | None = None,
) -> Array:
    """Return what a layer's experts make of x: (n_tokens, dim), normed.

    routed: what the router reads, where it is not x.
    """
    logits = product(x if routed is None else routed, model.weight(f"{layer}ffn_gate_inp.weight"))
    logits = _biased(model, logits, f"{layer}ffn_gate_inp")
    weights, chosen = route(model, family, logits, layer, routes)
    out = np.zeros_like(x)
    each = []  # (n_tokens, dim) of every expert, also for tokens that did not choose it
    for index in range(model.hyperparameters.n_experts):
        gate, up = (product(x, weight) for weight in _gate_up(model, layer, index))
        gate = _biased(model, gate, f"{layer}ffn_gate_exps", index)
        up = _biased(model, up, f"{layer}ffn_up_exps", index)
        down = _expert(model, f"{layer}ffn_down_exps.weight", index)
        y = product(gated(gate, up), down)
        scale = model.find(f"{layer}ffn_down_exps.scale")
        y = y if scale is None else y * scale.values[index].astype(y.dtype)
        each.append(_biased(model, y, f"{layer}ffn_down_exps", index))
    made = np.stack(each, axis=1)  # (n_tokens, n_experts, dim)
    for rank in range(chosen.shape[1]):
        picked = np.take_along_axis(made, chosen[:, rank, None, None], axis=1)[:, 0]
        out = out + weights[:, rank, None] * picked
    return out + _shared(model, product, gated, x, layer)


def _shared(model: ReferenceModel, product: Product, gated: Gated, x: Array, layer: str) -> Array:
    """Return what the expert of all tokens makes, or zeros."""
    if model.find(f"{layer}ffn_gate_shexp.weight") is None:
        return np.zeros_like(x)
    gate = product(x, model.weight(f"{layer}ffn_gate_shexp.weight"))
    up = product(x, model.weight(f"{layer}ffn_up_shexp.weight"))
    y = product(gated(gate, up), model.weight(f"{layer}ffn_down_shexp.weight"))
    weight = model.find(f"{layer}ffn_gate_inp_shexp.weight")
    if weight is None:
        return y
    result: Array = y / (1 + np.exp(-(x @ weight.values.astype(x.dtype))))[:, None]
    return result
