"""A byte-level BPE vocabulary from tokenizer.json (Hugging Face tokenizers), as GGUF metadata.

Owns tokens, their types, merges and the name of the pre-tokenizer; which ids have a role is in
other files of the folder, and so in ``huggingface_tokenizer.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.convert.pre_tokenizer_definition import pre_tokenizer_name
from llamad.convert.source import Metadata, corrupt, unsupported
from llamad.text.vocabulary import PREFIX, TokenType


def bpe_metadata(path: Path, content: Mapping[str, Any], n_tokens: int) -> Metadata:
    """Return the tokenizer's metadata, with a name for each of the n_tokens rows of the embedding.

    Raises LlamadError: CHECKPOINT_CORRUPT for a vocabulary that does not fit,
    CHECKPOINT_UNSUPPORTED for one that no tokenizer of ``llamad.text`` reads.
    """
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise unsupported(path, f"its model is {kind!r}, only BPE is supported")
    if model.get("byte_fallback"):
        raise unsupported(path, "it is a SentencePiece vocabulary: tokenizer.model is needed too")
    normalizer = content.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise unsupported(path, f"its normalizer is not supported: {normalizer!r}")
    tokens, types = _tokens(path, model, content.get("added_tokens") or [], n_tokens)
    return {
        PREFIX + "model": "gpt2",
        PREFIX + "pre": pre_tokenizer_name(path, content.get("pre_tokenizer")),
        PREFIX + "tokens": tokens,
        PREFIX + "token_type": types,
        PREFIX + "merges": _merges(path, model.get("merges")),
    }


def _tokens(
    path: Path, model: Mapping[str, Any], added: Any, n_tokens: int
) -> tuple[list[str], list[int]]:
    """Return (n_tokens) texts and types; rows without a token are named and unused."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise corrupt(path, "has no model.vocab")
    by_id: dict[int, tuple[str, TokenType]] = {}
    for text, token in vocabulary.items():
        by_id[_checked_id(path, text, token, n_tokens)] = (text, TokenType.NORMAL)
    for entry in added:
        match entry:
            case {"id": token, "content": str(text)}:
                kind = TokenType.CONTROL if entry.get("special") else TokenType.USER_DEFINED
                by_id[_checked_id(path, text, token, n_tokens)] = (text, kind)
            case _:
                raise corrupt(path, f"added token {entry!r} has no id and content")
    rows = [by_id.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(n_tokens)]
    return [text for text, _ in rows], [int(kind) for _, kind in rows]


def _checked_id(path: Path, text: str, token: Any, n_tokens: int) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < n_tokens:
        raise corrupt(
            path, f"token {text!r} has id {token!r}, the model's embedding {n_tokens} tokens"
        )
    return token


def _merges(path: Path, merges: Any) -> list[str]:
    """Return merges as "left right"; newer files keep them as pairs."""
    result = []
    for merge in merges if isinstance(merges, list) else []:
        match merge:
            case [str(left), str(right)] if " " not in left + right:
                result.append(f"{left} {right}")
            case str(pair) if pair.count(" ") == 1:
                result.append(pair)
            case _:
                raise corrupt(path, f"merge {merge!r} is no pair of tokens")
    if not result:
        raise corrupt(path, "has no model.merges")
    return result
