"""Thoughts apart from the answer: the same cuts, however the text arrives."""

import pytest

from llamad.text.thinking import ANSWER_PAIR, PAIRS, ThinkingMarks, find_marks

MARKS = ThinkingMarks((("<think>", "</think>"), ("[THINK]", "[/THINK]")), {7: "[THINK]"})


GRANITE = ThinkingMarks(PAIRS[:1], answer=ANSWER_PAIR)


def cut(pieces: list[str], tail: str = "", marks: ThinkingMarks = MARKS) -> tuple[str, str]:
    """Return thought and answer of a text that arrives in pieces."""
    splitter = marks.splitter(tail)
    assert splitter is not None
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    assert all(text for text, _ in parts)
    order = [thinking for _, thinking in parts]
    assert order == sorted(order, reverse=True), "an answer before a thought"
    return tuple("".join(t for t, thinking in parts if thinking is kind) for kind in (True, False))  # type: ignore[return-value]


CASES = [
    ("<think>\nHm.\n\nSo.\n</think>\n\nYes.\n", "", "Hm.\n\nSo.", "Yes.\n"),
    ("\n<think>\n\n</think>\n\nYes", "", "", "Yes"),
    ("Hm.\n</think>\n\nYes", "<assistant><think>\n", "Hm.", "Yes"),
    ("Yes", "<think>\n\n</think>\n\n", "", "Yes"),
    ("  Yes <think>no</think>", "", "", "  Yes <think>no</think>"),
    ("[THINK]a</think>b[/THINK]c", "", "a</think>b", "c"),
    ("<think>cut", "", "cut", ""),
    ("<think>cut </thi", "", "cut </thi", ""),
    ("<thin ice", "", "", "<thin ice"),
    ("<thi", "", "", "<thi"),
    ("<think>a</think>", "", "a", ""),
    (" \n ", "", "", " \n "),
    ("", "", "", ""),
]


@pytest.mark.parametrize(("text", "tail", "thought", "answer"), CASES)
def test_a_text_cut_at_every_place_has_the_same_thought_and_answer(
    text: str, tail: str, thought: str, answer: str
) -> None:
    assert cut([text], tail) == (thought, answer)
    assert cut(list(text), tail) == (thought, answer)
    for place in range(len(text)):
        assert cut([text[:place], text[place:]], tail) == (thought, answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>Hm.</think>\n<response>\nYes.\n\nSo.\n</response>\n", "Hm.", "Yes.\n\nSo."),
        ("<think>Hm.</think><response>Yes</response> more", "Hm.", "Yes more"),
        ("<think>Hm.</think>Yes <response>", "Hm.", "Yes <response>"),
        ("<think>Hm.</think><response>cut </resp", "Hm.", "cut </resp"),
        ("<think>Hm.</think><resp", "Hm.", "<resp"),
        ("<think>Hm.</think><response></response>", "Hm.", ""),
        ("Yes <response>no</response>", "", "Yes <response>no</response>"),
    ],
)
def test_marks_around_the_answer_behind_a_thought_are_no_part_of_it(
    text: str, thought: str, answer: str
) -> None:
    for pieces in ([text], list(text), *([text[:n], text[n:]] for n in range(len(text)))):
        assert cut(pieces, marks=GRANITE) == (thought, answer)


def test_a_mark_that_is_a_control_token_counts_where_it_means_something() -> None:
    splitter = MARKS.splitter("")
    assert splitter is not None
    assert splitter.control_text(7) == "[THINK]"
    assert splitter.control_text(8) == ""
    splitter.push("an answer")
    assert splitter.control_text(7) == ""


def test_marks_are_found_in_template_and_vocabulary() -> None:
    assert find_marks("", ["a"], []) == ThinkingMarks()
    assert ThinkingMarks().splitter("<think>") is None
    assert find_marks("{% if x %}</think>{% endif %}", ["a"], []).pairs == (PAIRS[0],)
    granite = "Write your thoughts between <think></think>, the rest in <response></response>"
    assert find_marks(granite, ["a"], []).answer == ANSWER_PAIR
    assert find_marks("<think>\n<response>", ["a"], []).answer is None
    found = find_marks("", ["a", "[THINK]", "[/THINK]"], [1, 2])
    assert found.pairs == (("[THINK]", "[/THINK]"),)
    assert dict(found.controls) == {1: "[THINK]", 2: "[/THINK]"}


@pytest.mark.parametrize(
    ("tail", "told", "behind"),
    [
        ("<think>\n", True, "\n\n</think>\n\n"),  # opened by the template, whatever it was told
        ("assistant\n", False, "<think>\n\n</think>\n\n"),
        ("assistant\n", True, ""),  # the template has written what it wants
        ("<think>\n\n</think>\n\n", True, ""),
    ],
)
def test_a_prompt_ends_with_no_thought_open(tail: str, told: bool, behind: str) -> None:
    marks = ThinkingMarks((PAIRS[0],))
    assert marks.without_thought(tail, told=told, calls=False) == behind
    assert ThinkingMarks().without_thought(tail, told=told, calls=False) == ""
