"""Write the tokenizer.json that Hugging Face derives from a sentencepiece BPE model.

Owns its own derivation of ranked merges from scores: every way to cut a piece in two pieces, best
piece first (transformers, convert_slow_tokenizer.py, generate_merges).
"""

from typing import Any

from sentencepiece import SentencePieceProcessor

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}


def metaspace(**settings: object) -> dict[str, object]:
    """Return the step that newer tokenizers spell spaces with."""
    return {"type": "Metaspace", "replacement": "▁", "split": False, **settings}


# normalizer and pre_tokenizer, and whether they put a space before a text
SPACES: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None, bool]] = {
    "Llama 2": ({"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, None, True),
    "without prefix": ({"type": "Sequence", "normalizers": [REPLACE]}, None, False),
    "one step": (REPLACE, None, False),
    "Mistral": (None, metaspace(prepend_scheme="first"), True),
    "always": (None, metaspace(prepend_scheme="always"), True),
    "never": (None, metaspace(prepend_scheme="never"), False),
    "before schemes": (None, metaspace(add_prefix_space=True), True),
}


def fast_tokenizer(model: bytes, spaces: str = "Llama 2") -> dict[str, Any]:
    """Return tokenizer.json of a tokenizer.model."""
    library = SentencePieceProcessor(model_proto=model)
    ids = {library.IdToPiece(i): i for i in range(library.vocab_size())}
    special = [i for i in ids.values() if library.IsControl(i) or library.IsUnknown(i)]
    normalizer, pre_tokenizer, _ = SPACES[spaces]
    merges = []
    for piece in sorted(ids, key=lambda piece: -library.GetScore(ids[piece])):
        halves = [(piece[:i], piece[i:]) for i in range(len(piece) - 1, 0, -1)]
        merges += [f"{left} {right}" for left, right in halves if left in ids and right in ids]
    return {
        "added_tokens": [
            {"id": i, "content": library.IdToPiece(i), "special": True, "normalized": False}
            for i in special
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": merges,
        },
    }
