"""A SentencePiece vocabulary of which only tokenizer.json is left (Llama 2, Mistral, TinyLlama).

Hugging Face turns the scores of a tokenizer.model into ranked merges of pairs; this file turns them
back. sentencepiece merges any two neighbours whose text is a piece, best score first, so a piece
gets the rank of its first merge as its score: that is how sentencepiece's BPE trainer numbers them.
Merges that no such scores stand for are refused.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import TokenType, byte_of
from llamad_tools.checkpoints.added_tokens import AddedToken
from llamad_tools.checkpoints.bpe_vocabulary import bpe_model, read_ids, read_merges
from llamad_tools.checkpoints.pre_tokenizer_definition import steps_of
from llamad_tools.checkpoints.sentencepiece_file import SentencePieceVocabulary
from llamad_tools.checkpoints.source import corrupt, unsupported

_MAX_PIECE = 1024  # characters; sentencepiece's trainer stops at 16
_SPACE = "▁"
_PREPEND = {"type": "Prepend", "prepend": _SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}

Ranks = Mapping[tuple[str, str], int]


def is_sentencepiece_json(content: Mapping[str, Any]) -> bool:
    """Say whether a tokenizer.json spells spaces as sentencepiece does, not as bytes."""
    steps = [content.get("normalizer"), content.get("pre_tokenizer")]
    return _SPACE in json.dumps(steps, ensure_ascii=False)


def read_sentencepiece_json(
    path: Path, content: Mapping[str, Any], added: Mapping[int, AddedToken], n_tokens: int
) -> SentencePieceVocabulary:
    """Return the pieces of a tokenizer.json with scores and types; added tokens may be missing.

    n_tokens: rows of the embedding. Raises LlamadError: CHECKPOINT_CORRUPT for a vocabulary that
    contradicts itself, CHECKPOINT_UNSUPPORTED for one that sentencepiece's rules cannot stand for.
    """
    model = bpe_model(path, content)
    ids = read_ids(path, model, added, n_tokens)
    cuts_at_spaces, adds_prefix = _spaces(path, content)
    kinds = {text: _kind(text, model) for text in ids}
    for token, extra in added.items():
        if ids.get(extra.text) == token and kinds[extra.text] == TokenType.NORMAL:
            kinds[extra.text] = extra.kind
    merges = read_merges(path, model)
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    order = list(dict.fromkeys(left + right for left, right in merges))
    texts = {extra.text for extra in added.values()}
    for piece in order:
        if piece not in ids and piece not in texts:
            raise corrupt(path, f"merges make {piece[:80]!r}, which is no token")
        if len(piece) > _MAX_PIECE:
            raise unsupported(path, f"has a piece of {len(piece)} characters, at most {_MAX_PIECE}")
    merged = [piece for piece in order if kinds.get(piece) == TokenType.NORMAL]
    _check_merges(path, merged, ranks, kinds)
    if cuts_at_spaces:
        _check_spaces(path, merged)
    scores = _scores(merged, ids, kinds)
    for piece in ids.keys() - scores.keys():
        if kinds[piece] == TokenType.NORMAL:
            kinds[piece] = TokenType.UNUSED  # several characters, but nothing merges them
    vocabulary = SentencePieceVocabulary([], [], [], adds_space_prefix=adds_prefix)
    vocabulary.pad(max(ids.values(), default=-1) + 1)
    for piece, token in ids.items():
        vocabulary.pieces[token] = piece
        vocabulary.scores[token] = scores.get(piece, 0.0)
        vocabulary.types[token] = kinds[piece]
    unknown = model.get("unk_token")
    vocabulary.unk_id = ids.get(unknown, -1) if isinstance(unknown, str) else -1
    return vocabulary


def _kind(text: str, model: Mapping[str, Any]) -> TokenType:
    if text == model.get("unk_token"):
        return TokenType.UNKNOWN
    if model.get("byte_fallback") and byte_of(text) is not None:
        return TokenType.BYTE
    return TokenType.NORMAL


def _scores(
    merged: Sequence[str], ids: Mapping[str, int], kinds: Mapping[str, TokenType]
) -> dict[str, float]:
    """Return scores as sentencepiece's trainer gives them: merged pieces, then characters."""
    letters = sorted(
        (text for text in ids if len(text) == 1 and kinds[text] == TokenType.NORMAL),
        key=ids.__getitem__,
    )
    return {piece: float(-rank) for rank, piece in enumerate([*merged, *letters])}


def _spaces(path: Path, content: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether text is cut before every space, and whether one is put before a text."""
    normalizer, pre = content.get("normalizer"), content.get("pre_tokenizer")
    steps = steps_of(normalizer, "normalizers")
    match pre:
        case None if steps == [_PREPEND, _REPLACE]:
            return False, True
        case None if steps == [_REPLACE]:
            return False, False
        case {"type": "Metaspace", "replacement": "▁", **settings} if not steps:
            older = "always" if settings.get("add_prefix_space", True) else "never"
            scheme = settings.get("prepend_scheme", older)
            if scheme in ("always", "first", "never"):
                return settings.get("split", True) is not False, scheme != "never"
    raise unsupported(
        path,
        "it treats spaces as no supported vocabulary does: normalizer "
        f"{json.dumps(normalizer)}, pre_tokenizer {json.dumps(pre)}",
    )


def _check_merges(
    path: Path, merged: Sequence[str], ranks: Ranks, kinds: Mapping[str, TokenType]
) -> None:
    """Refuse merges under which two neighbours stay apart that make a piece.

    Two such neighbours are what the ranked merges leave of that piece's own text, for what lies
    beyond it has no part in merging it. A vocabulary of sentencepiece lists every pair.
    """
    for piece in merged:
        pairs = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        unlisted = {
            pair
            for pair in pairs
            if pair not in ranks and all(kinds.get(half) == TokenType.NORMAL for half in pair)
        }
        if unlisted and tuple(_merge(piece, ranks)) in unlisted:
            raise unsupported(
                path, f"its merges leave {piece!r} in two parts, those of sentencepiece do not"
            )


def _merge(text: str, ranks: Ranks) -> list[str]:
    """Return the text's characters after all ranked merges, best rank first, then leftmost."""
    symbols = list(text)
    while True:
        pairs = enumerate(pairwise(symbols))
        found = [(ranks[pair], i) for i, pair in pairs if pair in ranks]
        if not found:
            return symbols
        _, i = min(found)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def _check_spaces(path: Path, merged: Sequence[str]) -> None:
    """Refuse pieces that reach over a space where text is cut before each."""
    for piece in merged:
        if _SPACE in piece[1:]:
            raise unsupported(path, f"it cuts before every space, but {piece!r} reaches over one")
