"""What the tables of large vocabularies take in Python's memory, a token.

Bytes that ``tracemalloc`` counts, so they are the same on every machine. The library of
SentencePiece, whose own 170 bytes a token it does not see, is in ``memory/plan.py``'s figure.
"""

import tracemalloc
from array import array

import pytest

from llamad.gguf.value import StringArray, ValueType, raw_array
from llamad.text import Tokenizer, tokenizer_from_metadata
from llamad.text.bpe import _ALPHABET
from llamad.text.token_index import TokenIndex

N_TOKENS = 20_000


def in_file(metadata: dict[str, object]) -> dict[str, object]:
    """Return metadata with its texts as they come out of a file."""
    return {
        key: raw_array(key, value, ValueType.STRING).decode()
        if isinstance(value, list) and isinstance(value[0], str)
        else value
        for key, value in metadata.items()
    }


def sentencepiece_metadata() -> dict[str, object]:
    tokens = ["<unk>", "<s>", "</s>", *(f"▁word{i}" for i in range(N_TOKENS - 3))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (N_TOKENS - 3),
        "tokenizer.ggml.scores": [-float(i) for i in range(N_TOKENS)],
    }


def bpe_metadata(pre: str) -> dict[str, object]:
    tokens = list(_ALPHABET)
    merges = []
    for left in tokens[:]:
        for right in _ALPHABET:
            if len(tokens) < N_TOKENS:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * N_TOKENS,
        "tokenizer.ggml.merges": merges,
    }


def traced(metadata: dict[str, object]) -> tuple[Tokenizer, float, float]:
    """Return the tokenizer, and what a token takes beside the file's text: kept, and at most."""
    tokenizer_from_metadata(metadata)  # imports and caches are there
    tracemalloc.start()
    tokenizer = tokenizer_from_metadata(metadata)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return tokenizer, kept / N_TOKENS, peak / N_TOKENS


# A list of str was 65 to 90 bytes a token, and a set of them another 60.
@pytest.mark.parametrize(
    ("metadata", "most_kept", "most_at_once"),
    [
        (sentencepiece_metadata(), 2, 35),
        (bpe_metadata("gpt-2"), 110, 260),  # with its merge: pairs and ranks for the fast path
        (bpe_metadata("llama-bpe"), 125, 320),
    ],
    ids=["sentencepiece", "bpe", "bpe with whole words"],
)
def test_a_token_takes_few_bytes(
    metadata: dict[str, object], most_kept: float, most_at_once: float
) -> None:
    tokenizer, kept, peak = traced(in_file(metadata))
    assert isinstance(tokenizer.vocabulary.tokens, StringArray)
    assert kept <= most_kept
    assert peak <= most_at_once


def test_texts_of_a_file_are_not_decoded_before_they_are_asked_for() -> None:
    entry = raw_array("k", [f"▁word{i}" for i in range(N_TOKENS)], ValueType.STRING)
    entry.decode()
    tracemalloc.start()
    texts = entry.decode()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(texts, StringArray)
    assert kept <= 5 * N_TOKENS  # where each begins; the bytes are the entry's


def test_an_array_of_strings_is_a_sequence() -> None:
    values = ["a", "", "\udcff", "我🦙"]
    texts = raw_array("k", values, ValueType.STRING).decode()
    assert texts == values
    assert texts == raw_array("k", values, ValueType.STRING).decode()
    assert texts != raw_array("k", values[:3], ValueType.STRING).decode()
    assert isinstance(texts, StringArray)
    assert (len(texts), texts[3], texts[-4], texts[1:3]) == (4, "我🦙", "a", ["", "\udcff"])
    assert list(texts) == values
    for index in (4, -5):
        with pytest.raises(IndexError):
            texts[index]


def test_an_empty_array_of_strings() -> None:
    texts = raw_array("k", [], ValueType.STRING).decode()
    assert texts == []
    assert isinstance(texts, StringArray)
    assert not texts


def test_an_index_finds_the_tokens_it_was_given() -> None:
    tokens = [f"t{i % 900}" for i in range(1000)]  # the last of equal ones counts
    ids = array("I", range(0, 1000, 2))
    index = TokenIndex(tokens, ids)
    expected = {tokens[i]: i for i in ids}
    assert {text: index.get(text) for text in expected} == expected
    assert index.get("t1") is None
    assert index.get("") is None
    assert TokenIndex([], []).get("a") is None
