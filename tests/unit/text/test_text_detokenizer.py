"""Ids to text as they come: whole characters, nothing lost, nothing doubled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.errors import LlamadError
from llamad.text import Detokenizer, tokenizer_from_metadata
from unit.text.vocabularies import bpe_metadata, spm_metadata, token_id

BPE = tokenizer_from_metadata(bpe_metadata())
SPM_METADATA = spm_metadata()
SPM = tokenizer_from_metadata(SPM_METADATA)


def test_a_character_of_several_tokens_comes_with_its_last() -> None:
    detokenizer = Detokenizer(BPE)
    assert [detokenizer.push(token) for token in BPE.encode("é🦙")] == ["", "é", "", "", "", "🦙"]
    assert detokenizer.flush() == ""


def test_an_incomplete_character_at_the_end_becomes_a_replacement() -> None:
    detokenizer = Detokenizer(BPE)
    pieces = [detokenizer.push(token) for token in BPE.encode("a🦙")[:-1]]
    assert pieces == ["a", "", "", ""]
    assert detokenizer.flush() == "\ufffd"


def test_an_invalid_byte_does_not_swallow_what_follows() -> None:
    detokenizer = Detokenizer(SPM)
    tokens = [token_id(SPM_METADATA, t) for t in ("<0xF0>", "<0x9F>", "hello")]
    assert [detokenizer.push(token) for token in tokens] == ["", "", "\ufffdhello"]


@given(tokens=st.lists(st.integers(0, BPE.vocab_size - 1), max_size=30))
def test_pieces_joined_are_the_decoded_text(tokens: list[int]) -> None:
    detokenizer = Detokenizer(BPE)
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert text == BPE.decode(tokens)


@given(tokens=st.lists(st.integers(0, SPM.vocab_size - 1), max_size=30))
def test_pieces_of_a_text_from_its_start_drop_the_space_prefix(tokens: list[int]) -> None:
    detokenizer = Detokenizer(SPM, at_start=True)
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert text == SPM.decode(tokens)


def test_a_continuation_keeps_its_space() -> None:
    detokenizer = Detokenizer(SPM)
    assert detokenizer.push(token_id(SPM_METADATA, "▁world")) == " world"


def test_control_tokens_give_no_text() -> None:
    detokenizer = Detokenizer(SPM, at_start=True)
    tokens = [token_id(SPM_METADATA, t) for t in ("<s>", "▁hello", "</s>")]
    assert [detokenizer.push(token) for token in tokens] == ["", "hello", ""]


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(LlamadError, match="outside the vocabulary"):
        Detokenizer(BPE).push(BPE.vocab_size)
