"""A byte-level BPE vocabulary from tokenizer.json (Hugging Face tokenizers), as GGUF metadata.

Owns tokens, their types, merges and the name of the pre-tokenizer; which ids have a role is in
other files of the folder, and so in ``huggingface_tokenizer.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.added_tokens import AddedToken
from llamad_tools.checkpoints.pre_tokenizer_definition import pre_tokenizer_name, steps_of
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported


def bpe_metadata(
    path: Path, content: Mapping[str, Any], added: Mapping[int, AddedToken], n_tokens: int
) -> Metadata:
    """Return the tokenizer's metadata, with a name for each of the n_tokens rows of the embedding.

    added: tokens by id; those beyond the embedding are left out, for no model can know them. Raises
    LlamadError: CHECKPOINT_CORRUPT for a vocabulary that does not fit, CHECKPOINT_UNSUPPORTED for
    one that no tokenizer of ``llamad.text`` reads.
    """
    model = bpe_model(path, content)
    for step in steps_of(content.get("normalizer"), "normalizers"):
        if step != {"type": "NFC"}:  # which llama.cpp leaves out too
            raise unsupported(path, f"its normalizer is not supported: {step!r}")
    pre = pre_tokenizer_name(path, content.get("pre_tokenizer"), model.get("ignore_merges"))
    by_id = {
        token: (text, TokenType.NORMAL)
        for text, token in read_ids(path, model, added, n_tokens).items()
    }
    by_id |= {token: (extra.text, extra.kind) for token, extra in added.items()}
    rows = [by_id.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(n_tokens)]
    return {
        PREFIX + "model": "gpt2",
        PREFIX + "pre": pre,
        PREFIX + "tokens": [text for text, _ in rows],
        PREFIX + "token_type": [int(kind) for _, kind in rows],
        PREFIX + "merges": [f"{left} {right}" for left, right in read_merges(path, model)],
    }


def bpe_model(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model of a tokenizer.json.

    Raises LlamadError CHECKPOINT_UNSUPPORTED for one that is no BPE, or one that a setting changes
    in a way that GGUF cannot say.
    """
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise unsupported(path, f"its model is {kind!r}, only BPE is supported")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise unsupported(path, f"model.{key} {model[key]!r} is not supported")
    return model


def read_ids(
    path: Path, model: Mapping[str, Any], added: Mapping[int, AddedToken], n_tokens: int
) -> dict[str, int]:
    """Return the ids of the model's tokens; added ones beyond the embedding are left out."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict):
        raise corrupt(path, "has no model.vocab")
    result: dict[str, int] = {}
    for text, token in vocabulary.items():
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise corrupt(path, f"token {text!r} has id {token!r}")
        if token >= n_tokens:
            if token in added and added[token].text == text:
                continue
            raise corrupt(
                path, f"token {text!r} has id {token}, the model's embedding {n_tokens} tokens"
            )
        result[text] = token
    return result


def read_merges(path: Path, model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs that are merged, first the ones of highest rank.

    Files hold them as "left right" or, newer ones, as pairs.
    """
    merges = model.get("merges")
    result: list[tuple[str, str]] = []
    for merge in merges if isinstance(merges, list) else []:
        match merge:
            case [str(left), str(right)] if " " not in left + right:
                result.append((left, right))
            case str(pair) if pair.count(" ") == 1:
                left, _, right = pair.partition(" ")
                result.append((left, right))
            case _:
                raise corrupt(path, f"merge {merge!r} is no pair of tokens")
    if not result:
        raise corrupt(path, "has no model.merges")
    return result
