"""The families of Hugging Face folders: a row of facts each, by the model_type of config.json.

A row says what the family's tensors are called, which of them change on the way, and which numbers
GGUF wants beside those that all have. Sources: transformers' ``modeling_*.py`` and
``configuration_*.py`` of that name, and llama.cpp's converters for the names of keys. What a
config.json may say and a file cannot, ``check`` refuses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.json_file import positive_count, positive_float
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported

Config = Mapping[str, Any]
Check = Callable[[Path, Config], Metadata]

_PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_FOUR_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_SILU = frozenset({"silu", "swish"})  # names of one function
_GELU = frozenset({"gelu", "gelu_pytorch_tanh"})  # Gemma's is by tanh, also where it says gelu


@dataclass(frozen=True, slots=True)
class Family:
    """What sets a family apart. architecture: GGUF's name."""

    architecture: str
    interleaves: bool = False  # GGUF rotates neighbours where Hugging Face rotates halves
    head_dim: int | None = None  # where config.json says none; else hidden_size / heads
    norms: Mapping[str, str] = field(default_factory=lambda: _PRE_NORMS)  # theirs: ours
    qk_norms: Mapping[str, str] = field(default_factory=dict)
    row_norm: bool = False  # qk_norms are of all heads together
    norms_without_one: bool = False  # a stored norm weight is one less than what it multiplies by
    activations: frozenset[str] = _SILU
    gated: bool = True
    fused: bool = False  # q, k and v in one matrix, gate and up in another
    qkv_bias: bool | None = None  # None: as attention_bias says
    output_bias: str | None = "attention_bias"  # the key that says; None: it has none
    window_period: int = 0  # every n-th layer sees everything, the others a window; 0: no windows
    partial_rope: bool = False  # RoPE may turn a part of each head
    theta: float = 10000.0  # of RoPE, where config.json says none
    check: Check = lambda path, config: {}  # returns keys below the architecture's

    def inner_names(self) -> dict[str, str]:
        """Return the names of a layer's tensors: theirs to GGUF's."""
        return {**_MATRICES, **self.norms, **self.qk_norms, **(_FUSED if self.fused else {})}


_MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}


def _number(path: Path, config: Config, key: str, default: float) -> float:
    value = config.get(key)
    return positive_float(path, key, default if value is None else value)


def _must_be(path: Path, config: Config, key: str, expected: object) -> None:
    if config.get(key, expected) != expected:
        raise unsupported(path, f"{key} {config[key]!r} is not supported, only {expected!r}")


def _granite(path: Path, config: Config) -> Metadata:
    keys = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }
    return {ours: _number(path, config, theirs, 1.0) for theirs, ours in keys.items()}


def _smollm3(path: Path, config: Config) -> Metadata:
    _must_be(path, config, "no_rope_layer_interval", 4)
    layers = config.get("no_rope_layers")
    if layers and layers != [int((i + 1) % 4 != 0) for i in range(len(layers))]:
        raise unsupported(path, "no_rope_layers is not every fourth layer")
    return {}


def _ernie(path: Path, config: Config) -> Metadata:
    _must_be(path, config, "use_bias", False)
    return {}


def _gemma2(path: Path, config: Config) -> Metadata:
    _check_query_scale(path, config, wide_layers=46)
    return {
        "attn_logit_softcapping": _number(path, config, "attn_logit_softcapping", 50.0),
        "final_logit_softcapping": _number(path, config, "final_logit_softcapping", 30.0),
        **_window(path, config, 4096),
    }


def _gemma3(path: Path, config: Config) -> Metadata:
    _check_query_scale(path, config, wide_layers=62)
    _must_be(path, config, "attn_logit_softcapping", None)
    _must_be(path, config, "use_bidirectional_attention", False)
    result = _window(path, config, 4096)
    local = config.get("rope_local_base_freq")
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get("sliding_attention"), dict):
        local = parameters["sliding_attention"].get("rope_theta", local)
    result["rope.freq_base_swa"] = positive_float(
        path, "rope_local_base_freq", 10000.0 if local is None else local
    )
    if config.get("final_logit_softcapping") is not None:
        result["final_logit_softcapping"] = _number(path, config, "final_logit_softcapping", 30.0)
    return result


def _check_query_scale(path: Path, config: Config, wide_layers: int) -> None:
    """Refuse a scale of queries that the engine does not derive from the other numbers."""
    head_dim = config.get("head_dim", 256)
    scalar = config.get("query_pre_attn_scalar", 256)
    if config.get("num_hidden_layers") == wide_layers:
        head_dim = int(config["hidden_size"]) // int(config["num_attention_heads"])
    if scalar != head_dim:
        raise unsupported(path, f"query_pre_attn_scalar {scalar!r}, only {head_dim} is")


def _window(path: Path, config: Config, default: int) -> Metadata:
    value = config.get("sliding_window")
    count = positive_count(path, "sliding_window", default if value is None else value)
    return {"attention.sliding_window": count}


def check_layers(path: Path, config: Config, period: int) -> None:
    """Refuse layers with a window that are not those of the family. Raises LlamadError."""
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        if isinstance(config.get(key), int):
            _must_be(path, config, key, period)
    layers = config.get("layer_types") or []
    if not isinstance(layers, list):
        raise corrupt(path, f"layer_types is {layers!r}, must be a list")
    usual = [("full" if (i + 1) % period == 0 else "sliding") for i in range(len(layers))]
    if layers != [f"{kind}_attention" for kind in usual]:
        raise unsupported(path, f"layer_types: only one with every {period}th layer full is")


def _phi3(path: Path, config: Config) -> Metadata:
    if config.get("sliding_window") is None:
        return {}
    return _window(path, config, 1)


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", interleaves=True),
    "mistral": Family("llama", interleaves=True),
    "qwen2": Family("qwen2", qkv_bias=True, output_bias=None),
    "qwen3": Family("qwen3", head_dim=128, qk_norms=_HEAD_NORMS),
    "smollm3": Family("smollm3", interleaves=True, theta=2e6, check=_smollm3),
    "granite": Family("granite", interleaves=True, check=_granite),
    "ernie4_5": Family("ernie4_5", theta=5e5, head_dim=128, check=_ernie),
    "olmo2": Family("olmo2", norms=_POST_NORMS, qk_norms=_HEAD_NORMS, row_norm=True, theta=5e5),
    "seed_oss": Family(
        "seed_oss",
        norms={"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm"},
        output_bias="attention_out_bias",
        head_dim=128,
    ),
    "arcee": Family("arcee", interleaves=True, activations=frozenset({"relu2"}), gated=False),
    "phi3": Family("phi3", fused=True, partial_rope=True, check=_phi3),
    "gemma": Family("gemma", head_dim=256, activations=_GELU, norms_without_one=True),
    "gemma2": Family(
        "gemma2",
        head_dim=256,
        norms=_FOUR_NORMS,
        activations=_GELU,
        norms_without_one=True,
        window_period=2,
        check=_gemma2,
    ),
    "gemma3_text": Family(
        "gemma3",
        head_dim=256,
        norms=_FOUR_NORMS,
        qk_norms=_HEAD_NORMS,
        activations=_GELU,
        norms_without_one=True,
        window_period=6,
        theta=1e6,
        check=_gemma3,
    ),
}
