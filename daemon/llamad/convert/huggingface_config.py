"""config.json of a Hugging Face folder: which model it is, in GGUF's numbers.

What a family may say and the engine would ignore is refused by name: a file that loads and answers
wrongly is worse than none.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.convert.hyperparameters import Hyperparameters
from llamad.convert.source import SourceTensor, corrupt, read_json, unsupported, vector

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


class HuggingFaceConfig:
    """A checked config.json."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises LlamadError that names the key."""
        self.path = path
        self.values = read_json(path)
        self.model_type = self._model_type()
        self.rope_theta, self._scaling = self._rope()
        self.hyperparameters = self._hyperparameters()
        self.hyperparameters.check(path)

    def extra_tensors(self) -> list[SourceTensor]:
        """Return the tensors that follow from the numbers: rope_freqs.weight of Llama 3.1."""
        if self._scaling_kind() != "llama3":
            return []
        return [vector("rope_freqs.weight", self._llama3_factors())]

    def _model_type(self) -> str:
        model_type = self.values.get("model_type")
        if model_type not in ARCHITECTURES:
            raise unsupported(
                self.path,
                f"model_type {model_type!r} is not supported, only {', '.join(ARCHITECTURES)}",
            )
        for key, accepted in (
            ("hidden_act", ("silu",)),
            ("mlp_bias", (False,)),
            ("quantization_config", ()),
            ("use_sliding_window", (False,)),
        ):
            value = self.values.get(key)
            if value is not None and value not in accepted:
                raise unsupported(self.path, f"{key} {value!r} is not supported")
        return str(model_type)

    def _hyperparameters(self) -> Hyperparameters:
        dim, n_heads = self._count("hidden_size"), self._count("num_attention_heads")
        biased = bool(self.values.get("attention_bias"))
        return Hyperparameters(
            architecture=ARCHITECTURES[self.model_type],
            name=self._name(),
            n_layers=self._count("num_hidden_layers"),
            dim=dim,
            hidden_dim=self._count("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=self._count("num_key_value_heads", n_heads),
            head_dim=self._count("head_dim", dim // n_heads),
            vocab_size=self._count("vocab_size"),
            n_ctx_train=self._context(),
            norm_eps=self._number("rms_norm_eps"),
            rope_theta=self.rope_theta,
            rope_scaling=self._scaling_metadata(),
            tied_output=bool(self.values.get("tie_word_embeddings", False)),
            qkv_bias=biased or self.model_type == "qwen2",
            output_bias=biased and self.model_type != "qwen2",
            qk_norm=self.model_type == "qwen3",
        )

    def _name(self) -> str:
        given = str(self.values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
        return given or self.path.parent.resolve().name

    def _context(self) -> int:
        """Return the trained context; within Mistral 7B v0.1's sliding window nothing slides."""
        context = self._count("max_position_embeddings")
        if self.model_type == "mistral" and self.values.get("sliding_window") is not None:
            return min(context, self._count("sliding_window"))
        return context

    def _rope(self) -> tuple[float, Mapping[str, Any]]:
        """Return RoPE's base and its scaling; transformers 5 keeps both in rope_parameters."""
        scaling = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(scaling, dict):
            raise corrupt(self.path, f"rope_scaling is {scaling!r}, must be an object")
        theta = scaling.get("rope_theta", self.values.get("rope_theta", 10000.0))
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 1:
            raise corrupt(self.path, f"rope_theta is {theta!r}, must be a number above 1")
        return float(theta), scaling

    def _scaling_kind(self) -> str:
        return str(self._scaling.get("rope_type", self._scaling.get("type", "default")))

    def _scaling_metadata(self) -> dict[str, Any]:
        match self._scaling_kind():
            case "default" | "llama3":
                return {}  # Llama 3.1's is a tensor
            case "linear":
                return {"type": "linear", "factor": self._scaling_number("factor")}
            case other:
                raise unsupported(
                    self.path, f"rope_scaling {other!r} is not supported, only linear and llama3"
                )

    def _scaling_number(self, key: str) -> float:
        value = self._scaling.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise corrupt(self.path, f"rope_scaling.{key} is {value!r}, must be a positive number")
        return float(value)

    def _llama3_factors(self) -> list[float]:
        """Return what each rotation's wavelength is stretched by: (head_dim / 2).

        Short waves stay, those longer than the old context are stretched whole, those between in
        part (Llama 3.1, reference code, apply_scaling).
        """
        factor = self._scaling_number("factor")
        low, high = (self._scaling_number(f"{end}_freq_factor") for end in ("low", "high"))
        old_context = self._scaling_number("original_max_position_embeddings")
        if not high > low:
            raise corrupt(self.path, f"rope_scaling.high_freq_factor {high} must exceed {low}")
        head_dim = self.hyperparameters.head_dim
        result = []
        for i in range(head_dim // 2):
            turns = old_context / (2 * math.pi * self.rope_theta ** (2 * i / head_dim))
            smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
            result.append(1 / ((1 - smooth) / factor + smooth))
        return result

    def _count(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise corrupt(self.path, f"{key} is {value!r}, must be a positive integer")
        return value

    def _number(self, key: str) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise corrupt(self.path, f"{key} is {value!r}, must be a positive number")
        return float(value)
