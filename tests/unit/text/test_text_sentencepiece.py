"""SentencePiece vocabularies rebuilt from metadata."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.errors import ErrorKind, LlamadError
from llamad.text import sentencepiece as module
from llamad.text import tokenizer_from_metadata
from llamad.text.sentencepiece import SentencePieceTokenizer
from unit.text.vocabularies import (
    CONTROL,
    NORMAL,
    SPM_WORDS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    spm_metadata,
    token_id,
)

METADATA = spm_metadata()
TOKENIZER = SentencePieceTokenizer(METADATA)
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("helowrd a▁"))


def ids(*tokens: str) -> list[int]:
    return [token_id(METADATA, token) for token in tokens]


def test_a_text_gets_bos_and_a_space_in_front() -> None:
    assert TOKENIZER.encode("hello world") == ids("<s>", "▁hello", "▁world")
    assert TOKENIZER.encode("hello world", add_bos=False) == ids("▁hello", "▁world")


def test_what_has_no_piece_becomes_bytes() -> None:
    assert TOKENIZER.encode("hé\0", add_bos=False) == ids("▁h", "<0xC3>", "<0xA9>", "<0x00>")


def test_empty_text_is_bos_alone() -> None:
    assert TOKENIZER.encode("") == ids("<s>")
    assert TOKENIZER.encode("", add_bos=False) == []


def test_without_a_space_prefix_text_stays_as_it_is() -> None:
    tokenizer = SentencePieceTokenizer(spm_metadata(add_space_prefix=False))
    assert tokenizer.encode("hello", add_bos=False) == ids("hello")
    assert tokenizer.decode(ids("▁hello")) == " hello"


def test_the_space_prefix_follows_every_special_token() -> None:
    tokens = TOKENIZER.encode("<s>hello</s>hello", parse_special=True)
    assert tokens == ids("<s>", "▁hello", "</s>", "▁hello")


def test_control_tokens_in_text_are_text() -> None:
    tokens = TOKENIZER.encode("hello</s>", add_bos=False)
    assert token_id(METADATA, "</s>") not in tokens
    assert TOKENIZER.decode(tokens) == "hello</s>"


@given(text=TEXT)
def test_decode_returns_what_was_encoded(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.replace("▁", " ")


def by_definition(text: str) -> list[str]:
    """Merge the adjacent pair whose piece scores highest, leftmost first, until none is a piece."""
    scores = {word: -rank for rank, word in enumerate(SPM_WORDS)}
    symbols = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        found = [
            (-scores[left + right], i)
            for i, (left, right) in enumerate(pairwise(symbols))
            if left + right in scores
        ]
        if not found:
            return symbols
        _, i = min(found)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@given(text=st.text("helowrda t", max_size=40))
def test_pieces_merge_by_score_then_from_the_left(text: str) -> None:
    assert TOKENIZER.encode(text, add_bos=False) == ids(*by_definition(text))


@given(text=st.text("hel wo", max_size=60), limit=st.integers(1, 20))
def test_long_text_is_cut_only_where_it_makes_no_difference(text: str, limit: int) -> None:
    whole = TOKENIZER.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_CHARACTERS", limit)
        chunks = list(module._chunks(text))
        cut = TOKENIZER.encode(text)
    assert "".join(chunks) == text
    assert max(map(len, chunks)) <= limit
    assert TOKENIZER.decode(cut) == text
    if all(len(word) < limit for word in text.split(" ")) and "  " not in " " + text:
        assert cut == whole


def test_a_user_defined_token_matches_its_text_with_spaces() -> None:
    metadata = spm_metadata(special=[("▁▁▁", USER_DEFINED), ("<tool>", USER_DEFINED)])
    tokenizer = SentencePieceTokenizer(metadata)
    tokens = tokenizer.encode("hello   <tool>", add_bos=False)
    assert tokens == [token_id(metadata, t) for t in ("▁hello", "▁▁▁", "<tool>")]
    assert tokenizer.decode(tokens) == "hello   <tool>"


def test_ids_stay_in_place_around_tokens_that_no_text_reaches() -> None:
    special = [("hello", UNUSED), ("", CONTROL), ("<unk2>", UNKNOWN), ("zz", 1)]
    metadata = spm_metadata(special=special)
    tokenizer = SentencePieceTokenizer(metadata)
    assert tokenizer.encode("zz", add_bos=False) == [*ids("▁"), token_id(metadata, "zz")]
    assert tokenizer.encode("hello", add_bos=False) == ids("▁hello")
    assert tokenizer.piece(token_id(metadata, "zz")) == b"zz"
    assert tokenizer.vocab_size == len(metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]


def test_a_vocabulary_without_bytes_gives_the_unknown_token() -> None:
    metadata = spm_metadata(byte_tokens=False)
    tokens = SentencePieceTokenizer(metadata).encode("é", add_bos=False)
    assert tokens == [token_id(metadata, "▁"), 0]


def test_roles_and_types_default_to_those_of_llama() -> None:
    metadata = spm_metadata()
    for key in ("bos_token_id", "eos_token_id", "unknown_token_id", "token_type"):
        del metadata[f"tokenizer.ggml.{key}"]
    tokenizer = tokenizer_from_metadata(metadata)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.encode("hé<s>") == TOKENIZER.encode("hé<s>")
    assert tokenizer.piece(1) == b""


def test_pieces_are_bytes_of_text() -> None:
    assert TOKENIZER.piece(token_id(METADATA, "▁world")) == b" world"
    assert TOKENIZER.piece(token_id(METADATA, "<0xE2>")) == b"\xe2"
    assert TOKENIZER.piece(1) == b""
    assert TOKENIZER.piece(1, special=True) == b"<s>"


def replaced(old: str, new: str) -> dict[str, object]:
    metadata = spm_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return metadata | {"tokenizer.ggml.tokens": [new if t == old else t for t in tokens]}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (replaced("<0x00>", "<0x-1>"), r"tokens: byte token 3 is '<0x-1>'"),
        (replaced("<0x41>", "<0xZZ>"), r"byte token 68 is '<0xZZ>'"),
        (replaced("<0x41>", "<0x42>"), r"no byte token <0x41>"),
        (spm_metadata(scores=[0.0]), r"scores: has 260 elements, tokens has 285"),
        (METADATA | {"tokenizer.ggml.scores": None}, "scores: is missing"),
        (METADATA | {"tokenizer.ggml.scores": "x"}, "scores: is str, must be an array"),
        (spm_metadata(scores=[math.nan] * 26), "scores: element 259 is nan"),
        (METADATA | {"tokenizer.ggml.add_space_prefix": 1}, "add_space_prefix: is int"),
        (METADATA | {"tokenizer.ggml.add_bos_token": "no"}, "add_bos_token: is str"),
    ],
)
def test_a_broken_vocabulary_is_refused_by_key(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(LlamadError, match=message) as caught:
        tokenizer_from_metadata(metadata)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.CORRUPT, "TOKENIZER_CORRUPT")


def test_id_0_is_unknown_where_no_token_says_so() -> None:
    metadata = spm_metadata(byte_tokens=False)
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, list)
    metadata["tokenizer.ggml.token_type"] = [NORMAL, *types[1:]]
    del metadata["tokenizer.ggml.unknown_token_id"]
    assert tokenizer_from_metadata(metadata).encode("é", add_bos=False)[-1] == 0


# Log-probabilities: "hello" in two pieces is likelier than in one, and than in smaller pieces.
UNIGRAM = {"▁": -4.0, "h": -6.0, "e": -6.0, "l": -6.0, "o": -6.0, "▁hello": -9.0, "▁he": -3.0}
UNIGRAM |= {"llo": -3.5, "ll": -3.0, "▁▁": -1.0}


def unigram(**keys: object) -> dict[str, object]:
    metadata = spm_metadata(words=list(UNIGRAM), scores=list(UNIGRAM.values()), byte_tokens=False)
    keys = {"model": "t5", "add_eos_token": True} | keys
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def test_a_unigram_vocabulary_takes_the_likeliest_pieces() -> None:
    tokenizer = tokenizer_from_metadata(unigram())
    names = ["<unk>", "<s>", "</s>", *UNIGRAM]
    for text, pieces in (("hello", ["▁he", "llo"]), ("  hello ", ["▁▁", "▁he", "llo", "▁"])):
        assert [names[i] for i in tokenizer.encode(text)] == ["<s>", *pieces, "</s>"]


def test_a_vocabulary_may_do_without_spaces_that_say_nothing() -> None:
    tokenizer = tokenizer_from_metadata(unigram(remove_extra_whitespaces=True))
    assert tokenizer.encode("  hello ") == tokenizer.encode("hello")
    assert tokenizer.encode("hello  hello") == tokenizer.encode("hello hello")
    assert tokenizer.encode("   ") == [1, 2]


def test_a_map_of_characters_has_bytes() -> None:
    with pytest.raises(LlamadError, match="precompiled_charsmap: element 1 is 256, must be a byte"):
        tokenizer_from_metadata(unigram(precompiled_charsmap=[0, 256]))
    with pytest.raises(LlamadError, match="precompiled_charsmap: has 3 bytes"):
        tokenizer_from_metadata(unigram(precompiled_charsmap=[1, 2, 3]))
