"""A WordPiece vocabulary from tokenizer.json (BERT's), as GGUF metadata.

Hugging Face marks a piece within a word ("##ing"), GGUF one that begins a word ("▁play"), as
llama.cpp's converter writes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.added_tokens import AddedToken
from llamad_tools.checkpoints.bpe_vocabulary import read_ids
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported

_INSIDE, _WORD_START = "##", "▁"
_ROLES = {  # ours: the token that has it
    "bos": "[CLS]",
    "eos": "[SEP]",
    "cls": "[CLS]",
    "seperator": "[SEP]",  # as GGUF spells it
    "unknown": "[UNK]",
    "padding": "[PAD]",
    "mask": "[MASK]",
}
_REQUIRED = ("cls", "seperator", "unknown")


def is_wordpiece(content: Mapping[str, Any]) -> bool:
    """Say whether a tokenizer.json has a WordPiece vocabulary."""
    model = content.get("model")
    return isinstance(model, dict) and model.get("type") == "WordPiece"


def wordpiece_metadata(
    path: Path, content: Mapping[str, Any], added: Mapping[int, AddedToken], n_tokens: int
) -> Metadata:
    """Return the tokenizer's metadata, with a name for each of the n_tokens rows of the embedding.

    Raises LlamadError: CHECKPOINT_CORRUPT for a vocabulary that does not fit or lacks [CLS], [SEP]
    or [UNK], CHECKPOINT_UNSUPPORTED for rules of words that are not BERT's.
    """
    model = content["model"]
    if model.get("continuing_subword_prefix", _INSIDE) != _INSIDE:
        prefix = model["continuing_subword_prefix"]
        raise unsupported(path, f"model.continuing_subword_prefix {prefix!r} is not supported")
    ids = read_ids(path, model, added, n_tokens)
    kinds = {extra.text: extra.kind for extra in added.values()}
    tokens = [f"[PAD{i}]" for i in range(n_tokens)]
    types = [int(TokenType.UNUSED)] * n_tokens
    for text, token in ids.items():
        kind = kinds.get(text, TokenType.NORMAL)
        tokens[token] = _piece(text) if kind is TokenType.NORMAL else text
        types[token] = int(kind)
    result: Metadata = {
        PREFIX + "model": "bert",
        PREFIX + "tokens": tokens,
        PREFIX + "token_type": types,
        PREFIX + "add_bos_token": True,
        PREFIX + "add_eos_token": True,
        **_normalizer(path, content.get("normalizer")),
    }
    for role, text in _ROLES.items():
        if text in ids:
            result[f"{PREFIX}{role}_token_id"] = ids[text]
        elif role in _REQUIRED:
            raise corrupt(path, f"has no token {text}")
    return result


def _piece(text: str) -> str:
    inside = len(text) > len(_INSIDE) and text.startswith(_INSIDE)
    return text.removeprefix(_INSIDE) if inside else _WORD_START + text


def _normalizer(path: Path, normalizer: Any) -> Metadata:
    """Return what becomes of case and accents; strip_accents null means where case goes, too."""
    match normalizer:
        case {"type": "BertNormalizer", "lowercase": bool(lowercase), **settings}:
            strips = settings.get("strip_accents")
            for key in ("clean_text", "handle_chinese_chars"):
                if settings.get(key, True) is not True:
                    raise unsupported(path, f"normalizer.{key} {settings[key]!r} is not supported")
            return {
                PREFIX + "normalizer.lowercase": lowercase,
                PREFIX + "normalizer.strip_accents": lowercase if strips is None else bool(strips),
            }
    raise unsupported(path, f"its normalizer is not supported: {normalizer!r}")
