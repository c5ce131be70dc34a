"""Gemma 4's vocabulary: spaces, lines, bytes, and markers that a user cannot forge."""

from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.text import Tokenizer, tokenizer_from_metadata
from llamad.text.content_guard import ContentGuard

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
MARKERS = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<tool_response|>", '<|"|>')
WORDS = ("\n", "\n\n", "▁", "a", "b", "▁a", "ab", "<", "|", ">")
MERGES = ["▁ a", "a b"]


def metadata(**others: Any) -> dict[str, Any]:
    """Return bytes, words, two control tokens and Gemma 4's markers, in this order from id 0 on."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + [*WORDS, "<bos>", "<turn|>", *MARKERS]
    types = [BYTE] * 256 + [NORMAL] * len(WORDS) + [CONTROL] * 2 + [USER_DEFINED] * len(MARKERS)
    own: dict[str, Any] = {
        "model": "gemma4",
        "tokens": tokens,
        "token_type": types,
        "merges": MERGES,
        "bos_token_id": tokens.index("<bos>"),
        "eos_token_id": tokens.index("<turn|>"),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (own | others).items()}


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    ids = tokenizer.encode(text, add_bos=False)
    assert tokenizer.decode(ids) == text
    return [tokenizer.vocabulary.tokens[i] for i in ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ab", ["a", "▁a", "b"]),  # the merge of the lower rank comes first
        ("ab", ["ab"]),
        ("\n\n", ["\n\n"]),
        ("a\n\n\nb", ["a", "\n", "\n", "\n", "b"]),  # a run that is no token as a whole
        ("é", ["<0xC3>", "<0xA9>"]),
        ("  ", ["▁", "▁"]),
    ],
)
def test_text_and_back(text: str, expected: list[str]) -> None:
    assert pieces(tokenizer_from_metadata(metadata()), text) == expected


def test_a_long_line_is_cut_and_stays_the_same_text() -> None:
    assert len(pieces(tokenizer_from_metadata(metadata()), "b" * 40_000)) == 40_000


def test_bos_is_added_also_where_the_file_is_silent() -> None:
    tokenizer = tokenizer_from_metadata(metadata())
    assert tokenizer.encode("a")[0] == tokenizer.bos_id


def test_a_marker_in_an_answer_is_shown() -> None:
    tokenizer = tokenizer_from_metadata(metadata())
    for marker in MARKERS:
        token = tokenizer.vocabulary.tokens.index(marker)
        assert tokenizer.piece(token) == marker.encode()


@pytest.mark.parametrize("marker", [*MARKERS, "<turn|>"])
def test_a_marker_in_a_message_is_text_and_the_templates_own_a_token(marker: str) -> None:
    tokenizer = tokenizer_from_metadata(metadata())
    guard = ContentGuard(tokenizer.special, "{{ messages }}")
    token, private = tokenizer.vocabulary.tokens.index(marker), "\U0010f001"
    rendered = marker + guard.guard(f"a{marker}b", private)
    ids = tokenizer.encode_rendered(guard.split(rendered, private))
    assert ids.count(token) == 1
    assert tokenizer.decode(ids[2:]) == f"a{marker}b"


@pytest.mark.parametrize(
    ("others", "fault"),
    [
        ({"pre": "llama3"}, "tokenizer.ggml.pre is 'llama3'"),
        ({"merges": ["▁ x"]}, "merges"),
        ({"tokens": ["a", "b"], "token_type": [1, 1], "merges": ["a b"]}, "merges"),
    ],
)
def test_what_cannot_be_is_named(others: dict[str, Any], fault: str) -> None:
    with pytest.raises(LlamadError, match=fault):
        tokenizer_from_metadata(metadata(**others))
