"""Small vocabularies for the tests of ``llamad.text``, as GGUF metadata."""

from collections.abc import Sequence
from typing import Any

from llamad.text.bpe import _ALPHABET

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

BPE_MERGES = (
    "h e", "l l", "he ll", "hell o", "Ġ w", "o r", "l d", "Ġw or", "Ġwor ld", "Ġ Ġ", "a a", "aa aa",
    "1 2", "12 3", "i m", "e n", "en d", "< |",
)  # fmt: skip


def bpe_metadata(
    *,
    pre: str = "gpt-2",
    merges: Sequence[str] = BPE_MERGES,
    special: Sequence[tuple[str, int]] = (("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL)),
    without_bytes: bytes = b"",
    **keys: object,
) -> dict[str, object]:
    """Return a byte-level BPE vocabulary: bytes, merged tokens, then ``special`` (text, type)."""
    tokens = [c for byte, c in enumerate(_ALPHABET) if byte not in without_bytes]
    tokens += [merge.replace(" ", "") for merge in merges]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens + [text for text, _ in special],
        "tokenizer.ggml.token_type": [NORMAL] * len(tokens) + [kind for _, kind in special],
        "tokenizer.ggml.merges": list(merges),
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


SPM_WORDS = (
    "▁", "e", "t", "h", "l", "o", "w", "r", "d", "a", "he", "ll", "or", "ld", "▁w", "hell", "hello",
    "▁wor", "▁world", "▁h", "▁hello", "aa", "▁▁", "th", "the", "▁the",
)  # fmt: skip


def spm_metadata(
    *,
    words: Sequence[str] = SPM_WORDS,
    scores: Sequence[float] | None = None,
    special: Sequence[tuple[str, int]] = (),
    byte_tokens: bool = True,
    **keys: object,
) -> dict[str, object]:
    """Return a SentencePiece vocabulary: unknown, BOS, EOS, bytes, ``words``, then ``special``."""
    tokens = ["<unk>", "<s>", "</s>"]
    types = [UNKNOWN, CONTROL, CONTROL]
    if byte_tokens:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        types += [BYTE] * 256
    values = [0.0] * len(tokens)
    values += [-float(rank) for rank in range(len(words))] if scores is None else list(scores)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*tokens, *words, *(text for text, _ in special)],
        "tokenizer.ggml.token_type": [
            *types, *[NORMAL] * len(words), *(kind for _, kind in special)
        ],
        "tokenizer.ggml.scores": values + [0.0] * len(special),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}  # fmt: skip


WORD_PIECES = ("▁hello", "▁un", "aff", "able", "▁a", "b", "▁,", "▁!", "▁語", "▁cafe", "▁Cafe")


def wordpiece_metadata(**keys: object) -> dict[str, Any]:
    """Return a WordPiece vocabulary: padding, unknown, [CLS], [SEP], pieces."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORD_PIECES]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            CONTROL,
            NORMAL,
            NORMAL,
            NORMAL,
            *[NORMAL] * len(WORD_PIECES),
        ],
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def token_id(metadata: dict[str, object], token: str) -> int:
    """Return the id of a token by its spelling in the vocabulary."""
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return tokens.index(token)
