"""adapter_config.json of a PEFT folder: ranks and scales of an adapter's pairs.

Source: ``LoraConfig`` of huggingface/peft. What a file may say and the engine would ignore is
refused by name. ``fan_in_fan_out`` only tells how the base stores its weights: A and B lie alike.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamad.engine.bindings import MAX_RANK
from llamad_tools.checkpoints.json_file import positive_count, positive_float, read_json
from llamad_tools.checkpoints.source import MAX_QUOTED, corrupt, unsupported

_ABSENT: tuple[object, ...] = (None, False, [], {})
_ONLY: Mapping[str, tuple[object, ...]] = {  # a key: the values that change nothing
    "bias": (None, "none"),
    **dict.fromkeys(
        (
            "modules_to_save",
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "lora_bias",
            "layer_replication",
            "target_parameters",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "arrow_config",
            "megatron_config",
            "kasa_config",
            "monteclora_config",
        ),
        _ABSENT,
    ),
}
# By init_lora_weights; also pissa_niter_16
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MAX_PATTERN, _MAX_REPEATS = 256, 4  # of a regular expression, so that matching takes no time
_REPEATED_GROUP = re.compile(r"\)[*+?{]")

Check = Callable[[Path, str, object], float]


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """A checked file. alphas, ranks: of modules that a pattern matches; the first one counts."""

    path: Path
    base: str  # name or folder of the model that it was made for; empty: it does not say
    rank: int
    alpha: float
    by_root: bool  # a pair's scale is alpha / sqrt(rank), not alpha / rank
    ranks: Mapping[re.Pattern[str], float]
    alphas: Mapping[re.Pattern[str], float]

    def rank_of(self, module: str) -> int:
        """Return the rank of the pair of a module of the base: "model.layers.0.mlp.up_proj"."""
        return int(_first_match(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """Return what B A is multiplied with."""
        rank = self.rank_of(module)
        alpha = _first_match(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def read_lora_config(path: Path) -> LoraConfig:
    """Read and check the file; raises LlamadError that names it and the key."""
    values = read_json(path)
    if values.get("peft_type") != "LORA":
        raise unsupported(path, f"peft_type is {_quoted(values.get('peft_type'))}, only 'LORA' is")
    for key, allowed in _ONLY.items():
        if values.get(key) not in allowed:
            raise unsupported(path, f"{key} {_quoted(values[key])} is not supported")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise unsupported(
            path,
            f"init_lora_weights {_quoted(start)} has changed the base: save the adapter with "
            "PEFT's path_initial_model_for_weight_conversion",
        )
    by_root = values.get("use_rslora") or False
    if not isinstance(by_root, bool):
        raise corrupt(path, f"use_rslora is {_quoted(by_root)}, must be true or false")
    base = values.get("base_model_name_or_path") or ""
    if not isinstance(base, str):
        raise corrupt(path, f"base_model_name_or_path is {_quoted(base)}, must be a text")
    return LoraConfig(
        path=path,
        base=base,
        rank=_rank(path, "r", values.get("r")),
        alpha=positive_float(path, "lora_alpha", values.get("lora_alpha")),
        by_root=by_root,
        ranks=_patterns(path, "rank_pattern", values, _rank),
        alphas=_patterns(path, "alpha_pattern", values, positive_float),
    )


def _rank(path: Path, key: str, value: object) -> int:
    rank = positive_count(path, key, value)
    if rank > MAX_RANK:
        raise unsupported(path, f"{key} is {rank}, at most {MAX_RANK} is supported")
    return rank


def _patterns(
    path: Path, key: str, values: Mapping[str, Any], check: Check
) -> dict[re.Pattern[str], float]:
    """Return what a name, its end behind a dot, or a regular expression of either, stands for.

    As PEFT's ``get_pattern_key`` matches them.
    """
    found = values.get(key) or {}
    if not isinstance(found, dict):
        raise corrupt(path, f"{key} is {_quoted(found)}, must be an object")
    result = {}
    for text, value in found.items():
        if (
            len(text) > _MAX_PATTERN
            or sum(map(text.count, "*+?{")) > _MAX_REPEATS
            or _REPEATED_GROUP.search(text)
        ):
            raise unsupported(path, f"{key}: {_quoted(text)} is no simple regular expression")
        try:
            pattern = re.compile(rf"(?:.*\.)?(?:{text})")
        except (re.error, OverflowError, RecursionError) as error:
            message = f"{key}: {_quoted(text)} is no regular expression: {error}"
            raise corrupt(path, message) from None
        result[pattern] = check(path, f"{key}.{text[:MAX_QUOTED]}", value)
    return result


def _first_match(table: Mapping[re.Pattern[str], float], module: str, default: float) -> float:
    return next((value for key, value in table.items() if key.fullmatch(module)), default)


def _quoted(value: object) -> str:
    return ascii(value)[:MAX_QUOTED]
