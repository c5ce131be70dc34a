"""Granite 4.0 H: layers of Mamba-2 among some with attention; the larger models have experts.

What all tokens go through is a dense feed-forward; beside experts it is the shared one. Sources:
``modeling_granitemoehybrid.py`` of transformers, and llama.cpp's converter for the names.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_experts import arrange_mixture, expert_sizes
from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.huggingface_keys import granite_keys
from llamad_tools.checkpoints.huggingface_mamba2 import (
    OF_LAYERS,
    Mamba2,
    check_mamba2,
    in_gguf_shape,
    mamba2_numbers,
    mamba2_tensors,
    state_keys,
)
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.layer_types import layer_types
from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt
from llamad_tools.checkpoints.tensor_order import pick

_KINDS = ("mamba", "linear_attention", "attention", "full_attention")  # old and new names
_STATES = _KINDS[:2]


def granite_hybrid_keys(path: Path, config: Config) -> Metadata:
    """Return Granite's scales, sizes of states and experts, and which layers have a state.

    Raises LlamadError that names what a file cannot say.
    """
    numbers = mamba2_numbers(path, config, OF_LAYERS)
    check_mamba2(path, config, {"mamba_proj_bias": False, "mamba_conv_bias": True})
    result = {
        **granite_keys(path, config),
        **state_keys(numbers),
        "attention.head_count_kv": [layer.n_kv_heads for layer in _layers(path, config, numbers)],
        "rope.scaling.finetuned": config.get("position_embedding_type") == "rope",
    }
    if _has_experts(config):
        sizes = expert_sizes(path, config)
        result |= sizes.keys(sizes.hidden)
        result["expert_shared_feed_forward_length"] = _shared_width(path, config)
    return result


def granite_hybrid_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: Mamba-2, or attention. Raises LlamadError that names the key."""
    return _layers(path, config, mamba2_numbers(path, config, OF_LAYERS))


def arrange_granite_hybrid(
    path: Path, config: Config, tensor: SourceTensor
) -> Sequence[SourceTensor]:
    """Return a tensor in GGUF's shape; ssm_a is -exp of theirs, gate and up are apart."""
    shared = "_shexp" if _has_experts(config) else ""
    block, _, name = tensor.name.partition(".ffn_")
    if name == "up.weight":
        if tensor.n_rows % 2:
            raise corrupt(path, f"{tensor.name} has {tensor.n_rows} rows, no gate and up")
        rows = np.arange(tensor.n_rows).reshape(2, -1)
        return [
            pick(tensor, rows[i]).renamed(f"{block}.ffn_{part}{shared}.weight")
            for i, part in enumerate(("gate", "up"))
        ]
    if name == "down.weight":
        return (tensor.renamed(f"{block}.ffn_down{shared}.weight"),)
    if name:
        return arrange_mixture(path, config, tensor)
    return (in_gguf_shape(tensor, mamba2_numbers(path, config, OF_LAYERS)),)


def _has_experts(config: Config) -> bool:
    return config.get("num_local_experts") != 0


def _shared_width(path: Path, config: Config) -> int:
    key = "shared_intermediate_size"
    return positive_count(path, key, config.get(key))


def _layers(path: Path, config: Config, numbers: Mamba2) -> tuple[Layer, ...]:
    dim, n_heads, n_layers = (
        positive_count(path, key, config.get(key))
        for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    hidden = _shared_width(path, config)
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads") or n_heads)
    mixer = mamba2_tensors(numbers, dim)
    more: dict[str, Shape] = {}
    if _has_experts(config):
        more = expert_sizes(path, config).tensors()
        more["ffn_gate_shexp.weight"] = more["ffn_up_shexp.weight"] = (hidden, dim)
        more["ffn_down_shexp.weight"] = (dim, hidden)
        hidden = 0
    return tuple(
        Layer(hidden, 0, dim // n_heads, mixer, more)
        if kind in _STATES
        else Layer(hidden, n_kv, dim // n_heads, more=more)
        for kind in layer_types(path, config, n_layers, _KINDS, [_STATES[0]] * n_layers)
    )
