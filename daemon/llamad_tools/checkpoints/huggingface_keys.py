"""What config.json says of one family only, as GGUF's keys below the architecture's.

What a config.json may say and a file cannot, these functions refuse by name: a file that loads and
answers wrongly is worse than none.
"""

import math
from pathlib import Path

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.hyperparameters import TOKEN_TYPES
from llamad_tools.checkpoints.json_file import positive_count, positive_float
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported


def _number(path: Path, config: Config, key: str, default: float) -> float:
    value = config.get(key)
    return positive_float(path, key, default if value is None else value)


def _must_be(path: Path, config: Config, key: str, expected: object) -> None:
    if config.get(key, expected) != expected:
        raise unsupported(path, f"{key} {config[key]!r} is not supported, only {expected!r}")


def granite_keys(path: Path, config: Config) -> Metadata:
    """Return Granite's four scales."""
    keys = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }
    return {ours: _number(path, config, theirs, 1.0) for theirs, ours in keys.items()}


def smollm3_keys(path: Path, config: Config) -> Metadata:
    """Refuse layers without RoPE that are not every fourth."""
    _must_be(path, config, "no_rope_layer_interval", 4)
    layers = config.get("no_rope_layers")
    if layers and layers != [int((i + 1) % 4 != 0) for i in range(len(layers))]:
        raise unsupported(path, "no_rope_layers is not every fourth layer")
    return {}


def ernie_keys(path: Path, config: Config) -> Metadata:
    """Refuse biases."""
    _must_be(path, config, "use_bias", False)
    return {}


def gemma2_keys(path: Path, config: Config) -> Metadata:
    """Return Gemma 2's softcaps and window."""
    _check_query_scale(path, config, wide_layers=46)
    return {
        "attn_logit_softcapping": _number(path, config, "attn_logit_softcapping", 50.0),
        "final_logit_softcapping": _number(path, config, "final_logit_softcapping", 30.0),
        **_window(path, config, 4096),
    }


def gemma3_keys(path: Path, config: Config) -> Metadata:
    """Return Gemma 3's window, the base of its layers with one, and a softcap."""
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
        if config.get(key) not in (None, "L" * (period - 1) + "G"):  # as EXAONE 4 writes it
            _must_be(path, config, key, period)
    layers = config.get("layer_types") or []
    if not isinstance(layers, list):
        raise corrupt(path, f"layer_types is {layers!r}, must be a list")
    usual = [("full" if (i + 1) % period == 0 else "sliding") for i in range(len(layers))]
    if layers != [f"{kind}_attention" for kind in usual]:
        raise unsupported(path, f"layer_types: only one with every {period}th layer full is")


def phi3_keys(path: Path, config: Config) -> Metadata:
    """Return Phi-3's window, if it has one."""
    if config.get("sliding_window") is None:
        return {}
    return _window(path, config, 1)


def exaone4_keys(path: Path, config: Config) -> Metadata:
    """Return EXAONE 4's window; the smaller models have none."""
    if config.get("sliding_window") is None:
        if any(kind != "full_attention" for kind in config.get("layer_types") or []):
            raise corrupt(path, "layer_types has layers that slide, but no sliding_window")
        return {}
    return _window(path, config, 1)


def olmo3_keys(path: Path, config: Config) -> Metadata:
    """Return OLMo 3's window. RoPE is scaled in layers that see everything only."""
    window = _window(path, config, 4096)
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get("sliding_attention"), dict):
        local, full = parameters["sliding_attention"], parameters.get("full_attention") or {}
        if local.get("rope_type", "default") != "default":
            raise unsupported(path, f"rope_parameters.sliding_attention {local!r} is not supported")
        base = local.get("rope_theta")
        if base is not None and isinstance(full, dict) and base != full.get("rope_theta"):
            key = "rope_parameters.sliding_attention.rope_theta"
            return {**window, "rope.freq_base_swa": positive_float(path, key, base)}
    return window


def cohere_keys(path: Path, config: Config) -> Metadata:
    """Return the scale of Command R's logits."""
    _must_be(path, config, "use_qk_norm", False)
    return {"logit_scale": _number(path, config, "logit_scale", 0.0625)}


def cohere2_keys(path: Path, config: Config) -> Metadata:
    """Return Command R7B's window and the scale of its logits."""
    _must_be(path, config, "rotary_pct", 1.0)
    return {**cohere_keys(path, config), **_window(path, config, 4096)}


def phi_keys(path: Path, config: Config) -> Metadata:
    """Refuse norms of heads, which only some of Phi-2's relatives have."""
    _must_be(path, config, "qk_layernorm", False)
    return {}


def stablelm_keys(path: Path, config: Config) -> Metadata:
    """Refuse what StableLM 2 12B has: norms of heads, halves that read the same row."""
    _must_be(path, config, "qk_layernorm", False)
    _must_be(path, config, "use_parallel_residual", False)
    return {"use_parallel_residual": False}


def gpt_neox_keys(path: Path, config: Config) -> Metadata:
    """Say whether both halves of a layer read the same row."""
    parallel = config.get("use_parallel_residual", True)
    if not isinstance(parallel, bool):
        raise corrupt(path, f"use_parallel_residual is {parallel!r}, must be true or false")
    return {"use_parallel_residual": parallel}


def hunyuan_keys(path: Path, config: Config) -> Metadata:
    """Refuse a model without norms of heads, and one whose layers share keys and values."""
    _must_be(path, config, "use_qk_norm", True)
    _must_be(path, config, "use_cla", False)
    return {}


def internlm2_keys(path: Path, config: Config) -> Metadata:
    """Refuse biases, which no published model has."""
    _must_be(path, config, "bias", False)
    return {}


def minicpm_keys(path: Path, config: Config) -> Metadata:
    """Return MiniCPM's scales (arXiv 2404.06395, appendix A)."""
    n_layers = positive_count(path, "num_hidden_layers", config.get("num_hidden_layers"))
    dim = positive_count(path, "hidden_size", config.get("hidden_size"))
    depth = _number(path, config, "scale_depth", 1.0)
    return {
        "embedding_scale": _number(path, config, "scale_emb", 1.0),
        "residual_scale": depth / math.sqrt(n_layers),
        "logit_scale": dim / _number(path, config, "dim_model_base", 1.0),
    }


def ministral3_keys(path: Path, config: Config) -> Metadata:
    """Return how queries grow with their position, beyond the context RoPE was trained for."""
    parameters = config.get("rope_parameters") or {}
    beta = parameters.get("llama_4_scaling_beta")
    if beta is None:
        return {}
    return {
        "attention.temperature_scale": positive_float(
            path, "rope_parameters.llama_4_scaling_beta", beta
        )
    }


def mrope_keys(path: Path, config: Config) -> Metadata:
    """Return how M-RoPE shares a head among time, height and width; llama.cpp wants the key."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    sections = parameters.get("mrope_section")
    match sections:
        case [int(), int(), int()] if min(sections) >= 0:
            return {"rope.dimension_sections": [*sections, 0]}
    raise corrupt(path, f"rope_scaling.mrope_section is {sections!r}, must be three numbers")


def bert_keys(path: Path, config: Config) -> Metadata:
    """Say that every token sees every other; refuse positions that are not learned."""
    _must_be(path, config, "position_embedding_type", "absolute")
    _must_be(path, config, "is_decoder", False)
    return {"attention.causal": False}


def bert_outer(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what BERT's embedding has beside tokens."""
    dim = int(config["hidden_size"])
    return {
        "position_embd.weight": (int(config["max_position_embeddings"]), dim),
        TOKEN_TYPES: (int(config["type_vocab_size"]), dim),
    }
