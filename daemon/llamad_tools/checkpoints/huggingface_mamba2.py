"""Mamba-2 alone, and Granite 4.0 H without experts: layers of it among some with attention.

Sources: ``modeling_mamba2.py`` and ``modeling_granitemoehybrid.py`` of transformers; what the
tensors mean, arXiv 2405.21060.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.huggingface_keys import granite_keys
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.layer_types import layer_types
from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt, map_floats, unsupported
from llamad_tools.checkpoints.tensor_order import as_rows, pick, without_middle

_KINDS = ("mamba", "linear_attention", "attention", "full_attention")  # old and new names
_STATES = _KINDS[:2]
_OF_GRANITE = {  # keys of config.json
    "n_heads": "mamba_n_heads",
    "head_dim": "mamba_d_head",
    "n_groups": "mamba_n_groups",
    "state": "mamba_d_state",
    "conv_width": "mamba_d_conv",
    "expand": "mamba_expand",
}
_OF_MAMBA2 = {
    "n_heads": "num_heads",
    "head_dim": "head_dim",
    "n_groups": "n_groups",
    "state": "state_size",
    "conv_width": "conv_kernel",
    "expand": "expand",
}
_MOST_CHANNELS = 1 << 20  # as the engine
_NO_LIMITS = (None, [0.0, math.inf], [0.0, {"__float__": "Infinity"}])  # as transformers 5 has it


@dataclass(frozen=True, slots=True)
class _Mamba2:
    """The numbers of such a layer."""

    n_heads: int
    head_dim: int
    n_groups: int
    state: int
    conv_width: int

    @property
    def inner(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def channels(self) -> int:
        return self.inner + 2 * self.n_groups * self.state


def granite_hybrid_keys(path: Path, config: Config) -> Metadata:
    """Return Granite's scales, the sizes of states, and which layers have one.

    Raises LlamadError that names what a file cannot say.
    """
    numbers = _numbers(path, config, _OF_GRANITE)
    _check(path, config, {"mamba_proj_bias": False, "mamba_conv_bias": True})
    if config.get("num_local_experts", 0) != 0:
        raise unsupported(path, f"num_local_experts {config['num_local_experts']!r}: no experts")
    return {
        **granite_keys(path, config),
        **_sizes(numbers),
        "attention.head_count_kv": [layer.n_kv_heads for layer in _layers(path, config, numbers)],
        "rope.scaling.finetuned": config.get("position_embedding_type") == "rope",
    }


def mamba2_keys(path: Path, config: Config) -> Metadata:
    """Return the sizes of states, and that there are neither heads nor feed-forwards."""
    _check(path, config, {"use_bias": False, "use_conv_bias": True})
    return {
        **_sizes(_numbers(path, config, _OF_MAMBA2)),
        "attention.head_count": 0,
        "attention.head_count_kv": 0,
        "feed_forward_length": 0,
    }


def _check(path: Path, config: Config, only: Mapping[str, bool]) -> None:
    """Refuse other biases than ``only`` says, and steps that are bounded."""
    for key, expected in only.items():
        if config.get(key, expected) is not expected:
            raise unsupported(path, f"{key} {config[key]!r} is not supported, only {expected!r}")
    if config.get("time_step_limit") not in _NO_LIMITS:
        raise unsupported(path, f"time_step_limit {config['time_step_limit']!r} is not supported")


def _sizes(numbers: _Mamba2) -> Metadata:
    return {
        "ssm.conv_kernel": numbers.conv_width,
        "ssm.state_size": numbers.state,
        "ssm.group_count": numbers.n_groups,
        "ssm.time_step_rank": numbers.n_heads,
        "ssm.inner_size": numbers.inner,
    }


def mamba2_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: a mixer and nothing else. Raises LlamadError that names the key."""
    numbers = _numbers(path, config, _OF_MAMBA2)
    mixer = _mixer(numbers, _count(path, config, "hidden_size"))
    return (Layer(0, 0, 0, mixer),) * _count(path, config, "num_hidden_layers")


def arrange_mamba2(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a tensor in GGUF's shape; ssm_a is -exp of theirs."""
    return (_shaped(tensor, _numbers(path, config, _OF_MAMBA2)),)


def granite_hybrid_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: Mamba-2, or attention. Raises LlamadError that names the key."""
    return _layers(path, config, _numbers(path, config, _OF_GRANITE))


def _layers(path: Path, config: Config, numbers: _Mamba2) -> tuple[Layer, ...]:
    dim = _count(path, config, "hidden_size")
    hidden = _count(path, config, "shared_intermediate_size")
    n_heads, n_layers = (
        _count(path, config, key) for key in ("num_attention_heads", "num_hidden_layers")
    )
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads") or n_heads)
    mixer = _mixer(numbers, dim)
    return tuple(
        Layer(hidden, 0, dim // n_heads, mixer)
        if kind in _STATES
        else Layer(hidden, n_kv, dim // n_heads)
        for kind in layer_types(path, config, n_layers, _KINDS, [_STATES[0]] * n_layers)
    )


def _mixer(numbers: _Mamba2, dim: int) -> dict[str, Shape]:
    return {
        "ssm_in.weight": (numbers.inner + numbers.channels + numbers.n_heads, dim),
        "ssm_conv1d.weight": (numbers.channels, numbers.conv_width),
        "ssm_conv1d.bias": (numbers.channels,),
        "ssm_dt.bias": (numbers.n_heads,),
        "ssm_a": (numbers.n_heads, 1),
        "ssm_d": (numbers.n_heads, 1),
        "ssm_norm.weight": (numbers.n_groups, numbers.inner // numbers.n_groups),
        "ssm_out.weight": (dim, numbers.inner),
    }


def arrange_granite_hybrid(
    path: Path, config: Config, tensor: SourceTensor
) -> Sequence[SourceTensor]:
    """Return a tensor in GGUF's shape; ssm_a is -exp of theirs, gate and up are apart."""
    numbers = _numbers(path, config, _OF_GRANITE)
    block, _, name = tensor.name.partition(".ffn_up")
    if name == ".weight":
        if tensor.n_rows % 2:
            raise corrupt(path, f"{tensor.name} has {tensor.n_rows} rows, no gate and up")
        rows = np.arange(tensor.n_rows).reshape(2, -1)
        return [
            pick(tensor, rows[i]).renamed(f"{block}.ffn_{part}.weight")
            for i, part in enumerate(("gate", "up"))
        ]
    return (_shaped(tensor, numbers),)


def _shaped(tensor: SourceTensor, numbers: _Mamba2) -> SourceTensor:
    match tensor.name.split(".", 2)[-1]:
        case "ssm_conv1d.weight":
            return without_middle(tensor)
        case "ssm_a":
            return as_rows(map_floats(tensor, lambda values: -np.exp(values)), numbers.n_heads)
        case "ssm_d":
            return as_rows(tensor, numbers.n_heads)
        case "ssm_norm.weight":
            return as_rows(tensor, numbers.n_groups)
    return tensor


def _numbers(path: Path, config: Config, keys: Mapping[str, str]) -> _Mamba2:
    """Read the numbers under the keys that a family has for them."""

    def count(noun: str) -> int:
        return _count(path, config, keys[noun])

    n_heads, n_groups = count("n_heads"), count("n_groups")
    inner = count("expand") * _count(path, config, "hidden_size")
    own = config.get(keys["head_dim"])
    head_dim = inner // n_heads if own in (None, "auto") else own
    head_dim = positive_count(path, keys["head_dim"], head_dim)
    if n_heads * head_dim != inner:
        raise corrupt(path, f"{keys['n_heads']} {n_heads} of {head_dim} are not {inner} elements")
    if n_heads % n_groups:
        raise corrupt(path, f"{keys['n_groups']} {n_groups} does not divide {n_heads} heads")
    numbers = _Mamba2(n_heads, head_dim, n_groups, count("state"), count("conv_width"))
    if numbers.channels > _MOST_CHANNELS:
        raise corrupt(path, f"{keys['state']} {numbers.state}: at most {_MOST_CHANNELS} channels")
    return numbers


def _count(path: Path, config: Config, key: str) -> int:
    return positive_count(path, key, config.get(key))
