"""Tokenizer metadata that is missing, of the wrong type or out of range, and files on disk."""

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.text import load_tokenizer, tokenizer_from_metadata
from tiny_gguf import TinyModelPath, TinySpec, vocabulary
from unit.text.vocabularies import bpe_metadata, spm_metadata

GOOD = bpe_metadata()
N = len(GOOD["tokenizer.ggml.tokens"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokens", None, "tokens: is missing or empty"),
        ("tokens", [], "tokens: is missing or empty"),
        ("tokens", "abc", "tokens: is str, must be an array"),
        ("tokens", ["a", 1], "tokens: element 1 is int"),
        ("token_type", [1], f"token_type: has 1 elements, tokens has {N}"),
        ("token_type", [7] * N, "token_type: element 0 is 7, must be 1..6"),
        ("token_type", [-1] * N, "token_type: element 0 is -1"),
        ("token_type", [True] * N, "token_type: element 0 is bool"),
        ("merges", None, "merges: is missing"),
        ("merges", ["h e", "h q̃"], "merges: element 1 is 'h q̃', but 'q̃' is no token"),
        ("merges", ["q z"], "merges: element 0 is 'q z', but 'qz' is no token"),
        ("merges", ["he"], "merges: element 0 is 'he', must be two tokens"),
        ("merges", [" he"], "must be two tokens"),
        ("merges", ["h" * 9000], f"element 0 is '{'h' * 64}...', must be two tokens"),
        ("merges", ["h " + "e" * 9000], "but '" + "e" * 64 + "...' is no token"),
        ("merges", ["h "], "must be two tokens"),
        ("unknown_token_id", "0", "unknown_token_id: is str, must be an integer"),
        ("model", None, "model: is missing"),
        ("model", 1, "model: is int, must be a string"),
        ("pre", 1, "pre: is int, must be a string"),
    ],
)
def test_a_broken_key_is_named_with_its_limit(key: str, value: object, message: str) -> None:
    with pytest.raises(LlamadError, match=message) as caught:
        tokenizer_from_metadata(GOOD | {f"tokenizer.ggml.{key}": value})
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.CORRUPT, "TOKENIZER_CORRUPT")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "rwkv"), ("model", "plamo2"), ("pre", "default"), ("pre", "deepseek-llm")],
)
def test_a_tokenizer_that_is_not_implemented_is_named(key: str, value: str) -> None:
    with pytest.raises(LlamadError, match=f"'{value}'") as caught:
        tokenizer_from_metadata(GOOD | {f"tokenizer.ggml.{key}": value})
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.STATE, "TOKENIZER_UNSUPPORTED")


@pytest.mark.parametrize("value", [N, -1, 2**32 - 1])
@pytest.mark.parametrize("role", ["bos", "eos", "eot", "eom", "unknown", "fim_pad"])
def test_a_special_id_outside_the_vocabulary_is_ignored_with_a_warning(
    role: str, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"tokenizer.ggml.{role}_token_id"
    vocabulary = tokenizer_from_metadata(GOOD | {key: value}).vocabulary
    assert vocabulary == tokenizer_from_metadata(GOOD).vocabulary
    assert [f"key={key} id={value} vocab_size={N}" in text for text in caplog.messages] == [True]


def test_a_special_id_outside_the_vocabulary_is_the_familys_default() -> None:
    metadata = spm_metadata(bos_token_id=2**32 - 1, eos_token_id=10**6, unknown_token_id=-1)
    vocabulary = tokenizer_from_metadata(metadata).vocabulary
    assert (vocabulary.unk_id, vocabulary.bos_id, vocabulary.eos_id) == (0, 1, 2)


def test_the_padding_token_is_not_looked_at() -> None:
    metadata = spm_metadata(padding_token_id=2**31)
    assert tokenizer_from_metadata(metadata).encode("a")


def test_load_tokenizer_reads_the_vocabulary_of_a_file(tiny_model_path: TinyModelPath) -> None:
    spec = TinySpec()
    tokenizer = load_tokenizer(tiny_model_path(spec))
    pieces, _, _ = vocabulary(spec.vocab_size)
    assert tokenizer.vocab_size == spec.vocab_size
    assert [pieces[i] for i in tokenizer.encode("the", add_bos=False)] == ["▁the"]
    assert tokenizer.decode(tokenizer.encode("the rain, 3 é")) == "the rain, 3 é"
