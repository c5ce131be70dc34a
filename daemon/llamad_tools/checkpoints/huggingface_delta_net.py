"""Qwen3.5: three of four layers are Gated DeltaNet (``modeling_qwen3_5.py``, arXiv 2412.06464).

Hugging Face stores the value heads of each key head together; GGUF's value head h has key head
h % n_key_heads, so every tensor with value heads is put in another order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.hyperparameters import Layer
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.layer_types import layer_types
from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt, map_floats, unsupported
from llamad_tools.checkpoints.tensor_order import (
    Order,
    heads_in_order,
    pick,
    pick_columns,
    without_middle,
)

_KINDS = ("linear_attention", "full_attention")
_MOST_CHANNELS = 1 << 20  # as the engine
_SECTIONS = [11, 11, 10]  # of M-RoPE, which for text is plain RoPE; llama.cpp wants the key


@dataclass(frozen=True, slots=True)
class _DeltaNet:
    """The numbers of such a layer. head_dim: of keys and of values."""

    n_k_heads: int
    n_v_heads: int
    head_dim: int
    conv_width: int

    @property
    def value_dim(self) -> int:
        return self.n_v_heads * self.head_dim

    @property
    def key_dim(self) -> int:
        return self.n_k_heads * self.head_dim

    def value_order(self, head_dim: int) -> Order:
        """Return where each of our rows of value heads is in theirs."""
        grouped = np.arange(self.n_v_heads).reshape(self.n_k_heads, -1)
        return heads_in_order(grouped.T.reshape(-1), head_dim)

    def channel_order(self) -> Order:
        """Return that of queries, keys and values together, of which only the last change."""
        first = 2 * self.key_dim
        return np.concatenate([np.arange(first), first + self.value_order(self.head_dim)])


def delta_net_keys(path: Path, config: Config) -> Metadata:
    """Return Qwen3.5's keys. Raises LlamadError that names the one that a file cannot say."""
    if config.get("attention_bias"):
        raise unsupported(path, "attention_bias true is not supported, only false")
    numbers = _numbers(path, config)
    parameters = config.get("rope_parameters") or {}
    sections = parameters.get("mrope_section") or _SECTIONS
    if not isinstance(sections, list) or not all(isinstance(n, int) for n in sections):
        raise corrupt(path, f"rope_parameters.mrope_section is {sections!r}, must be numbers")
    return {
        "ssm.conv_kernel": numbers.conv_width,
        "ssm.state_size": numbers.head_dim,
        "ssm.group_count": numbers.n_k_heads,
        "ssm.time_step_rank": numbers.n_v_heads,
        "ssm.inner_size": numbers.value_dim,
        "full_attention_interval": _interval(path, config),
        "attention.recurrent_layers": [kind == _KINDS[0] for kind in _kinds(path, config)],
        "rope.dimension_sections": [*sections, 0, 0, 0, 0][:4],
    }


def delta_net_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: Gated DeltaNet, or attention."""
    numbers = _numbers(path, config)
    dim = positive_count(path, "hidden_size", config.get("hidden_size"))
    hidden = positive_count(path, "intermediate_size", config.get("intermediate_size"))
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads"))
    head_dim = positive_count(path, "head_dim", config.get("head_dim"))
    n_channels = 2 * numbers.key_dim + numbers.value_dim
    mixer = {
        "attn_qkv.weight": (n_channels, dim),
        "attn_gate.weight": (numbers.value_dim, dim),
        "ssm_conv1d.weight": (n_channels, numbers.conv_width),
        "ssm_dt.bias": (numbers.n_v_heads,),
        "ssm_a": (numbers.n_v_heads,),
        "ssm_beta.weight": (numbers.n_v_heads, dim),
        "ssm_alpha.weight": (numbers.n_v_heads, dim),
        "ssm_norm.weight": (numbers.head_dim,),
        "ssm_out.weight": (dim, numbers.value_dim),
    }
    return tuple(
        Layer(hidden, n_kv, head_dim, mixer if kind == _KINDS[0] else None)
        for kind in _kinds(path, config)
    )


def arrange_delta_net(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a tensor with its value heads in GGUF's order; ssm_a is -exp of theirs."""
    numbers = _numbers(path, config)
    name = tensor.name.split(".", 2)[-1]
    match name:
        case "attn_qkv.weight" | "ssm_conv1d.weight":
            table = without_middle(tensor)
            return (_checked(path, table, 0, numbers.channel_order(), pick),)
        case "attn_gate.weight":
            return (_checked(path, tensor, 0, numbers.value_order(numbers.head_dim), pick),)
        case "ssm_beta.weight" | "ssm_alpha.weight" | "ssm_dt.bias":
            return (_checked(path, tensor, 0, numbers.value_order(1), pick),)
        case "ssm_a":
            ordered = _checked(path, tensor, 0, numbers.value_order(1), pick)
            return (map_floats(ordered, lambda values: -np.exp(values)),)
        case "ssm_out.weight":
            order = numbers.value_order(numbers.head_dim)
            return (_checked(path, tensor, -1, order, pick_columns),)
    return (tensor,)


def _checked(
    path: Path,
    tensor: SourceTensor,
    axis: int,
    order: Order,
    pick_by: Callable[[SourceTensor, Order], SourceTensor],
) -> SourceTensor:
    if tensor.shape[axis] != len(order):
        raise corrupt(
            path, f"{tensor.name} has shape {tensor.shape}, its heads need {len(order)} of them"
        )
    return pick_by(tensor, order)


def _numbers(path: Path, config: Config) -> _DeltaNet:
    def count(key: str) -> int:
        return positive_count(path, key, config.get(key))

    head_dim, value_head_dim = count("linear_key_head_dim"), count("linear_value_head_dim")
    if head_dim != value_head_dim:
        raise unsupported(
            path, f"linear_value_head_dim {value_head_dim}, only linear_key_head_dim {head_dim} is"
        )
    n_k_heads, n_v_heads = count("linear_num_key_heads"), count("linear_num_value_heads")
    if n_v_heads % n_k_heads:
        raise corrupt(
            path, f"linear_num_value_heads {n_v_heads} cannot share {n_k_heads} heads of keys"
        )
    if n_v_heads * head_dim > _MOST_CHANNELS:
        raise corrupt(path, f"linear_num_value_heads {n_v_heads}: at most {_MOST_CHANNELS} values")
    return _DeltaNet(n_k_heads, n_v_heads, head_dim, count("linear_conv_kernel_dim"))


def _interval(path: Path, config: Config) -> int:
    value = config.get("full_attention_interval")
    return positive_count(path, "full_attention_interval", 4 if value is None else value)


def _kinds(path: Path, config: Config) -> list[str]:
    n_layers = positive_count(path, "num_hidden_layers", config.get("num_hidden_layers"))
    interval = _interval(path, config)
    usual = [_KINDS[(i + 1) % interval == 0] for i in range(n_layers)]
    return layer_types(path, config, n_layers, _KINDS, usual)
