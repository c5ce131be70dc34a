"""Stop strings across the borders of pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.text import StopStrings


def test_text_passes_when_there_are_no_stop_strings() -> None:
    stops = StopStrings([])
    assert stops.push("anything") == ("anything", None)
    assert stops.flush() == ""


def test_a_possible_beginning_is_held_back_until_it_is_none() -> None:
    stops = StopStrings(["\nUser:"])
    assert stops.push("Hi\n") == ("Hi", None)
    assert stops.push("Use") == ("", None)
    assert stops.push("d it") == ("\nUsed it", None)


def test_a_match_across_pieces_ends_the_text_before_it() -> None:
    stops = StopStrings(["\nUser:"])
    assert stops.push("Hi\nUs") == ("Hi", None)
    assert stops.push("er: more") == ("", "\nUser:")
    assert stops.push("ignored") == ("", "\nUser:")
    assert stops.flush() == ""


def test_what_is_held_back_comes_at_the_end() -> None:
    stops = StopStrings(["STOP"])
    assert stops.push("a ST") == ("a ", None)
    assert stops.flush() == "ST"


def test_the_stop_string_complete_first_wins_and_the_longer_of_two_at_once() -> None:
    assert StopStrings(["bcd", "bc"]).push("abcd") == ("a", "bc")
    assert StopStrings(["c", "abc"]).push("abc") == ("", "abc")


def test_a_stop_string_that_repeats_its_own_beginning_is_found() -> None:
    stops = StopStrings(["aab"])
    assert stops.push("aaa") == ("a", None)
    assert stops.push("ab") == ("a", "aab")


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])


def searched(stops: list[str], text: str) -> tuple[str, str | None]:
    """Search the whole text: the earliest end, then the earliest start."""
    found = [
        (text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text
    ]
    if not found:
        return text, None
    _, start, stop = min(found)
    return text[:start], stop


@given(
    stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4),
    pieces=st.lists(st.text("ab\n", max_size=6), max_size=12),
)
def test_pieces_give_what_a_search_of_the_whole_text_gives(
    stops: list[str], pieces: list[str]
) -> None:
    stream = StopStrings(stops)
    emitted, matched = "", None
    for piece in pieces:
        text, matched = stream.push(piece)
        emitted += text
    emitted += stream.flush()
    assert (emitted, matched) == searched(stops, "".join(pieces))


def test_many_long_stop_strings_hold_back_no_more_than_they_must() -> None:
    stops = StopStrings([f"{i:x}" + "ab" * 127 + f"{i:x}" for i in range(16)])
    text = ("f" + "ab" * 126 + "x") * 50 + "f" + "ab" * 127
    emitted, matched = stops.push(text)
    assert matched is None
    assert len(text) - len(emitted) == 255
    assert stops.push("f") == ("", "f" + "ab" * 127 + "f")
