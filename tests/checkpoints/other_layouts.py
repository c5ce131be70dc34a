"""Folders of families whose tensors Hugging Face names, or stores, otherwise than LLaMA's.

Owns its own inverse of each change that ``convert`` makes: from a tiny GGUF model back to the
tensors and the config.json that transformers (InternLM2, MiniCPM: their authors) would have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoints.huggingface_folder import FAMILY_NAMES, LAYER_NAMES, OUTER_NAMES
from family_models import FAMILY_MODELS
from tiny_gguf import TinySpec

Values = NDArray[np.float32]
Named = Mapping[str, Values]
Change = Callable[[TinySpec, str, Values], tuple[str, Values]]

_LLAMA_FEED = {
    "ffn_gate.": "feed_forward.w1.",
    "ffn_up.": "feed_forward.w3.",
    "ffn_down.": "feed_forward.w2.",
}
_MAMBA2_NAMES = {
    "ssm_in.": "mamba.in_proj.",
    "ssm_conv1d.": "mamba.conv1d.",
    "ssm_norm.": "mamba.norm.",
    "ssm_out.": "mamba.out_proj.",
    "ssm_a": "mamba.A_log",
    "ssm_d": "mamba.D",
    "ssm_dt.bias": "mamba.dt_bias",
}
_FOUR_NORMS = FAMILY_NAMES["gemma2"]
_POST_NORMS = FAMILY_NAMES["olmo2"]


def _same(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    return name, values


def halves(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    """Return queries and keys with the halves of a head that Hugging Face rotates."""
    if "attn_q." in name or "attn_k." in name:
        heads = values.reshape(-1, spec.resolved_head_dim // 2, 2, *values.shape[1:])
        values = heads.swapaxes(1, 2).reshape(values.shape)
    return name, values


def _convolution(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    return name, values[:, None, :] if "shortconv.conv" in name else values


def _mamba2(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    """Return vectors without a second dimension, and A's logarithm."""
    match name.split(".", 2)[-1]:
        case "ssm_a":
            return name, np.log(-values).reshape(-1)
        case "ssm_d" | "ssm_norm.weight":
            return name, values.reshape(-1)
        case "ssm_conv1d.weight":
            return name, values[:, None, :]
    return halves(spec, name, values)


# 2 to the power of small numbers, so that dividing by their product and multiplying are exact
_FALCON_H1: dict[str, Any] = {
    "embedding_multiplier": 2.0,
    "lm_head_multiplier": 0.125,
    "attention_in_multiplier": 0.5,
    "attention_out_multiplier": 4.0,
    "key_multiplier": -0.25,
    "ssm_in_multiplier": 2.0,
    "ssm_out_multiplier": 0.5,
    "mlp_multipliers": [4.0, 0.25],
    "ssm_multipliers": [0.5, 2.0, 0.25, 1.0, 4.0],
}
_FACTORS = {
    "token_embd.weight": 2.0,
    "output.weight": 0.125,
    "attn_q.weight": 0.5,
    "attn_k.weight": -0.125,
    "attn_v.weight": 0.5,
    "attn_output.weight": 4.0,
    "ssm_out.weight": 0.5,
    "ffn_gate.weight": 4.0,
    "ffn_down.weight": 0.25,
}


def _falcon_h1(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    """Return weights without their multipliers; ssm_in's rows are z, x, B, C and dt."""
    inner = name.split(".", 2)[-1] if name.startswith("blk.") else name
    if inner == "ssm_in.weight":
        maps = spec.ssm_groups * spec.ssm_state
        rows = np.repeat(_FALCON_H1["ssm_multipliers"], [128, 128, maps, maps, 8])
        return name, (values / (2.0 * rows[:, None])).astype(np.float32)
    changed = _mamba2(spec, name, values)[1] if "ssm" in inner else values
    return name, changed / np.float32(_FACTORS.get(inner, 1.0))


def _delta_net(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    """Return value heads beside those of their key head, and norms less one."""
    n_k, per_k = spec.delta_k_heads, spec.delta_v_heads // spec.delta_k_heads

    def grouped(part: Values, axis: int = 0) -> Values:
        heads = np.moveaxis(part, axis, 0).reshape(per_k, n_k, -1, *np.delete(part.shape, axis))
        result = heads.swapaxes(0, 1).reshape(np.moveaxis(part, axis, 0).shape)
        return np.ascontiguousarray(np.moveaxis(result, 0, axis))

    inner = name.split(".", 2)[-1]
    if inner in ("attn_qkv.weight", "ssm_conv1d.weight"):
        keys = 2 * n_k * spec.delta_dim
        values = np.concatenate([values[:keys], grouped(values[keys:])])
        return name, values[:, None, :] if "conv" in inner else values
    if inner == "ssm_a":
        return name, np.log(-grouped(values))
    if inner in ("attn_gate.weight", "ssm_beta.weight", "ssm_alpha.weight", "ssm_dt.bias"):
        return name, grouped(values)
    if inner == "ssm_out.weight":
        return name, grouped(values, axis=1)
    if name.endswith("norm.weight") and "ssm" not in name:
        return name, values - np.float32(1)
    return name, values


def _by_head(spec: TinySpec, name: str, values: Values) -> tuple[str, Values]:
    """Return GPT-NeoX's fused matrix: of each head its query, key and value."""
    if "attn_qkv" in name:
        parts = values.reshape(3, spec.n_heads, spec.resolved_head_dim, *values.shape[1:])
        values = parts.swapaxes(0, 1).reshape(values.shape)
    return name, values


@dataclass(frozen=True, slots=True)
class Layout:
    """How Hugging Face stores a family. names: of ours in a layer, and of those in none."""

    spec: TinySpec
    names: Mapping[str, str] = field(default_factory=dict)
    outer: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "model.layers"
    change: Change = _same
    config: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str | None = None  # model_type of the whole

    def weights(self, values: Named) -> dict[str, Values]:
        """Return their tensors."""
        result = {}
        for name, ours in values.items():
            if name.startswith(("rope_freqs", "rope_factors")):
                continue
            _, theirs = self.change(self.spec, name, ours)
            result[self._name(name)] = theirs
        if self.spec.architecture == "granitehybrid":
            return _joined_gates(self.spec, result)
        return _grouped(self.spec, result) if self.spec.architecture == "internlm2" else result

    def _name(self, name: str) -> str:
        outer = {**OUTER_NAMES, **self.outer}
        if name in outer:
            found = outer[name]
        else:
            _, layer, rest = name.split(".", 2)
            names = {**LAYER_NAMES, **self.names}
            stem, _, kind = rest.rpartition(".")
            inner = names[rest] if rest in names else names[stem + "."] + kind
            found = f"{self.prefix}.{layer}.{inner}"
        if self.wrapper is not None and found.startswith("model."):
            return "model.language_model." + found.removeprefix("model.")
        return found


def _grouped(spec: TinySpec, weights: Mapping[str, Values]) -> dict[str, Values]:
    """Return InternLM2's wqkv in place of three: of each key head its queries, key and value."""
    result = dict(weights)
    for layer in range(spec.n_layers):
        names = [f"model.layers.{layer}.self_attn.{p}_proj.weight" for p in "qkv"]
        q, k, v = (
            result.pop(name).reshape(spec.n_kv_heads, -1, spec.resolved_head_dim, spec.dim)
            for name in names
        )
        joined = np.concatenate([q, k, v], axis=1)
        result[f"model.layers.{layer}.attention.wqkv.weight"] = joined.reshape(-1, spec.dim)
    return result


_GEMMA4 = replace(FAMILY_MODELS["gemma4"], rope_scaling_factor=1.0)  # of the pairs that turn
_MINICPM = FAMILY_MODELS["minicpm"]
_LAYER_NORM = {"layer_norm_eps": 1e-5, "rms_norm_eps": None}
_GEMMA4_CONFIG: dict[str, Any] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_act": None,
    "sliding_window": 8,
    "rope_theta": None,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {
            "rope_type": "proportional",
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.25,
        },
    },
}


def _joined_gates(spec: TinySpec, weights: Mapping[str, Values]) -> dict[str, Values]:
    """Return Granite's input_linear in place of gate and up."""
    result = dict(weights)
    for layer in range(spec.n_layers):
        prefix = f"model.layers.{layer}.shared_mlp."
        parts = [result.pop(f"{prefix}{part}.weight") for part in ("gate", "up")]
        result[f"{prefix}input_linear.weight"] = np.concatenate(parts)
    return result


def _kinds(is_local: Any) -> list[str]:
    return ["sliding_attention" if local else "full_attention" for local in is_local]


LAYOUTS: Mapping[str, Layout] = {  # by model_type
    "lfm2": Layout(
        FAMILY_MODELS["lfm2"],
        {
            "attn_norm.": "operator_norm.",
            "ffn_norm.": "ffn_norm.",
            "attn_output.": "self_attn.out_proj.",
            "attn_q_norm.": "self_attn.q_layernorm.",
            "attn_k_norm.": "self_attn.k_layernorm.",
            "shortconv.conv.": "conv.conv.",
            "shortconv.in_proj.": "conv.in_proj.",
            "shortconv.out_proj.": "conv.out_proj.",
            **_LLAMA_FEED,
        },
        {"token_embd_norm.weight": "model.embedding_norm.weight"},
        change=_convolution,
        config={
            "norm_eps": 1e-5,
            "rms_norm_eps": None,
            "layer_types": ["conv", "conv", "full_attention", "conv"],
            "block_auto_adjust_ff_dim": False,
            "conv_L_cache": 3,
        },
    ),
    "falcon_h1": Layout(
        FAMILY_MODELS["falcon-h1"],
        {
            **_MAMBA2_NAMES,
            "ffn_gate.": "feed_forward.gate_proj.",
            "ffn_up.": "feed_forward.up_proj.",
            "ffn_down.": "feed_forward.down_proj.",
            "ffn_norm": "pre_ff_layernorm.weight",
        },
        {"output_norm.weight": "model.final_layernorm.weight"},
        change=_falcon_h1,
        config=_FALCON_H1
        | {"mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 24, "mamba_d_ssm": 128},
    ),
    "granitemoehybrid": Layout(
        FAMILY_MODELS["granitehybrid"],
        {
            **_MAMBA2_NAMES,
            "ffn_gate.": "shared_mlp.gate.",
            "ffn_up.": "shared_mlp.up.",
            "ffn_down.": "shared_mlp.output_linear.",
        },
        change=_mamba2,
        config={
            "intermediate_size": None,
            "shared_intermediate_size": 96,
            "num_local_experts": 0,
            "layer_types": ["mamba", "mamba", "attention", "mamba"],
            "mamba_n_heads": 8,
            "mamba_n_groups": 2,
            "mamba_d_state": 24,
            "mamba_d_conv": 4,
            "position_embedding_type": "nope",
            "embedding_multiplier": 1.5,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.4,
            "logits_scaling": 8.0,
        },
    ),
    "mamba2": Layout(
        FAMILY_MODELS["mamba2"],
        {
            "attn_norm.": "norm.",
            "ssm_in.": "mixer.in_proj.",
            "ssm_conv1d.": "mixer.conv1d.",
            "ssm_norm.": "mixer.norm.",
            "ssm_out.": "mixer.out_proj.",
            "ssm_a": "mixer.A_log",
            "ssm_d": "mixer.D",
            "ssm_dt.bias": "mixer.dt_bias",
        },
        {
            "token_embd.weight": "backbone.embeddings.weight",
            "output_norm.weight": "backbone.norm_f.weight",
        },
        prefix="backbone.layers",
        change=_mamba2,
        config={
            **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "intermediate_size")),
            "max_position_embeddings": None,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "state_size": 24,
        },
    ),
    "qwen3_5_text": Layout(
        FAMILY_MODELS["qwen35"],
        {
            "attn_qkv.": "linear_attn.in_proj_qkv.",
            "attn_gate.": "linear_attn.in_proj_z.",
            "ssm_beta.": "linear_attn.in_proj_b.",
            "ssm_alpha.": "linear_attn.in_proj_a.",
            "ssm_conv1d.": "linear_attn.conv1d.",
            "ssm_norm.": "linear_attn.norm.",
            "ssm_out.": "linear_attn.out_proj.",
            "ssm_a": "linear_attn.A_log",
            "ssm_dt.bias": "linear_attn.dt_bias",
            "post_attention_norm.": "post_attention_layernorm.",
        },
        change=_delta_net,
        config={
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "partial_rotary_factor": 0.5,
        },
        wrapper="qwen3_5",
    ),
    "gemma4_text": Layout(
        _GEMMA4,
        {
            **_FOUR_NORMS,
            "inp_gate.": "per_layer_input_gate.",
            "proj.": "per_layer_projection.",
            "post_norm.": "post_per_layer_input_norm.",
            "layer_output_scale.weight": "layer_scalar",
        },
        {
            "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
            "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
            "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
        },
        config=_GEMMA4_CONFIG
        | {
            "head_dim": 32,
            "global_head_dim": 64,
            "layer_types": _kinds(_GEMMA4.is_local),
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 32,
            "vocab_size_per_layer_input": 300,
            "final_logit_softcapping": 3.0,
        },
        wrapper="gemma4",
    ),
    "ministral3": Layout(
        FAMILY_MODELS["mistral3"],
        change=halves,
        config={
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 16.0,
                "original_max_position_embeddings": 9,
                "beta_fast": 16.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            }
        },
        wrapper="mistral3",
    ),
    "exaone4": Layout(
        TinySpec(architecture="exaone4", n_layers=5, window=8),
        _POST_NORMS,
        config={"sliding_window": 8, "sliding_window_pattern": "LLLG"},
    ),
    "hunyuan_v1_dense": Layout(
        FAMILY_MODELS["hunyuan-dense"],
        {
            "attn_q_norm.": "self_attn.query_layernorm.",
            "attn_k_norm.": "self_attn.key_layernorm.",
        },
    ),
    "internlm2": Layout(
        FAMILY_MODELS["internlm2"],
        {
            "attn_norm.": "attention_norm.",
            "ffn_norm.": "ffn_norm.",
            "attn_output.": "attention.wo.",
            **_LLAMA_FEED,
        },
        {
            "token_embd.weight": "model.tok_embeddings.weight",
            "output.weight": "output.weight",
        },
        change=halves,
        config={"bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ),
    "minicpm": Layout(
        replace(
            _MINICPM,
            metadata={"minicpm.residual_scale": 1.4 / 2**0.5, "minicpm.logit_scale": 4.0},
        ),
        change=halves,
        config={"scale_emb": 1.5, "scale_depth": 1.4, "dim_model_base": 16},
    ),
    "olmo3": Layout(
        TinySpec(architecture="olmo2", n_layers=5, window=8, rope_freq_base=5e5),
        _POST_NORMS,
        config={"sliding_window": 8},
    ),
    "qwen2_vl_text": Layout(
        TinySpec(architecture="qwen2vl"),
        config={"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
        wrapper="qwen2_vl",
    ),
    "qwen3_vl_text": Layout(
        TinySpec(architecture="qwen3vl"),
        config={"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        wrapper="qwen3_vl",
    ),
    "phi": Layout(
        FAMILY_MODELS["phi2"],
        {"attn_output.": "self_attn.dense.", "ffn_up.": "mlp.fc1.", "ffn_down.": "mlp.fc2."},
        {
            "output_norm.weight": "model.final_layernorm.weight",
            "output_norm.bias": "model.final_layernorm.bias",
            "output.bias": "lm_head.bias",
        },
        config=_LAYER_NORM | {"hidden_act": "gelu_new", "partial_rotary_factor": 0.5},
    ),
    "stablelm": Layout(
        replace(FAMILY_MODELS["stablelm"], rope_dimension_count=4),
        outer={"output_norm.bias": "model.norm.bias"},
        config=_LAYER_NORM | {"partial_rotary_factor": 0.25, "use_parallel_residual": False},
    ),
    "starcoder2": Layout(
        FAMILY_MODELS["starcoder2"],
        {"ffn_up.": "mlp.c_fc.", "ffn_down.": "mlp.c_proj."},
        {"output_norm.bias": "model.norm.bias"},
        config={"norm_epsilon": 1e-5, "rms_norm_eps": None, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "gpt_neox": Layout(
        replace(FAMILY_MODELS["gptneox"], n_kv_heads=4),
        {
            "attn_qkv.": "attention.query_key_value.",
            "attn_output.": "attention.dense.",
            "ffn_up.": "mlp.dense_h_to_4h.",
            "ffn_down.": "mlp.dense_4h_to_h.",
            "ffn_norm.": "post_attention_layernorm.",
        },
        {
            "token_embd.weight": "gpt_neox.embed_in.weight",
            "output_norm.weight": "gpt_neox.final_layer_norm.weight",
            "output_norm.bias": "gpt_neox.final_layer_norm.bias",
            "output.weight": "embed_out.weight",
        },
        prefix="gpt_neox.layers",
        change=_by_head,
        config=_LAYER_NORM | {"hidden_act": "gelu", "rotary_pct": 0.5, "rotary_emb_base": 10000},
    ),
    "cohere": Layout(FAMILY_MODELS["command-r"], config=_LAYER_NORM | {"rope_theta": 10000.0}),
    "cohere2": Layout(
        FAMILY_MODELS["cohere2"],
        config=_LAYER_NORM | {"sliding_window": 8, "logit_scale": 0.25},
    ),
}
