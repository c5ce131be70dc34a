"""Gemma 4's vocabulary from tokenizer.json: BPE over characters, with U+2581 for a space.

``llamad.text.spaced_bpe`` reads what this file writes. Tokens that mark tools and thoughts are
written as text, as llama.cpp's converter does, so that an answer shows them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import PREFIX, TokenType, byte_of
from llamad_tools.checkpoints.added_tokens import AddedToken
from llamad_tools.checkpoints.bpe_vocabulary import bpe_model, read_ids, read_merges
from llamad_tools.checkpoints.pre_tokenizer_definition import steps_of
from llamad_tools.checkpoints.source import Metadata, unsupported

_SPACE = "▁"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_VISIBLE = frozenset(
    {
        *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"),
        *("<|tool_response>", "<tool_response|>", '<|"|>'),
    }
)


def spaced_bpe_metadata(
    path: Path, content: Mapping[str, Any], added: Mapping[int, AddedToken], n_tokens: int
) -> Metadata:
    """Return the tokenizer's metadata, with a name for each of the n_tokens rows of the embedding.

    Raises LlamadError: CHECKPOINT_CORRUPT for a vocabulary that does not fit,
    CHECKPOINT_UNSUPPORTED for one that is not like Gemma 4's.
    """
    model = bpe_model(path, content)
    _check_steps(path, content)
    if not model.get("byte_fallback"):
        raise unsupported(path, "model.byte_fallback is not true: it is no vocabulary of Gemma 4")
    if model.get("ignore_merges"):
        raise unsupported(path, "model.ignore_merges true is not supported with U+2581 for spaces")
    by_id: dict[int, tuple[str, TokenType]] = {
        token: (text, TokenType.NORMAL if byte_of(text) is None else TokenType.BYTE)
        for text, token in read_ids(path, model, added, n_tokens).items()
    }
    unknown = model.get("unk_token")
    for token, extra in added.items():
        kind = TokenType.USER_DEFINED if extra.text in _VISIBLE else extra.kind
        by_id[token] = (extra.text, TokenType.UNKNOWN if extra.text == unknown else kind)
    rows = [by_id.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(n_tokens)]
    return {
        PREFIX + "model": "gemma4",
        PREFIX + "tokens": [text for text, _ in rows],
        PREFIX + "token_type": [int(kind) for _, kind in rows],
        PREFIX + "merges": [f"{left} {right}" for left, right in read_merges(path, model)],
        PREFIX + "add_space_prefix": False,
        PREFIX + "add_bos_token": True,
    }


def _check_steps(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a treatment of spaces that is not Gemma 4's, whose cut at spaces finds none left."""
    normalizer, pre = content.get("normalizer"), content.get("pre_tokenizer")
    match pre:
        case None | {"type": "Split", "pattern": {"String": " "}}:
            if steps_of(normalizer, "normalizers") == [_REPLACE]:
                return
    raise unsupported(
        path,
        "it treats spaces as no supported vocabulary does: normalizer "
        f"{json.dumps(normalizer)}, pre_tokenizer {json.dumps(pre)}",
    )
