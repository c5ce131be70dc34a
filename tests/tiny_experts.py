"""What tiny models have in place of a feed-forward: mixtures of experts."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_gguf import Metadata, TinySpec

GATED_SHARED = ("qwen2moe", "qwen35moe")  # the shared expert has a weight of its own
BIASED = ("gpt-oss",)
BESIDE_DENSE = ("gemma4",)  # layers have a feed-forward that is none, too
ROUTER_RMS = 6.0  # of its logits: so that rounding chooses no other expert


def expert_dim(spec: "TinySpec") -> int:
    """Return the width of an expert."""
    return spec.expert_dim or spec.hidden_dim


def expert_matrices(spec: "TinySpec", layer: str) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Yield name and (experts, rows, columns) or (rows, columns) of every matrix of a mixture."""
    n, hidden, shared = spec.n_experts, expert_dim(spec), spec.shared_expert_dim
    yield f"{layer}ffn_gate_inp.weight", (n, spec.dim)
    if spec.fused_experts:
        yield f"{layer}ffn_gate_up_exps.weight", (n, 2 * hidden, spec.dim)
    else:
        yield f"{layer}ffn_gate_exps.weight", (n, hidden, spec.dim)
        yield f"{layer}ffn_up_exps.weight", (n, hidden, spec.dim)
    yield f"{layer}ffn_down_exps.weight", (n, spec.dim, hidden)
    if shared:
        yield f"{layer}ffn_gate_shexp.weight", (shared, spec.dim)
        yield f"{layer}ffn_up_shexp.weight", (shared, spec.dim)
        yield f"{layer}ffn_down_shexp.weight", (spec.dim, shared)


def expert_vectors(spec: "TinySpec", layer: str) -> Iterable[tuple[str, int, float]]:
    """Yield name, length and mean of the vectors of a mixture."""
    if spec.architecture == "lfm2moe":
        yield f"{layer}exp_probs_b.bias", spec.n_experts, 0.0
    if spec.architecture in GATED_SHARED:
        yield f"{layer}ffn_gate_inp_shexp.weight", spec.dim, 0.0
    if spec.architecture in BESIDE_DENSE:
        for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
            yield f"{layer}{norm}.weight", spec.dim, 1.0
        yield f"{layer}ffn_gate_inp.scale", spec.dim, math.sqrt(spec.dim)
        yield f"{layer}ffn_down_exps.scale", spec.n_experts, 1.0
    if spec.architecture in BIASED:
        yield f"{layer}ffn_gate_inp.bias", spec.n_experts, 0.0
        for name, n in ("gate", expert_dim(spec)), ("up", expert_dim(spec)), ("down", spec.dim):
            yield f"{layer}ffn_{name}_exps.bias", spec.n_experts * n, 0.0


def expert_vector_shape(spec: "TinySpec", length: int) -> tuple[int, ...]:
    """Return the shape of the vectors of all experts, which have so many elements together."""
    return spec.n_experts, length // spec.n_experts


def expert_metadata(spec: "TinySpec") -> "dict[str, Metadata]":
    """Return the keys that say how many experts there are, and how wide."""
    arch = spec.architecture
    if not spec.n_experts:
        return {}
    result: dict[str, Metadata] = {
        f"{arch}.expert_count": spec.n_experts,
        f"{arch}.expert_used_count": spec.n_experts_used,
    }
    if spec.expert_dim:
        result[f"{arch}.expert_feed_forward_length"] = spec.expert_dim
    if spec.shared_expert_dim:
        result[f"{arch}.expert_shared_feed_forward_length"] = spec.shared_expert_dim
    if spec.n_dense_layers:
        result[f"{arch}.leading_dense_block_count"] = spec.n_dense_layers
    if arch == "lfm2moe":
        result[f"{arch}.expert_gating_func"] = 2
    return result
