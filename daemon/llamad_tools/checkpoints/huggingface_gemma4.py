"""Gemma 4 without experts: layers of two kinds, shared keys and values, inputs of each layer.

Source: ``modeling_gemma4.py`` and ``configuration_gemma4.py`` of transformers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count, positive_float
from llamad_tools.checkpoints.layer_types import layer_types
from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt, unsupported

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_PERIOD = 6  # every sixth layer sees everything, where no layer_types says otherwise


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What config.json says of layers: one number for local ones, one for those that see all."""

    is_local: tuple[bool, ...]
    head_dim: int
    global_head_dim: int
    n_kv_heads: int
    n_global_kv_heads: int
    n_shared: int  # the last layers, which have no keys and values of their own
    hidden_dim: int
    input_dim: int  # of a layer's input; 0: none

    @property
    def n_own(self) -> int:
        return len(self.is_local) - self.n_shared

    def kv_heads(self, layer: int) -> int:
        return self.n_kv_heads if self.is_local[layer] else self.n_global_kv_heads


def global_head_dim(path: Path, config: Config) -> int:
    """Return the size of a head in a layer that sees everything."""
    return _of_global_layers(path, config, "head_dim", "global_head_dim", 512)


def gemma4_keys(path: Path, config: Config) -> Metadata:
    """Return Gemma 4's keys. Raises LlamadError that names the one that a file cannot say."""
    for key in ("enable_moe_block", "attention_bias"):
        if config.get(key):
            raise unsupported(path, f"{key} true is not supported, only false")
    if config.get("use_bidirectional_attention") == "all":
        raise unsupported(path, "use_bidirectional_attention 'all' is not supported")
    numbers = _numbers(path, config)
    result: Metadata = {
        "attention.key_length_swa": numbers.head_dim,
        "attention.value_length_swa": numbers.head_dim,
        "attention.sliding_window": _count(path, config, "sliding_window"),
        "attention.sliding_window_pattern": list(numbers.is_local),
        "attention.shared_kv_layers": numbers.n_shared,
        "attention.head_count_kv": [numbers.kv_heads(i) for i in range(len(numbers.is_local))],
        "embedding_length_per_layer_input": numbers.input_dim,
        "rope.dimension_count_swa": numbers.head_dim,
        "rope.freq_base_swa": _local_base(path, config),
    }
    widths = [layer.hidden_dim for layer in gemma4_layers(path, config)]
    if len(set(widths)) > 1:
        result["feed_forward_length"] = widths
    # A file without the key means 30; one without a cap says so by 0.
    cap = config.get("final_logit_softcapping")
    result["final_logit_softcapping"] = (
        0.0 if cap is None else positive_float(path, "final_logit_softcapping", cap)
    )
    return result


def gemma4_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer."""
    numbers = _numbers(path, config)
    dim = _count(path, config, "hidden_size")
    more: dict[str, Shape] = {"layer_output_scale.weight": (1,)}
    if numbers.input_dim:
        more |= {
            "inp_gate.weight": (numbers.input_dim, dim),
            "proj.weight": (dim, numbers.input_dim),
            "post_norm.weight": (dim,),
        }
    result = []
    for index, is_local in enumerate(numbers.is_local):
        absent = set()
        if index >= numbers.n_own:
            absent = {"attn_k", "attn_v", "attn_k_norm"}
        elif not is_local and config.get("attention_k_eq_v"):
            absent = {"attn_v"}
        is_wide = index >= numbers.n_own and config.get("use_double_wide_mlp")
        head_dim = numbers.head_dim if is_local else numbers.global_head_dim
        hidden_dim = numbers.hidden_dim * (2 if is_wide else 1)
        result.append(
            Layer(hidden_dim, numbers.kv_heads(index), head_dim, None, more, frozenset(absent))
        )
    return tuple(result)


def gemma4_outer(config: Config) -> Mapping[str, Shape]:
    """Return the tensors that make the inputs of layers; the config was checked."""
    input_dim, dim = config.get("hidden_size_per_layer_input"), config["hidden_size"]
    if not input_dim:
        return {}
    width = config["num_hidden_layers"] * input_dim
    return {
        "per_layer_token_embd.weight": (config["vocab_size"], width),
        "per_layer_model_proj.weight": (width, dim),
        "per_layer_proj_norm.weight": (input_dim,),
    }


def arrange_gemma4(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Leave out keys and values of layers that read those of another, which older folders have."""
    parts = tensor.name.split(".")
    if parts[0] != "blk" or parts[2] not in ("attn_k", "attn_v", "attn_k_norm"):
        return (tensor,)
    return (tensor,) if int(parts[1]) < _numbers(path, config).n_own else ()


def _numbers(path: Path, config: Config) -> _Numbers:
    n_layers = _count(path, config, "num_hidden_layers")
    n_shared, input_dim = config.get("num_kv_shared_layers"), config["hidden_size_per_layer_input"]
    if not isinstance(n_shared, int) or not 0 <= n_shared < n_layers:
        raise corrupt(
            path, f"num_kv_shared_layers is {n_shared!r}, must be 0 to {n_layers - 1} layers"
        )
    if input_dim:
        positive_count(path, "hidden_size_per_layer_input", input_dim)
        if config.get("vocab_size_per_layer_input") != config.get("vocab_size"):
            raise unsupported(
                path,
                f"vocab_size_per_layer_input {config.get('vocab_size_per_layer_input')!r}, only "
                f"vocab_size {config.get('vocab_size')} is",
            )
    usual = [_GLOBAL if (i + 1) % _PERIOD == 0 else _LOCAL for i in range(n_layers)]
    usual[-1] = _GLOBAL
    kinds = layer_types(path, config, n_layers, (_LOCAL, _GLOBAL), usual)
    n_kv_heads = _count(path, config, "num_key_value_heads")
    n_global = n_kv_heads
    if config.get("attention_k_eq_v"):
        n_global = _of_global_layers(
            path, config, "num_key_value_heads", "num_global_key_value_heads", n_kv_heads
        )
    return _Numbers(
        tuple(kind == _LOCAL for kind in kinds),
        _count(path, config, "head_dim"),
        global_head_dim(path, config),
        n_kv_heads,
        n_global,
        n_shared,
        _count(path, config, "intermediate_size"),
        input_dim or 0,
    )


def _of_global_layers(path: Path, config: Config, key: str, older: str, default: int) -> int:
    """Return a number of the layers that see everything.

    Older folders have a key of its own for it, newer ones an entry in per_layer_config for each.
    """
    by_layer = config.get("per_layer_config")
    if by_layer is not None and not isinstance(by_layer, dict):
        raise corrupt(path, "per_layer_config is no object")
    values: set[Any] = set()
    for entry in (by_layer or {}).values():
        if not isinstance(entry, dict):
            raise corrupt(path, "per_layer_config has a layer that is no object")
        if entry.get(key) is not None:
            values.add(positive_count(path, f"per_layer_config.{key}", entry[key]))
    if config.get(older) is not None:
        values.add(positive_count(path, older, config[older]))
    if len(values) > 1:
        raise unsupported(path, f"per_layer_config has {len(values)} values of {key}, only one is")
    return values.pop() if values else default


def _local_base(path: Path, config: Config) -> float:
    parameters = config.get("rope_parameters") or {}
    local = parameters.get("sliding_attention") if isinstance(parameters, dict) else None
    if local is None:
        return 10000.0
    if not isinstance(local, dict) or local.get("rope_type", "default") != "default":
        raise unsupported(path, f"rope_parameters.sliding_attention {local!r} is not supported")
    if local.get("partial_rotary_factor", 1.0) != 1.0:
        raise unsupported(
            path, "rope_parameters.sliding_attention.partial_rotary_factor, only 1 is"
        )
    return positive_float(
        path, "rope_parameters.sliding_attention.rope_theta", local.get("rope_theta", 10000.0)
    )


def _count(path: Path, config: Config, key: str) -> int:
    return positive_count(path, key, config.get(key))
