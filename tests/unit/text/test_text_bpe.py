"""Byte-level BPE: merges, special tokens, BOS and EOS, and every byte there and back."""

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamad.errors import ErrorKind, LlamadError
from llamad.text import tokenizer_from_metadata
from llamad.text.bpe import _ALPHABET, BpeTokenizer
from unit.text.vocabularies import (
    BPE_MERGES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    bpe_metadata,
    token_id,
)

TEXT = st.text(st.characters(codec="utf-8"))


def ids(metadata: dict[str, object], *tokens: str) -> list[int]:
    return [token_id(metadata, token) for token in tokens]


def test_merges_apply_by_rank_within_a_word() -> None:
    metadata = bpe_metadata()
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("hello world") == ids(metadata, "hello", "Ġworld")
    assert tokenizer.encode("hell help") == ids(metadata, "hell", "Ġ", "he", "l", "p")


def test_equal_ranks_merge_from_the_left() -> None:
    metadata = bpe_metadata()
    assert tokenizer_from_metadata(metadata).encode("aaaaaaa") == ids(metadata, "aaaa", "aa", "a")


def naive_merge(word: str, merges: tuple[str, ...]) -> list[str]:
    """Merge by the definition: the leftmost pair of lowest rank, until there is none."""
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    symbols = list(word)
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not found:
            return symbols
        _, i = min(found)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@given(
    word=st.text("abc", max_size=60),
    pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12),
    seed=st.integers(0, 2),
)
def test_any_merges_give_what_the_definition_says(
    word: str, pairs: list[tuple[int, int]], seed: int
) -> None:
    tokens, merges = ["a", "b", "c"], []
    for left, right in pairs:
        merge = f"{tokens[left % len(tokens)]} {tokens[right % len(tokens)]}"
        if merge.replace(" ", "") not in tokens and len(merge) < 12:
            merges.append(merge)
            tokens.append(merge.replace(" ", ""))
    word = word * 2 if seed else word  # short and long words are merged differently
    random.Random(seed).shuffle(merges)  # files may rank a merge before those it is made of
    metadata = bpe_metadata(merges=merges, special=())
    expected = ids(metadata, *naive_merge(word, tuple(merges)))
    assert tokenizer_from_metadata(metadata).encode(word) == expected


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "smollm", "qwen2"])
@given(text=TEXT)
@settings(max_examples=50)
def test_decode_returns_what_was_encoded(pre: str, text: str) -> None:
    tokenizer = TOKENIZERS[pre]
    assert tokenizer.decode(tokenizer.encode(text)) == text


TOKENIZERS = {
    pre: tokenizer_from_metadata(bpe_metadata(pre=pre))
    for pre in ("gpt-2", "llama-bpe", "smollm", "qwen2")
}


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\r\n", "\u2028", "🦙" * 3, "e\u0301"])
def test_odd_texts_come_back(text: str) -> None:
    tokenizer = TOKENIZERS["gpt-2"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_empty_text_has_no_tokens() -> None:
    assert TOKENIZERS["gpt-2"].encode("") == []


def test_a_word_without_end_is_cut_and_comes_back() -> None:
    text = "".join(random.Random(1).choices("ahelo", k=50_000))
    tokenizer = TOKENIZERS["gpt-2"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("a" * 65536) == tokenizer.encode("aaaa") * 16384


def test_a_whole_word_wins_over_merges_only_where_the_family_says_so() -> None:
    merges = [*BPE_MERGES, "x y"]
    special = [("xyz", NORMAL)]
    llama3 = bpe_metadata(pre="llama-bpe", merges=merges, special=special)
    gpt2 = bpe_metadata(pre="gpt-2", merges=merges, special=special)
    assert tokenizer_from_metadata(llama3).encode("xyz", add_bos=False) == ids(llama3, "xyz")
    assert tokenizer_from_metadata(gpt2).encode("xyz") == ids(gpt2, "xy", "z")


def test_a_control_token_is_no_whole_word() -> None:
    metadata = bpe_metadata(pre="llama-bpe", special=[("stop", CONTROL)])
    assert token_id(metadata, "stop") not in tokenizer_from_metadata(metadata).encode("stop")


def test_no_merge_makes_a_control_token_of_text() -> None:
    metadata = bpe_metadata(special=[("hello!", CONTROL), ("§", CONTROL)])
    merges = metadata["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    merges.append("hello !")
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("hello!") == ids(metadata, "hello", "!")
    assert tokenizer.decode(tokenizer.encode("hello!§")) == "hello!§"


def test_bytes_without_a_token_vanish_and_block_merges() -> None:
    metadata = bpe_metadata(without_bytes=b"\xf0", unknown_token_id=0)
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.decode(tokenizer.encode("h🦙e")) == "h\ufffd\ufffd\ufffde"
    assert token_id(metadata, "he") not in tokenizer.encode("h🦙e")


def test_control_tokens_are_text_unless_asked_for() -> None:
    metadata = bpe_metadata()
    tokenizer = tokenizer_from_metadata(metadata)
    end = token_id(metadata, "<|im_end|>")
    assert end not in tokenizer.encode("a<|im_end|>b")
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>b")) == "a<|im_end|>b"
    expected = [*ids(metadata, "a"), end, *ids(metadata, "b")]
    assert tokenizer.encode("a<|im_end|>b", parse_special=True) == expected


def test_user_defined_tokens_are_found_in_any_text_and_shown() -> None:
    metadata = bpe_metadata(special=[("<é think>", USER_DEFINED)])
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("a<é think>") == ids(metadata, "a", "<é think>")
    assert tokenizer.decode(tokenizer.encode("a<é think>")) == "a<é think>"


def test_the_longest_special_token_wins() -> None:
    metadata = bpe_metadata(special=[("<a>", CONTROL), ("<a><b>", CONTROL), ("<b>", UNKNOWN)])
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("<a><b><b><a>", parse_special=True) == ids(
        metadata, "<a><b>", "<b>", "<a>"
    )


def test_a_control_token_of_one_character_is_never_parsed() -> None:
    metadata = bpe_metadata(special=[("§", CONTROL)])
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("§", parse_special=True) == tokenizer.encode("§")


def test_control_tokens_show_only_on_request() -> None:
    metadata = bpe_metadata()
    tokenizer = tokenizer_from_metadata(metadata)
    tokens = ids(metadata, "a", "<|im_end|>")
    assert tokenizer.decode(tokens) == "a"
    assert tokenizer.decode(tokens, special=True) == "a<|im_end|>"
    assert tokenizer.piece(tokens[1]) == b""


BOS = token_id(bpe_metadata(), "<|im_start|>")
EOS = token_id(bpe_metadata(), "<|im_end|>")


@pytest.mark.parametrize(
    ("pre", "keys", "add_bos", "begins", "ends"),
    [
        ("gpt-2", {}, None, False, False),
        ("gpt-2", {}, True, True, False),
        ("llama-bpe", {}, None, True, False),
        ("llama-bpe", {}, False, False, False),
        ("llama-bpe", {"add_bos_token": False}, None, False, False),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, None, True, True),
        ("gpt-2", {"add_eos_token": True}, True, True, True),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, False, False, False),
    ],
)
def test_bos_and_eos_follow_the_caller_then_the_metadata_then_the_family(
    pre: str, keys: dict[str, object], add_bos: bool | None, begins: bool, ends: bool
) -> None:
    metadata = bpe_metadata(pre=pre, bos_token_id=BOS, eos_token_id=EOS)
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    tokens = tokenizer_from_metadata(metadata).encode("hello", add_bos=add_bos)
    assert (tokens[0] == BOS, tokens[-1] == EOS) == (begins, ends)
    assert len(tokens) == 1 + begins + ends


def test_no_bos_is_added_where_the_model_has_none() -> None:
    assert TOKENIZERS["llama-bpe"].encode("a", add_bos=True) == TOKENIZERS["gpt-2"].encode("a")


def test_a_parsed_bos_is_not_doubled() -> None:
    metadata = bpe_metadata(bos_token_id=BOS, add_bos_token=True)
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("<|im_start|>a", parse_special=True).count(BOS) == 1
    assert tokenizer.encode("<|im_start|>a")[0] == BOS  # as text, so BOS is added


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(LlamadError, match=r"character 1 is the lone surrogate U\+D83E") as caught:
        TOKENIZERS["gpt-2"].encode("a\ud83e")
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("token", [-1, 10**9])
def test_an_id_outside_the_vocabulary_is_refused_with_the_limit(token: int) -> None:
    tokenizer = TOKENIZERS["gpt-2"]
    with pytest.raises(LlamadError, match=f"id {token} .* {tokenizer.vocab_size} tokens") as caught:
        tokenizer.decode([token])
    assert caught.value.kind is ErrorKind.INVALID


def test_the_byte_alphabet_is_that_of_gpt_2() -> None:
    assert _ALPHABET[ord(" ")] == "Ġ"
    assert _ALPHABET[ord("\n")] == "Ċ"
    assert _ALPHABET[0xAD] == "Ń"
    assert len(set(_ALPHABET)) == 256


def test_many_threads_may_encode() -> None:
    words = ("hello", "world", " aaaa", "12345", "é🦙")
    tokenizer = BpeTokenizer(bpe_metadata())
    expected = [tokenizer.encode(word) for word in words]
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: [tokenizer.encode(word) for word in words], range(50)):
            assert result == expected
