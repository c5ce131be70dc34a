"""The Markdown of an answer: nothing is lost, whatever the pieces are that it comes in."""

import random

import pytest

from llamactl.chat.layout import Layout
from llamactl.chat.markdown import Code, Indent, MarkdownReader, NewLine, Piece, Span

PLAIN = [
    "2 * 3 * 4 = 24",
    "a*b*c and x**2 ** 3",
    "*args and **kwargs",
    "snake_case and __init__",
    "an `open code",
    "5 > 3, #hash, 1.5, -x",
    "| a | b |",
    "[a link](http://example.org)",
    "**",
    "*",
    "`",
    "1",
    "-",
]
STYLED = {
    "**bold** text": [Span("bold", "bold"), Span(" text")],
    "an *italic*.": [Span("an "), Span("italic", "italic"), Span(".")],
    "***both***": [Span("both", "bold italic")],
    "`a*b*c`": [Span("a*b*c", "code")],
    "``` in a line ```": [Span(" in a line ", "code")],
    "``a`b``": [Span("a`b", "code")],
    "**see `x`**": [Span("see ", "bold"), Span("x", "bold code")],
    "## Title **b**": [Span("Title ", "heading"), Span("b", "heading bold")],
    "- item": [Indent("\u2022 "), Span("item")],
    "  12. item": [Indent("  12. "), Span("item")],
    "> said": [Indent("\u2502 ", "quote"), Span("said", "quote")],
}


def read(text: str, sizes: random.Random | None = None) -> list[Piece]:
    """Return the pieces of a text that comes in pieces of random size; neighbours are joined."""
    reader, pieces, start = MarkdownReader(), list[Piece](), 0
    while start < len(text):
        end = start + (sizes.randint(1, 4) if sizes else len(text))
        pieces += reader.feed(text[start:end])
        start = end
    return joined([*pieces, *reader.end()])


def joined(pieces: list[Piece]) -> list[Piece]:
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(piece, Span) and isinstance(last, Span) and last.style == piece.style:
            result[-1] = Span(last.text + piece.text, piece.style)
        else:
            result.append(piece)
    return result


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_markdown_stays_as_it_is(text: str) -> None:
    assert read(text) == [Span(text)]
    assert read(f"so {text}\n\n") == [Span(f"so {text}"), NewLine(), NewLine()]


@pytest.mark.parametrize("text", STYLED)
def test_marks_become_styles(text: str) -> None:
    assert read(text) == STYLED[text]


def test_a_fenced_block_is_lines_of_code() -> None:
    text = "```python\n# **no** heading\n\n  - x\n```\n*after*"
    assert read(text) == [
        Code("```python", "python", is_fence=True), NewLine(),
        Code("# **no** heading", "python"), NewLine(),
        Code("", "python"), NewLine(),
        Code("  - x", "python"), NewLine(),
        Code("```", "python", is_fence=True), NewLine(),
        Span("after", "italic"),
    ]  # fmt: skip


def test_a_block_without_an_end_and_a_longer_fence_are_code() -> None:
    assert read("````\n```\nx")[2:] == [Code("```", ""), NewLine(), Code("x", "")]


@pytest.mark.parametrize("seed", range(200))
def test_pieces_do_not_depend_on_how_the_text_came(seed: int) -> None:
    sizes = random.Random(seed)
    parts = [*PLAIN, *STYLED, "```\ncode\n```", "", "word " * 9]
    text = "\n".join(sizes.choices(parts, k=9))
    assert read(text, sizes) == read(text)


@pytest.mark.parametrize("seed", range(100))
def test_random_marks_lose_no_letter(seed: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choices("ab *`\n#->1.~", k=200))
    shown = "".join(getattr(piece, "text", "\n") for piece in read(text, source))
    assert [c for c in shown if c in "ab1"] == [c for c in text if c in "ab1"]


def test_an_open_mark_does_not_hold_the_text_back_for_ever() -> None:
    reader = MarkdownReader()
    pieces = [piece for _ in range(200) for piece in reader.feed("`word ")]
    assert len("".join(getattr(piece, "text", "") for piece in pieces)) > 600


def laid_out(pieces: list[Piece], width: int) -> str:
    layout = Layout(lambda: width)
    written = [*layout.feed(pieces), *layout.end()]
    return "".join(span.text for span in written)


def test_lines_break_between_words() -> None:
    assert laid_out([Span("aaa "), Span("b"), Span("b", "bold"), Span(" cc")], 6) == "aaa bb\ncc"


def test_an_item_goes_on_under_its_text() -> None:
    assert laid_out(read("- aaa bb cc"), 8) == "\u2022 aaa bb\n  cc"


def test_a_word_longer_than_a_line_is_left_to_the_terminal() -> None:
    assert laid_out([Span("a " + "x" * 25 + " b")], 10) == "a\n" + "x" * 25 + " b"


def test_wide_characters_break_between_any_two_and_emoji_stay_whole() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert laid_out([Span("日本語日本語")], 7) == "日本語\n日本語"
    assert laid_out([Span("ab" + family + "cd")], 5).replace("\n", "") == f"ab{family}cd"
    assert family in laid_out([Span("ab" + family + "cd")], 5)


def test_closing_punctuation_does_not_begin_a_line() -> None:
    assert laid_out([Span("日本。")], 4) == "日\n本。"


@pytest.mark.parametrize("width", [4, 7, 20, 80])
def test_no_line_of_short_words_is_longer_than_the_terminal(width: int) -> None:
    source = random.Random(width)
    words = " ".join("x" * source.randint(1, 4) for _ in range(200))
    lines = laid_out([Span(words)], width).split("\n")
    assert max(map(len, lines)) <= width
    assert " ".join(lines) == words
