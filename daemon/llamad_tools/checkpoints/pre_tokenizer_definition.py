"""The pre-tokenizer of a tokenizer.json, recognized by its definition.

A cut that is nearly right gives ids that are plausible and wrong, so a definition must be equal to
one that ``llamad.text`` implements. Definitions: the tokenizer.json that each family publishes.
"""

import json
from pathlib import Path
from typing import Any

from llamad.text.pre_tokenizer import PRE_TOKENIZERS
from llamad_tools.checkpoints.source import unsupported

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> tuple[Any, ...]:
    return ("Split", "Regex", pattern, "Isolated", False)


_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

_BYTES_ONLY = ("ByteLevel", False, False)  # add_prefix_space, use_regex
_GPT2_WORDS = ("ByteLevel", False, True)

# steps of the definition: name of tokenizer.ggml.pre
_KNOWN: dict[tuple[Any, ...], str] = {
    (_GPT2_WORDS,): "gpt-2",
    (_split(_LLAMA3), _BYTES_ONLY): "llama-bpe",
    (_split(_QWEN2), _BYTES_ONLY): "qwen2",
    (_split(_QWEN35), _BYTES_ONLY): "qwen35",
    (_split(_TEKKEN), _BYTES_ONLY): "tekken",
    (_split(_GPT4O), _BYTES_ONLY): "gpt-4o",
    (*map(_split, _DEEPSEEK_V3), _BYTES_ONLY): "deepseek-v3",  # and Hunyuan
    (("Digits", True), _GPT2_WORDS): "smollm",
}
_MERGED_ONLY = {"llama-bpe": "dbrx"}  # the same cut, where a word that is a token is merged too


def pre_tokenizer_name(path: Path, definition: Any, ignore_merges: Any = None) -> str:
    """Return the name for ``tokenizer.ggml.pre``.

    ignore_merges: of the model, whether a word that is a token is taken whole; older files do not
    say, and mean what their family does. Raises LlamadError CHECKPOINT_UNSUPPORTED that prints a
    definition which is not known.
    """
    steps = tuple(_step(item) for item in steps_of(definition, "pretokenizers"))
    name = _KNOWN.get(steps)
    if name is None:
        raise unsupported(
            path,
            "its pre-tokenizer is not one of "
            f"{', '.join(sorted(_KNOWN.values()))}: {json.dumps(definition)}",
        )
    whole = PRE_TOKENIZERS[name].whole_words_first
    if ignore_merges in (None, whole):
        return name
    if name in _MERGED_ONLY and ignore_merges is False:
        return _MERGED_ONLY[name]
    raise unsupported(
        path, f"model.ignore_merges {ignore_merges!r} is not supported with the cut of {name}"
    )


def steps_of(definition: Any, key: str) -> list[Any]:
    """Return the steps of a definition, none of them a sequence; key: of a sequence's steps."""
    if definition is None:
        return []
    if isinstance(definition, dict) and definition.get("type") == "Sequence":
        items = definition.get(key)
        if isinstance(items, list):
            return [step for item in items for step in steps_of(item, key)]
    return [definition]


def _step(item: Any) -> tuple[Any, ...]:
    """Return what of one step changes the cut; trim_offsets changes positions only."""
    match item:
        case {"type": "ByteLevel", "add_prefix_space": bool(prefix)}:
            return "ByteLevel", prefix, bool(item.get("use_regex", True))
        case {"type": "Digits", "individual_digits": bool(single)}:
            return "Digits", single
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": str(behavior)}:
            return "Split", "Regex", pattern, behavior, bool(item.get("invert", False))
    return ("unknown", json.dumps(item, sort_keys=True))
