"""Mamba-2: the numbers and tensors of a layer of it, and models that have no others.

Sources: ``modeling_mamba2.py`` of transformers; what the tensors mean, arXiv 2405.21060.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt, map_floats, unsupported
from llamad_tools.checkpoints.tensor_order import as_rows, without_middle

OF_LAYERS = {  # keys of config.json, where such layers are some of a model's
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
class Mamba2:
    """The numbers of a layer of Mamba-2."""

    n_heads: int
    head_dim: int
    n_groups: int
    state: int
    conv_width: int

    @property
    def inner(self) -> int:
        """Elements of all heads together."""
        return self.n_heads * self.head_dim

    @property
    def channels(self) -> int:
        """Elements that are convolved: the heads', and the groups' B and C."""
        return self.inner + 2 * self.n_groups * self.state


def mamba2_keys(path: Path, config: Config) -> Metadata:
    """Return the sizes of states, and that there are neither heads nor feed-forwards."""
    check_mamba2(path, config, {"use_bias": False, "use_conv_bias": True})
    return {
        **state_keys(mamba2_numbers(path, config, _OF_MAMBA2)),
        "attention.head_count": 0,
        "attention.head_count_kv": 0,
        "feed_forward_length": 0,
    }


def check_mamba2(path: Path, config: Config, only: Mapping[str, bool]) -> None:
    """Refuse other biases than ``only`` says, and steps that are bounded."""
    for key, expected in only.items():
        if config.get(key, expected) is not expected:
            raise unsupported(path, f"{key} {config[key]!r} is not supported, only {expected!r}")
    if config.get("time_step_limit") not in _NO_LIMITS:
        raise unsupported(path, f"time_step_limit {config['time_step_limit']!r} is not supported")


def state_keys(numbers: Mamba2) -> Metadata:
    """Return the sizes of a layer's state."""
    return {
        "ssm.conv_kernel": numbers.conv_width,
        "ssm.state_size": numbers.state,
        "ssm.group_count": numbers.n_groups,
        "ssm.time_step_rank": numbers.n_heads,
        "ssm.inner_size": numbers.inner,
    }


def mamba2_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: a mixer and nothing else. Raises LlamadError that names the key."""
    numbers = mamba2_numbers(path, config, _OF_MAMBA2)
    mixer = mamba2_tensors(numbers, _count(path, config, "hidden_size"))
    return (Layer(0, 0, 0, mixer),) * _count(path, config, "num_hidden_layers")


def arrange_mamba2(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a tensor in GGUF's shape; ssm_a is -exp of theirs."""
    return (in_gguf_shape(tensor, mamba2_numbers(path, config, _OF_MAMBA2)),)


def mamba2_tensors(numbers: Mamba2, dim: int) -> dict[str, Shape]:
    """Return names and shapes of what a layer of Mamba-2 has, its norm among it."""
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


def in_gguf_shape(tensor: SourceTensor, numbers: Mamba2) -> SourceTensor:
    """Return one of the tensors of such a layer in GGUF's shape, and ssm_a as -exp of theirs."""
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


def mamba2_numbers(path: Path, config: Config, keys: Mapping[str, str]) -> Mamba2:
    """Read the numbers under the keys that a family has for them.

    keys: "inner" may be absent, of the model as of the file; it is then "expand" times the width.
    Raises LlamadError that names the key.
    """

    def count(noun: str) -> int:
        return _count(path, config, keys[noun])

    n_heads, n_groups = count("n_heads"), count("n_groups")
    inner = config.get(keys.get("inner", ""))
    if inner is None:
        inner = count("expand") * _count(path, config, "hidden_size")
    elif positive_count(path, keys["inner"], inner) % n_heads:
        raise corrupt(path, f"{keys['inner']} {inner} is not a multiple of {n_heads} heads")
    own = config.get(keys["head_dim"])
    head_dim = inner // n_heads if own in (None, "auto") else own
    head_dim = positive_count(path, keys["head_dim"], head_dim)
    if n_heads * head_dim != inner:
        raise corrupt(path, f"{keys['n_heads']} {n_heads} of {head_dim} are not {inner} elements")
    if n_heads % n_groups:
        raise corrupt(path, f"{keys['n_groups']} {n_groups} does not divide {n_heads} heads")
    numbers = Mamba2(n_heads, head_dim, n_groups, count("state"), count("conv_width"))
    if numbers.channels > _MOST_CHANNELS:
        raise corrupt(path, f"{keys['state']} {numbers.state}: at most {_MOST_CHANNELS} channels")
    return numbers


def _count(path: Path, config: Config, key: str) -> int:
    return positive_count(path, key, config.get(key))
