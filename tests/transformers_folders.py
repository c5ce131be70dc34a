"""Tiny models by Hugging Face's transformers: folders as it saves them, and its own logits.

    build/transformers-venv/bin/python tests/transformers_folders.py build/transformers

``make transformers`` makes the environment, which has PyTorch (4 GB), and runs this in it. Imports
nothing of ours. Each folder gets ``logits.npy``, (n_tokens, vocab_size) float32, of ``tokens.npy``.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

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
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 10 for i in range(8)],
    "long_factor": [1.0 + i for i in range(8)],
    "original_max_position_embeddings": 128,
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
}


def write(folder: Path, model_type: str, changes: dict[str, Any]) -> None:
    """Write one model with random weights, norms and biases included."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **SHAPE | changes)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.3 if weight.ndim == 1 else 1.3 * weight.shape[-1] ** -0.5
            weight += torch.randn_like(weight) * spread
        tokens = torch.tensor([[1, *range(3, 3 + 7 * (N_TOKENS - 1), 7)]])
        logits = model(tokens).logits[0]
    model.save_pretrained(folder)
    np.save(folder / "tokens.npy", tokens[0].numpy())
    np.save(folder / "logits.npy", logits.numpy())


def main() -> None:
    """Write every model."""
    for name, (model_type, changes) in MODELS.items():
        write(Path(sys.argv[1]) / name, model_type, changes)
    print(f"{len(MODELS)} models by transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
