"""Write PEFT folders of seeded adapters for tiny models; merge them into a folder's weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.huggingface_folder import Weights, safetensors, write_json

# Matrices that adapters are made for; those of experts, routers and embeddings are not
_MATRIX = re.compile(
    r".*(_proj|_proj_qkv|_proj_[zab]|query_key_value|dense|dense_\w+|fc[12]|c_fc|w[123qkvo]+"
    r"|attention\.wo|_linear|lm_head|embed_out|query|key|value|^output)\.weight"
)
_NOT = re.compile(r"experts|per_layer|visual|embed_tokens|shared_expert|router")


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """A pair for each matrix; ranks, alphas: of modules that end so, in place of the usual."""

    rank: int = 4
    alpha: float = 6.0
    by_root: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's pair."""
        return next((n for end, n in self.ranks.items() if module.endswith(end)), self.rank)

    def scale_of(self, module: str) -> float:
        """Return what B A is multiplied with."""
        rank = self.rank_of(module)
        alpha = next((a for end, a in self.alphas.items() if module.endswith(end)), self.alpha)
        return alpha / rank**0.5 if self.by_root else alpha / rank

    def pairs(self, weights: Weights) -> dict[str, tuple[Any, Any]]:
        """Return A and B of each matrix of a folder, by the module's name."""
        rng = np.random.default_rng(self.seed)
        result = {}
        for name in targets(weights):
            n_rows, n_cols = weights[name].shape
            module = name.removesuffix(".weight")
            rank = self.rank_of(module)
            size = 0.5 / rank / abs(self.scale_of(module)) * np.abs(weights[name]).mean()
            a = rng.normal(scale=1.0, size=(rank, n_cols)).astype(np.float32)
            b = rng.normal(scale=size, size=(n_rows, rank)).astype(np.float32)
            result[module] = a, b
        return result

    def tensors(self, weights: Weights) -> dict[str, Any]:
        """Return the tensors of adapter_model.safetensors."""
        result = {}
        for module, (a, b) in self.pairs(weights).items():
            result[f"base_model.model.{module}.lora_A.weight"] = a
            result[f"base_model.model.{module}.lora_B.weight"] = b
        return result

    def merged(self, weights: Weights) -> Weights:
        """Return the weights of a folder with scale B A added to each matrix."""
        result = dict(weights)
        for module, (a, b) in self.pairs(weights).items():
            name = f"{module}.weight"
            delta = self.scale_of(module) * (b.astype(np.float64) @ a.astype(np.float64))
            result[name] = (weights[name] + delta).astype(np.float32)
        return result

    def config(self, **changes: object) -> dict[str, object]:
        """Return adapter_config.json."""
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": "tiny/base",
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "lora_alpha": self.alpha,
            "modules_to_save": None,
            "r": self.rank,
            "use_dora": False,
            "use_rslora": self.by_root,
            "rank_pattern": dict(self.ranks),
            "alpha_pattern": dict(self.alphas),
            **changes,
        }


def targets(weights: Iterable[str]) -> list[str]:
    """Return the names of the matrices that have a pair."""
    return [n for n in weights if _MATRIX.fullmatch(n) and not _NOT.search(n)]


def write_peft_folder(
    folder: Path, tensors: Mapping[str, Any], config: Mapping[str, object], type_name: str = "F32"
) -> Path:
    """Write a folder as PEFT's save_pretrained does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors, type_name))
    write_json(folder / "adapter_config.json", config)
    return folder
