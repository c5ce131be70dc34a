"""Falcon-H1: attention and Mamba-2 side by side in each layer, and multipliers between them.

A GGUF file has no multipliers: each is in the rows of a matrix beside it. Where the output shares
the embedding's weights, a file needs both, since they have different multipliers. Sources:
``modeling_falcon_h1.py`` of transformers; arXiv 2507.22448.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.huggingface_mamba2 import (
    OF_LAYERS,
    Mamba2,
    check_mamba2,
    in_gguf_shape,
    mamba2_numbers,
    mamba2_tensors,
    state_keys,
)
from llamad_tools.checkpoints.hyperparameters import Layer
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.source import (
    MAX_QUOTED,
    Metadata,
    SourceTensor,
    corrupt,
    scale_rows,
    unsupported,
)

FALCON_KEYS = {**OF_LAYERS, "inner": "mamba_d_ssm"}
BARE_NORM = "ffn_norm"  # without ".weight", as llama.cpp reads it
_LARGEST = 1e6  # of a multiplier; published are 0.01 to 30
_SINGLE: Mapping[str, Sequence[str]] = {  # GGUF's matrix: keys whose product is in it
    "token_embd.weight": ("embedding_multiplier",),
    "output.weight": ("lm_head_multiplier",),
    "attn_q.weight": ("attention_in_multiplier",),
    "attn_k.weight": ("attention_in_multiplier", "key_multiplier"),
    "attn_v.weight": ("attention_in_multiplier",),
    "attn_output.weight": ("attention_out_multiplier",),
    "ssm_in.weight": ("ssm_in_multiplier",),
    "ssm_out.weight": ("ssm_out_multiplier",),
}
_LISTED = ("ffn_gate.weight", "ffn_down.weight")  # in the order of mlp_multipliers


def falcon_h1_keys(path: Path, config: Config) -> Metadata:
    """Return the sizes of states. Raises LlamadError that names what a file cannot say."""
    only = {"mamba_proj_bias": False, "mamba_conv_bias": True, "projectors_bias": False}
    if config.get("mamba_rms_norm"):
        only["mamba_norm_before_gate"] = False
        if config.get("mamba_norm_before_gate") is None:
            raise unsupported(path, "mamba_norm_before_gate is absent, only False is supported")
    check_mamba2(path, config, only)
    for key in sorted({key for keys in _SINGLE.values() for key in keys}):
        _number(path, key, config.get(key))
    _list(path, config, "mlp_multipliers", 2)
    _list(path, config, "ssm_multipliers", 5)
    return state_keys(mamba2_numbers(path, config, FALCON_KEYS))


def falcon_h1_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: attention, with Mamba-2 beside it. Raises LlamadError with the key."""
    n_layers, dim, hidden, n_heads = (
        positive_count(path, key, config.get(key))
        for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    )
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads") or n_heads)
    head_dim = positive_count(path, "head_dim", config.get("head_dim") or dim // n_heads)
    more = {
        BARE_NORM: (dim,),
        **mamba2_tensors(mamba2_numbers(path, config, FALCON_KEYS), dim),
    }
    if not config.get("mamba_rms_norm"):
        del more["ssm_norm.weight"]
    return (Layer(hidden, n_kv, head_dim, more=more),) * n_layers


def arrange_falcon_h1(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a tensor in GGUF's shape, with the multipliers of its rows in them."""
    numbers = mamba2_numbers(path, config, FALCON_KEYS)
    name = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else tensor.name
    factor = np.float32(1)
    for key in _SINGLE.get(name, ()):
        factor *= np.float32(_number(path, key, config.get(key)))
    if name in _LISTED:
        factor *= _list(path, config, "mlp_multipliers", 2)[_LISTED.index(name)]
    factors = np.full(tensor.n_rows, factor, np.float32)
    if name == "ssm_in.weight":
        rows = _input_factors(path, config, numbers)
        if len(rows) != tensor.n_rows:
            raise corrupt(path, f"{tensor.name} has {tensor.n_rows} rows, must have {len(rows)}")
        factors *= rows
    if len(tensor.shape) == 1 or (factors == 1).all():
        return (in_gguf_shape(tensor, numbers),)
    return (scale_rows(tensor, factors),)


def _input_factors(path: Path, config: Config, numbers: Mamba2) -> np.ndarray:
    """Return what z, x, B, C and dt are multiplied by: (rows of ssm_in,) float32."""
    maps = numbers.n_groups * numbers.state
    counts = [numbers.inner, numbers.inner, maps, maps, numbers.n_heads]
    return np.repeat(_list(path, config, "ssm_multipliers", 5), counts)


def _list(path: Path, config: Config, key: str, n: int) -> np.ndarray:
    """Return the n multipliers of a key, float32; an absent one's are 1."""
    values = config.get(key)
    if values is None:
        return np.ones(n, np.float32)
    if not isinstance(values, list) or len(values) != n:
        raise corrupt(path, f"{key} is {str(values)[:MAX_QUOTED]!r}, must be a list of {n}")
    return np.asarray([_number(path, key, value) for value in values], np.float32)


def _number(path: Path, key: str, value: object) -> float:
    """Return a multiplier: 1 if it is absent. Its sign is free."""
    if value is None:
        return 1.0
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        shown = str(value)[:MAX_QUOTED]
        raise corrupt(path, f"{key} is {shown!r}, must be a number of at most {_LARGEST:g}")
    return float(value)
