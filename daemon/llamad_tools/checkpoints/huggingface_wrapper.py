"""Folders of models that also see or hear: the text model within, its numbers and its tensors.

Owns where transformers puts them: the config.json of the whole holds that of the text as
``text_config`` (older folders of Qwen2-VL hold it beside), and the names of tensors begin with the
part that they belong to. Only the text is converted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.source import corrupt

_TEXT_TYPES = {  # of a whole model: of its text, where text_config does not say
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text",
    "lfm2_vl": "lfm2",
    "mistral3": "mistral",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_5": "qwen3_5_text",
}
_SAME = {  # another name of the same text model
    "gemma4_unified_text": "gemma4_text",
    "qwen2_5_vl_text": "qwen2_vl_text",
}
_PREFIXES = (  # theirs: that of a text model alone
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("bert.", ""),  # within a BertForMaskedLM and the like
)
_OTHER_PARTS = (
    "model.visual.",
    "visual.",
    "model.vision_",
    "vision_",
    "model.multi_modal_projector.",
    "multi_modal_projector.",
    "model.audio_tower.",
    "model.embed_vision.",
    "model.embed_audio.",
)
_COUNTERS = ("embeddings.position_ids", "bert.embeddings.position_ids")  # 0, 1, 2 and so on
_DRAFTS = ("mtp.",)  # layers that guess further tokens (Qwen3.5)


def text_of(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the text model; path: of config.json.

    Raises LlamadError CHECKPOINT_CORRUPT for a text_config that is no object.
    """
    outer = values.get("model_type")
    text = values.get("text_config", {} if outer not in _TEXT_TYPES else None)
    if text is None and "vision_config" in values:
        text = {}
    if not isinstance(text, dict):
        if text is None:
            raise corrupt(path, f"model_type {outer!r} needs a text_config")
        raise corrupt(path, "text_config is no object")
    result = {key: value for key, value in values.items() if key != "text_config"}
    result |= text
    if outer in _TEXT_TYPES:
        result["model_type"] = text.get("model_type") or _TEXT_TYPES[str(outer)]
        result["tie_word_embeddings"] = None  # both may say it, differently: the tensors decide
    if result.get("model_type") in _SAME:
        result["model_type"] = _SAME[result["model_type"]]
    return result


def text_name(name: str) -> str | None:
    """Return the name that a tensor has in a text model alone; None: it is of another part."""
    if name.startswith((*_OTHER_PARTS, *_DRAFTS)) or name in _COUNTERS:
        return None
    for theirs, alone in _PREFIXES:
        if name.startswith(theirs):
            return alone + name.removeprefix(theirs)
    return name
