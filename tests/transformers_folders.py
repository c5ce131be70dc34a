"""Tiny models by Hugging Face's transformers: folders as it saves them, and its own logits.

    build/transformers-venv/bin/python tests/transformers_folders.py build/transformers

``make transformers`` makes the environment, which has PyTorch (4 GB), and runs this in it. Imports
nothing of ours. Each folder gets ``logits.npy``, (n_tokens, vocab_size) float32, of ``tokens.npy``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from transformers_tokenizers import write_tokenizer

N_TOKENS = 40
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "num_hidden_layers": 7}
GRANITE = {
    "embedding_multiplier": 1.5,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.4,
    "logits_scaling": 8.0,
}
GRANITE_HYBRID = GRANITE | {
    "num_local_experts": 0,
    "shared_intermediate_size": 96,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 24,
    "mamba_chunk_size": 16,
}
FALCON_H1: dict[str, Any] = {
    "head_dim": 32,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_n_groups": 2,
    "mamba_d_state": 24,
    "mamba_d_head": 16,
    "mamba_chunk_size": 16,
    "embedding_multiplier": 1.7,
    "lm_head_multiplier": 0.4,
    "attention_in_multiplier": 0.9,
    "attention_out_multiplier": 0.8,
    "key_multiplier": 0.6,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.7,
    "mlp_multipliers": [0.8, 0.5],
    "ssm_multipliers": [0.35, 0.25, 0.5, 0.7, 0.4],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 10 for i in range(8)],
    "long_factor": [1.0 + i for i in range(8)],
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
MINISTRAL = {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e6,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
QWEN35: dict[str, Any] = {
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
LFM2 = {"layer_types": ["conv", "full_attention", "conv", "conv"], "block_multiple_of": 32}
LFM2_MOE: dict[str, Any] = {
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "num_dense_layers": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}
QWEN_MOE = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
GPT_OSS: dict[str, Any] = {
    "head_dim": 32,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "sliding_window": 8,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 16,
    },
}
GEMMA4: dict[str, Any] = {
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 8,
    "num_hidden_layers": 7,
    "num_kv_shared_layers": 2,
    "layer_types": [
        f"{kind}_attention" for kind in ("sliding", "sliding", "full", "sliding", "full")
    ]
    + ["sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 300,
    "use_double_wide_mlp": True,
    "final_logit_softcapping": 3.0,
}
GEMMA4_12B: dict[str, Any] = {
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 8,
    "num_hidden_layers": 6,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "hidden_size_per_layer_input": 0,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3]}
SEES: dict[str, Any] = {  # the part of a model that sees, as small as it can be
    "hidden_size": 32,
    "intermediate_size": 32,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
# name: model_type, what differs from SHAPE
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", GEMMA),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "granite": ("granite", GRANITE),
    "granite-biased": ("granite", GRANITE | {"attention_bias": True, "mlp_bias": True}),
    "ernie4_5": ("ernie4_5", {"head_dim": 32}),
    "olmo2": ("olmo2", {}),
    "seed_oss": ("seed_oss", {"head_dim": 32, "attention_bias": True, "attention_out_bias": False}),
    "arcee": ("arcee", {}),
    "phi3": ("phi3", {"sliding_window": 8}),
    "phi3-partial": (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.75}},
    ),
    "phi3-long": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 128},
    ),
    "granitehybrid": ("granitemoehybrid", GRANITE_HYBRID),
    "granitehybrid-rope": (
        "granitemoehybrid",
        GRANITE_HYBRID | {"position_embedding_type": "rope", "mamba_n_groups": 1},
    ),
    "granitehybrid-experts": (
        "granitemoehybrid",
        GRANITE_HYBRID
        | {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 64},
    ),
    "falcon-h1": ("falcon_h1", FALCON_H1),
    "falcon-h1-tied": ("falcon_h1", FALCON_H1 | {"tie_word_embeddings": True}),
    "falcon-h1-normed": (
        "falcon_h1",
        FALCON_H1 | {"mamba_rms_norm": True, "mamba_norm_before_gate": False},
    ),
    "mamba2": (
        "mamba2",
        {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 24, "chunk_size": 16},
    ),
    "lfm2": ("lfm2", LFM2),
    "lfm2-plain": ("lfm2", LFM2 | {"block_auto_adjust_ff_dim": False, "conv_L_cache": 4}),
    "qwen35": ("qwen3_5_text", QWEN35),
    "qwen35-even": ("qwen3_5_text", QWEN35 | {"linear_num_value_heads": 2}),
    "qwen35-whole": ("qwen3_5", QWEN35),
    "gemma4": ("gemma4_text", GEMMA4),
    "gemma4-12b": ("gemma4_text", GEMMA4_12B),
    "gemma4-whole": ("gemma4", GEMMA4),
    "gemma3-whole": ("gemma3", GEMMA),
    "ministral3": ("ministral3", {"head_dim": 32, "rope_parameters": YARN | MINISTRAL}),
    "mistral3-whole": (
        "mistral3",
        {"model_type": "ministral3", "head_dim": 32, "rope_parameters": YARN | MINISTRAL},
    ),
    "mistral3-older": ("mistral3", {"model_type": "mistral", "head_dim": 32}),
    "exaone4": (
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 4, "rope_parameters": LLAMA3},
    ),
    "exaone4-local": ("exaone4", {"num_hidden_layers": 5, "sliding_window": 8}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 32}),
    "hunyuan-alpha": (
        "hunyuan_v1_dense",
        {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 10000.0,
                "alpha": 1000.0,
                "factor": 1.0,
            },
        },
    ),
    "olmo3": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 8}),
    "olmo3-yarn": (
        "olmo3",
        {"num_hidden_layers": 5, "sliding_window": 8, "rope_scaling": YARN},
    ),
    "qwen2vl-whole": ("qwen2_vl", {"rope_parameters": MROPE}),
    "qwen25vl-whole": ("qwen2_5_vl", {"rope_parameters": MROPE}),
    "qwen3vl-whole": ("qwen3_vl", {"rope_parameters": MROPE, "head_dim": 16}),
    "phi2": ("phi", {"num_key_value_heads": 4}),
    "stablelm": ("stablelm", {}),
    "stablelm-biased": ("stablelm", {"use_qkv_bias": True}),
    "starcoder2": ("starcoder2", {}),
    "gptneox": ("gpt_neox", {"num_key_value_heads": 4}),
    "gptneox-in-turn": ("gpt_neox", {"num_key_value_heads": 4, "use_parallel_residual": False}),
    "qwen3moe": ("qwen3_moe", QWEN_MOE | {"head_dim": 32, "norm_topk_prob": True}),
    "qwen2moe": ("qwen2_moe", QWEN_MOE | {"shared_expert_intermediate_size": 64}),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "olmoe": ("olmoe", {"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 3}),
    "granitemoe": ("granitemoe", GRANITE | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "lfm2moe": ("lfm2_moe", LFM2_MOE),
    "gpt-oss": ("gpt_oss", GPT_OSS),
    "command-r": ("cohere", {}),
    "cohere2": ("cohere2", {"num_hidden_layers": 5, "sliding_window": 8}),
}
TOKENIZERS = ("lfm2", "lfm2-plain", "qwen35", "ministral3", "command-r", "exaone4", "gemma4")
WHOLE: dict[str, dict[str, Any]] = {  # models that see: what their part that sees needs
    "qwen3_5": {"num_position_embeddings": 16},
    "gemma4": {},
    "gemma3": {},
    "mistral3": {},
    "qwen2_vl": {"embed_dim": 32, "hidden_size": 64},
    "qwen2_5_vl": {},
    "qwen3_vl": {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
}


def write(folder: Path, model_type: str, changes: dict[str, Any]) -> None:
    """Write one model with random weights, norms and biases included."""
    torch.manual_seed(1)
    if model_type in WHOLE:
        sees = SEES | WHOLE[model_type]
        config = AutoConfig.for_model(
            model_type, text_config=SHAPE | changes, vision_config=sees, bos_token_id=1
        )
        kind: Any = AutoModelForImageTextToText
    else:
        config = AutoConfig.for_model(model_type, **SHAPE | changes)
        kind = AutoModelForCausalLM
    config._attn_implementation = "eager"
    model = kind.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            spread = 0.3 if weight.ndim == 1 else 1.3 * weight.shape[-1] ** -0.5
            weight += torch.randn_like(weight) * spread
            if model_type.startswith("gemma4") and "q_norm" in weight_name:
                weight *= 0.2  # the scores have no scale but this one
        blocks = _in_mxfp4(model) if model_type == "gpt_oss" else None
        tokens = torch.tensor([[1, *range(3, 3 + 7 * (N_TOKENS - 1), 7)]])
        logits = model(tokens).logits[0]
    model.save_pretrained(folder)
    if blocks is not None:
        _store_blocks(folder, blocks)
    np.save(folder / "tokens.npy", tokens[0].numpy())
    np.save(folder / "logits.npy", logits.numpy())


def _in_mxfp4(model: Any) -> dict[str, torch.Tensor]:
    """Give experts weights that MXFP4 can hold; return them as published folders have them."""
    result: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        if not name.endswith(("gate_up_proj", "down_proj")):
            continue
        n, n_cols, n_rows = weight.shape
        shape = (n, n_rows, n_cols // 32)
        blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        scales = torch.randint(121, 125, shape, dtype=torch.uint8)
        weight.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
        result |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    return result


def _store_blocks(folder: Path, blocks: dict[str, torch.Tensor]) -> None:
    """Put blocks and scales in place of the experts' floats."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in blocks:
        tensors.pop(name.rpartition("_")[0], None)
    save_file(tensors | blocks, path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config))


def main() -> None:
    """Write every model, or those whose names begin as the further arguments say."""
    for name, (model_type, changes) in MODELS.items():
        if sys.argv[2:] and not name.startswith(tuple(sys.argv[2:])):
            continue
        folder = Path(sys.argv[1]) / name
        write(folder, model_type, changes)
        if name in TOKENIZERS:
            write_tokenizer(folder, name)
    print(f"{len(MODELS)} models by transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
