"""Adapters (LoRA) by Hugging Face's peft: folders as it saves them, and its own logits.

    build/transformers-venv/bin/python tests/peft_folders.py build/transformers build/peft

``make transformers`` runs this behind ``transformers_folders.py``, whose models are the bases.
Imports nothing of ours. Each folder is called by its base and the kind of adapter, and gets
``logits.npy``, (n_tokens, vocab_size) float32, of the base's ``tokens.npy``.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

EVERY = "all-linear"  # what peft finds: every linear layer but the output matrix
# kind: what differs from rank 4 and alpha 6 of every linear layer
KINDS: dict[str, dict[str, Any]] = {
    "every": {},
    "patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"v_proj": 3}},
    "some": {"target_modules": ["q_proj", "v_proj", "down_proj"], "layers_to_transform": [1, 2]},
    "by-expression": {"target_modules": r".*\.(k|o|up)_proj", "exclude_modules": r".*\.1\..*"},
    "output": {"target_modules": ["lm_head", "o_proj"]},
    "attention": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
}
ADAPTERS: dict[str, tuple[str, ...]] = {  # base: kinds
    "llama": ("every", "patterns", "some", "by-expression", "output"),
    "qwen3": ("every", "patterns", "output"),
    "gemma3": ("every", "patterns", "some"),
    "phi3": ("every",),
    "gptneox": ("every",),
    "mistral3-whole": ("every",),
    "lfm2": ("every",),
    "qwen35": ("every",),
    "gemma4": ("attention",),
    "falcon-h1": ("attention",),
    "granitehybrid": ("every",),
    "mixtral": ("attention", "every"),
    "qwen3moe": ("attention",),
}


def write(folder: Path, base: Path, changes: dict[str, Any]) -> None:
    """Write one adapter with random weights, large enough to change the logits."""
    torch.manual_seed(2)
    kind: Any = AutoModelForImageTextToText if "whole" in base.name else AutoModelForCausalLM
    model = kind.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    settings = {"r": 4, "lora_alpha": 6, "target_modules": EVERY, "task_type": "CAUSAL_LM"}
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(**settings | changes)).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if ".lora_B." in name:  # peft begins with zeros
                weight += torch.randn_like(weight) * 0.2
        tokens = torch.from_numpy(np.load(base / "tokens.npy"))[None]
        logits = adapted(tokens).logits[0]
    adapted.save_pretrained(folder)
    np.save(folder / "logits.npy", logits.numpy())


def main() -> None:
    """Write every adapter, or those whose bases begin as the further arguments say."""
    bases, out = map(Path, sys.argv[1:3])
    for base, kinds in ADAPTERS.items():
        if sys.argv[3:] and not base.startswith(tuple(sys.argv[3:])):
            continue
        for kind in kinds:
            write(out / f"{base}.{kind}", bases / base, KINDS[kind])
    print(f"{sum(map(len, ADAPTERS.values()))} adapters by peft {peft.__version__}")


if __name__ == "__main__":
    main()
