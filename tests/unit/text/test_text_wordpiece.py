"""WordPiece: words, pieces, and what is no text."""

import pytest

from llamad.errors import LlamadError
from llamad.text import tokenizer_from_metadata
from unit.text.vocabularies import WORD_PIECES, wordpiece_metadata

UNKNOWN, CLS, SEP = 1, 2, 3


def ids(*pieces: str) -> list[int]:
    return [UNKNOWN if piece == "?" else 4 + WORD_PIECES.index(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello", ["▁hello"]),
        (" hello\thello\n", ["▁hello", "▁hello"]),
        ("unaffable", ["▁un", "aff", "able"]),
        ("unaffablex", ["?"]),  # no rest may be left
        ("ab,hello!!", ["▁a", "b", "▁,", "▁hello", "▁!", "▁!"]),
        ("hello語語b", ["▁hello", "▁語", "▁語", "?"]),
        ("Café cafe\u0301", ["▁cafe", "▁cafe"]),
        ("he\u00adl\x00lo", ["▁hello"]),  # neither a soft hyphen nor a zero is part of a word
        ("a" + "b" * 99, ["▁a", *["b"] * 99]),
        ("a" + "b" * 100, ["?"]),  # longer than a word
        ("[CLS] [UNK]", ["?", "?", "?", "?", "?", "?"]),  # no message writes a token of the model
        ("", []),
        (" \n", []),
    ],
)
def test_a_text_is_words_and_their_longest_pieces(text: str, pieces: list[str]) -> None:
    tokenizer = tokenizer_from_metadata(wordpiece_metadata())
    assert tokenizer.encode(text, add_bos=False) == ids(*pieces)
    assert tokenizer.encode(text) == [CLS, *ids(*pieces), SEP]


def test_a_vocabulary_with_case_and_accents_keeps_them() -> None:
    metadata = wordpiece_metadata(**{"normalizer.lowercase": False})
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("Cafe cafe", add_bos=False) == ids("▁Cafe", "▁cafe")
    assert tokenizer.encode("Café", add_bos=False) == ids("?")
    stripped = wordpiece_metadata(
        **{"normalizer.lowercase": False, "normalizer.strip_accents": True}
    )
    assert tokenizer_from_metadata(stripped).encode("Café", add_bos=False) == ids("▁Cafe")


def test_ids_become_words_again() -> None:
    tokenizer = tokenizer_from_metadata(wordpiece_metadata())
    assert tokenizer.decode(tokenizer.encode("Hello, unaffable")) == "hello , unaffable"


def test_a_flag_of_the_wrong_type_is_named() -> None:
    with pytest.raises(LlamadError, match=r"normalizer\.lowercase: is int, must be a bool"):
        tokenizer_from_metadata(wordpiece_metadata(**{"normalizer.lowercase": 1}))
