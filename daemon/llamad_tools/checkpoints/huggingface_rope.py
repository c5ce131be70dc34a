"""Rotary position embedding in a config.json of Hugging Face: base and scaling, in GGUF's words.

Owns rope_theta, rope_scaling and rope_parameters, which transformers 5 keeps both in. A scaling
that the engine does not have is refused by name.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.huggingface_family import Family
from llamad_tools.checkpoints.json_file import positive_float
from llamad_tools.checkpoints.llama3_rope import Llama3Scaling
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported

_THETA_KEYS = ("rope_theta", "rotary_emb_base")
_PARTIAL_KEYS = ("partial_rotary_factor", "rotary_pct", "rope_pct")
_STANDS_STILL = 1e30  # a wavelength that no context reaches
_USUAL_BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}  # of the paper, and where a file names none


class HuggingFaceRope:
    """The checked values; theta: the base of the frequencies."""

    def __init__(
        self, path: Path, config: Mapping[str, Any], n_positions: int, family: Family
    ) -> None:
        """Read the keys of config.json; raises LlamadError that names one.

        n_positions: max_position_embeddings; family: its base where the file has none.
        """
        self.path = path
        scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(scaling, dict):
            raise corrupt(path, f"rope_scaling is {scaling!r}, must be an object")
        if isinstance(scaling.get("full_attention"), dict):  # by kind of layer: Gemma 3
            scaling = scaling["full_attention"]
        self._scaling = scaling
        self._n_positions = n_positions
        self._divides_magnitude = family.divides_magnitude
        self._truncates = family.truncates_yarn
        self._original = config.get("original_max_position_embeddings")
        if self._original is not None:
            positive_float(path, "original_max_position_embeddings", self._original)
        found = _first(scaling.get("rope_theta"), *map(config.get, _THETA_KEYS), family.theta)
        self.theta = positive_float(path, "rope_theta", found)
        if not self.theta > 1:
            raise corrupt(path, f"rope_theta is {found!r}, must be a number above 1")
        self._partial = _first(
            scaling.get("partial_rotary_factor"), *map(config.get, _PARTIAL_KEYS), family.partial
        )
        if self._kind() == "dynamic" and scaling.get("alpha") is not None:
            self._stretch_base(config)

    def _stretch_base(self, config: Mapping[str, Any]) -> None:
        """Apply Hunyuan's NTK scaling by a fixed number, which only changes the base."""
        default = config["hidden_size"] // config["num_attention_heads"]
        dim = config.get("head_dim") or default
        if not isinstance(dim, int) or dim <= 2:
            raise corrupt(self.path, f"head_dim is {dim!r}, must be above 2")
        alpha = self._number("alpha")
        self.theta = positive_float(
            self.path, "rope_scaling.alpha", self.theta * alpha ** (dim / (dim - 2))
        )

    def rotated(self, head_dim: int, *, partial: bool) -> int:
        """Return how many elements of a head are rotated; partial: the family may leave some."""
        if self._partial in (None, 1) or self._kind() == "proportional":
            return head_dim
        factor = positive_float(self.path, "partial_rotary_factor", self._partial)
        if not partial or factor > 1:
            raise unsupported(self.path, f"partial_rotary_factor {self._partial!r}, only 1 is")
        return int(head_dim * factor)

    def metadata(self) -> Metadata:
        """Return the keys below "ARCHITECTURE.rope.scaling."."""
        match self._kind():
            case "default" | "mrope":
                return {}  # M-RoPE turns a text as RoPE does
            case "llama3" | "proportional":
                return {}  # a tensor says it
            case "dynamic":
                return {}  # scales nothing within max_position_embeddings
            case "linear":
                return {"type": "linear", "factor": self._number("factor")}
            case "yarn":
                return self._yarn()
            case "longrope" | "su":
                return self._longrope()
            case other:
                raise unsupported(
                    self.path,
                    f"rope_scaling {other!r} is not supported, only linear, dynamic, yarn, "
                    "longrope and llama3",
                )

    def factors(self, head_dim: int) -> list[float] | None:
        """Return factors of the wavelengths, (head_dim / 2), of Llama 3.1 and Gemma 4."""
        if self._kind() == "proportional":  # of a head that is turned in part, the rest stands
            turned = (
                int(
                    head_dim
                    * positive_float(self.path, "partial_rotary_factor", self._partial or 1)
                )
                // 2
            )
            return [1.0] * turned + [_STANDS_STILL] * (head_dim // 2 - turned)
        if self._kind() != "llama3":
            return None
        scaling = Llama3Scaling(
            self._number("factor"),
            self._number("low_freq_factor"),
            self._number("high_freq_factor"),
            self._number("original_max_position_embeddings"),
        )
        if not scaling.high_freq_factor > scaling.low_freq_factor:
            raise corrupt(
                self.path,
                f"rope_scaling.high_freq_factor {scaling.high_freq_factor} must exceed "
                f"{scaling.low_freq_factor}",
            )
        return scaling.factors(self.theta, head_dim)

    def long_factors(self, n_rotated: int) -> dict[str, list[float]]:
        """Return LongRoPE's factors of the wavelengths, each (n_rotated / 2), by tensor name."""
        if self._kind() not in ("longrope", "su"):
            return {}
        result = {}
        for length in ("long", "short"):
            key, factors = f"{length}_factor", self._scaling.get(f"{length}_factor")
            if not isinstance(factors, list) or len(factors) != n_rotated // 2:
                raise corrupt(self.path, f"rope_scaling.{key} is not a list of {n_rotated // 2}")
            values = [positive_float(self.path, f"rope_scaling.{key}", f) for f in factors]
            result[f"rope_factors_{length}.weight"] = values
        return result

    def _longrope(self) -> Metadata:
        """Return LongRoPE's keys (arXiv:2402.13753, and Phi-3's factor of the attention)."""
        original = self._original or self._number("original_max_position_embeddings")
        factor = self._n_positions / original
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return {
            "type": "longrope",
            "original_context_length": round(original),
            "attn_factor": self._number("attention_factor", usual),
        }

    def _yarn(self) -> Metadata:
        """Return YaRN's keys (arXiv:2309.00071), those that have the paper's values left out."""
        truncate = self._scaling.get("truncate")
        if (True if truncate is None else truncate) is not self._truncates:
            only = f"only {self._truncates!r} is"
            raise unsupported(self.path, f"rope_scaling.truncate {truncate!r}, {only}")
        factor = self._number("factor")
        log_multiplier = self._log_multiplier()
        if factor < 1:
            raise corrupt(self.path, f"rope_scaling.factor is {factor}, must be at least 1")
        original = self._number("original_max_position_embeddings", self._n_positions)
        result: Metadata = {
            "type": "yarn",
            "factor": factor,
            "original_context_length": round(original),
        }
        for key, usual in _USUAL_BETAS.items():
            value = self._number(key, usual)
            if value != usual:
                result["yarn_" + key] = value
        if log_multiplier is not None:
            result["yarn_log_multiplier"] = log_multiplier
        elif (attention := self._yarn_attention(factor)) != 1:
            result["attn_factor"] = attention
        return result

    def _log_multiplier(self) -> float | None:
        """Return what Ministral 3 divides the factor of the attention by; None: another family."""
        if not self._divides_magnitude or not self._scaling.get("mscale_all_dim"):
            return None
        if self._scaling.get("attention_factor") is not None or self._scaling.get("mscale") != 1:
            raise unsupported(self.path, "rope_parameters.mscale: only 1 without attention_factor")
        return self._number("mscale_all_dim")

    def _yarn_attention(self, factor: float) -> float:
        """Return what multiplies the paper's factor of the attention, 0.1 ln(factor) + 1."""

        def magnitude(scale: float) -> float:
            return 0.1 * scale * math.log(factor) + 1

        if self._scaling.get("attention_factor") is not None:
            return self._number("attention_factor") / magnitude(1)
        if self._scaling.get("mscale") and self._scaling.get("mscale_all_dim"):
            above, below = (magnitude(self._number(key)) for key in ("mscale", "mscale_all_dim"))
            return above / below / magnitude(1)
        return 1.0

    def _kind(self) -> str:
        return str(self._scaling.get("rope_type") or self._scaling.get("type") or "default")

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._scaling.get(key)
        return positive_float(self.path, f"rope_scaling.{key}", default if value is None else value)


def _first(*values: object) -> Any:
    """Return the first that is there."""
    return next((value for value in values if value is not None), None)
