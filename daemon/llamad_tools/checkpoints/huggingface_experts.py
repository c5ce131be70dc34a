"""Mixtures of experts: a folder has a tensor for each expert's matrix, a GGUF file one for all.

The experts are read one after the other, as they are written; none of them is held. Sources:
``modeling_*.py`` of qwen2_moe, qwen3_moe, mixtral, olmoe, granitemoe and lfm2_moe in transformers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.huggingface_keys import granite_keys
from llamad_tools.checkpoints.huggingface_lfm2 import lfm2_keys, lfm2_layers
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count, positive_float
from llamad_tools.checkpoints.source import (
    Metadata,
    SourceTensor,
    corrupt,
    join_rows,
    unsupported,
)
from llamad_tools.checkpoints.tensor_order import pick

_MOST_EXPERTS = 1024  # as the engine
_MATRICES: Mapping[str, str] = {
    **{"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"},
    **{"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"},
}
_THEIRS = re.compile(r"(.+)\.experts\.(0|[1-9][0-9]{0,3})\.(\w+)\.weight")
_NUMBERED = re.compile(r"(blk\.[0-9]+\.ffn_\w+_exps)\.([0-9]+)\.weight")


def expert_name(name: str, modules: Iterable[str]) -> str | None:
    """Return the name of an expert's matrix until ``stack_experts``; None for another tensor.

    name: within a layer; modules: what a family calls the mixture. Raises KeyError for a matrix
    that no expert has.
    """
    match = _THEIRS.fullmatch(name)
    if match is None or match[1] not in modules:
        return None
    return f"{_MATRICES[match[3]]}.{match[2]}.weight"


def stack_experts(folder: Path, tensors: Iterable[SourceTensor]) -> list[SourceTensor]:
    """Return the tensors, those of all experts of a layer as one of (experts, rows, columns).

    Raises LlamadError CHECKPOINT_CORRUPT for experts that are not alike, or not all there.
    """
    result: list[SourceTensor] = []
    numbered: dict[str, dict[int, SourceTensor]] = {}
    for tensor in tensors:
        match = _NUMBERED.fullmatch(tensor.name)
        if match is None:
            result.append(tensor)
        else:
            numbered.setdefault(f"{match[1]}.weight", {})[int(match[2])] = tensor
    for name, experts in numbered.items():
        if missing := set(range(max(experts))) - experts.keys():
            raise corrupt(folder, f"{name}: expert {min(missing)} of {max(experts) + 1} is missing")
        parts = [experts[i] for i in range(len(experts))]
        first = parts[0]
        for i, part in enumerate(parts):
            if (part.shape, part.type_name) != (first.shape, first.type_name):
                raise corrupt(
                    folder,
                    f"{name}: expert {i} is {part.type_name} {part.shape}, "
                    f"expert 0 {first.type_name} {first.shape}",
                )
        shape = (len(parts), *first.shape)
        result.append(replace(join_rows(parts), name=name, shape=shape))
    return result


@dataclass(frozen=True, slots=True)
class ExpertSizes:
    """Of the mixtures of one model; shared: width of what all tokens go through, 0: nothing."""

    n: int
    n_used: int
    hidden: int
    shared: int
    dim: int

    def keys(self, hidden_dim: int) -> Metadata:
        """Return the keys; hidden_dim: of a layer without experts."""
        result: Metadata = {
            "feed_forward_length": hidden_dim,
            "expert_count": self.n,
            "expert_used_count": self.n_used,
            "expert_feed_forward_length": self.hidden,
        }
        return result | ({"expert_shared_feed_forward_length": self.shared} if self.shared else {})

    def tensors(self) -> dict[str, Shape]:
        """Return names and shapes of a layer's tensors, the gate of a shared expert included."""
        n, dim = self.n, self.dim
        result: dict[str, Shape] = {
            "ffn_gate_inp.weight": (n, dim),
            "ffn_gate_exps.weight": (n, self.hidden, dim),
            "ffn_up_exps.weight": (n, self.hidden, dim),
            "ffn_down_exps.weight": (n, dim, self.hidden),
        }
        if self.shared:
            result["ffn_gate_inp_shexp.weight"] = (dim,)
            result["ffn_gate_shexp.weight"] = result["ffn_up_shexp.weight"] = (self.shared, dim)
            result["ffn_down_shexp.weight"] = (dim, self.shared)
        return result


def expert_sizes(path: Path, config: Config) -> ExpertSizes:
    """Return how many experts there are, and how wide. Raises LlamadError that names the key."""
    key = "num_experts" if config.get("num_experts") is not None else "num_local_experts"
    n, n_used, dim = (
        positive_count(path, name, config.get(name))
        for name in (key, "num_experts_per_tok", "hidden_size")
    )
    if n > _MOST_EXPERTS:
        raise unsupported(path, f"{key} is {n}, at most {_MOST_EXPERTS} are supported")
    if n_used > n:
        raise corrupt(path, f"num_experts_per_tok is {n_used}, {key} {n}")
    given = config.get("moe_intermediate_size")
    width = "intermediate_size" if given is None else "moe_intermediate_size"
    shared = config.get("shared_expert_intermediate_size")
    if shared is not None:
        shared = positive_count(path, "shared_expert_intermediate_size", shared)
    return ExpertSizes(n, n_used, positive_count(path, width, config.get(width)), shared or 0, dim)


def _check(path: Path, config: Config, **only: object) -> None:
    """Refuse what the family's GGUF file cannot say."""
    for key, expected in {"clip_qkv": None, "decoder_sparse_step": 1, **only}.items():
        found = config.get(key)
        if (expected if found is None and key != "norm_topk_prob" else found) != expected:
            raise unsupported(path, f"{key} {found!r} is not supported, only {expected!r}")
    if config.get("mlp_only_layers"):
        raise unsupported(path, f"mlp_only_layers {config['mlp_only_layers']!r}, only [] is")


def mixture_keys(path: Path, config: Config) -> Metadata:
    """Return how many experts there are, and how wide, where the family says how they weigh."""
    _check(path, config)
    sizes = expert_sizes(path, config)
    given = config.get("intermediate_size")
    hidden_dim = sizes.hidden if given is None else positive_count(path, "intermediate_size", given)
    return sizes.keys(hidden_dim)


def normed_mixture_keys(path: Path, config: Config) -> Metadata:
    """Return the same of a family whose chosen experts' weights sum to 1."""
    _check(path, config, norm_topk_prob=True)
    return mixture_keys(path, config)


def plain_mixture_keys(path: Path, config: Config) -> Metadata:
    """Return the same of a family whose chosen experts weigh as the softmax over all says."""
    _check(path, {"norm_topk_prob": False, **config}, norm_topk_prob=False)
    return mixture_keys(path, config)


def granite_moe_keys(path: Path, config: Config) -> Metadata:
    """Return Granite's scales and those of its experts."""
    return {**granite_keys(path, config), **mixture_keys(path, config)}


def mixture_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: attention, and experts. Raises LlamadError that names the key."""
    n_layers, n_heads = (
        positive_count(path, key, config.get(key))
        for key in ("num_hidden_layers", "num_attention_heads")
    )
    sizes = expert_sizes(path, config)
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads") or n_heads)
    given = config.get("head_dim") or sizes.dim // n_heads
    head_dim = positive_count(path, "head_dim", given)
    return (Layer(0, n_kv, head_dim, more=sizes.tensors()),) * n_layers


def arrange_mixture(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return the gate of a shared expert as a vector, and gate and up of all experts apart."""
    match tensor.shape:
        case (1, dim) if tensor.name.endswith("ffn_gate_inp_shexp.weight"):
            return (replace(tensor, shape=(dim,)),)
        case (n, rows, dim) if "ffn_gate_up_exps" in tensor.name and rows % 2 == 0:
            order = np.arange(n * rows).reshape(n, 2, rows // 2)
            return [
                replace(
                    pick(tensor, order[:, part].reshape(-1)), shape=(n, rows // 2, dim)
                ).renamed(tensor.name.replace("gate_up", name))
                for part, name in enumerate(("gate", "up"))
            ]
    return (tensor,)


def lfm2_moe_keys(path: Path, config: Config) -> Metadata:
    """Return LFM2's keys and those of its experts, which weigh by a sigmoid."""
    _check(path, config, norm_topk_prob=True, use_expert_bias=True)
    keys = lfm2_keys(path, config)
    scale = config.get("routed_scaling_factor")
    return {
        **expert_sizes(path, config).keys(keys["feed_forward_length"]),
        **keys,
        "leading_dense_block_count": _n_dense(path, config),
        "expert_gating_func": 2,
        "expert_weights_scale": positive_float(
            path, "routed_scaling_factor", 1.0 if scale is None else scale
        ),
    }


def _n_dense(path: Path, config: Config) -> int:
    value = config.get("num_dense_layers")
    return positive_count(path, "num_dense_layers", value) if value else 0


def lfm2_moe_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return LFM2's layers, with experts behind the first."""
    sizes = expert_sizes(path, config)
    more = {**sizes.tensors(), "exp_probs_b.bias": (sizes.n,)}
    n_dense = _n_dense(path, config)
    return tuple(
        layer if i < n_dense else replace(layer, hidden_dim=0, more=more)
        for i, layer in enumerate(lfm2_layers(path, config))
    )
