"""What automata over characters have in common, against Python's re on all short texts."""

import itertools
import random
import re
from decimal import Decimal

import pytest

from llamad.errors import LlamadError
from llamad.sampling.constraint.languages import (
    TooManyStatesError,
    common_language,
    pattern_language,
    smallest,
    texts,
)
from llamad.sampling.constraint.multiples import multiples

SHORT = ["".join(some) for n in range(6) for some in itertools.product("ab1", repeat=n)]
PATTERNS = ("^a*b$", "b", "^(?:ab|a)*1?$", "a{2,3}", "^[^a]*$", "^$", "1|^a", "^(a|b)*a(a|b){2}$")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_takes_what_pythons_takes(pattern: str) -> None:
    language = pattern_language(pattern)
    for text in SHORT:
        assert language.accepts(text) == bool(re.search(pattern, text)), text


def test_what_several_take_or_do_not() -> None:
    for one, other in itertools.combinations(PATTERNS, 2):
        for wanted in itertools.product([True, False], repeat=2):
            parts = list(zip(map(pattern_language, (one, other)), wanted, strict=True))
            language = common_language([*parts, (texts(["ab", ""]), False)])
            for text in SHORT:
                takes = (bool(re.search(one, text)), bool(re.search(other, text)))
                assert language.accepts(text) == (takes == wanted and text not in ("ab", "")), text


def test_no_text_at_all_is_one_state() -> None:
    nothing = common_language([(pattern_language("^a$"), True), (pattern_language("^b$"), True)])
    assert (nothing.rows, nothing.ends) == (((),), frozenset())


@pytest.mark.parametrize(
    ("step", "n_states"), [("1", 2), ("5", 3), ("100", 5), ("7", 15), ("0.5", 4), ("0.25", 6)]
)
def test_multiples_are_those_of_decimal_numbers(step: str, n_states: int) -> None:
    language = multiples(Decimal(step))
    for thousandths in range(0, 40_000, 25):
        text = f"{thousandths / 1000:.3f}"
        assert language.accepts(text) == (Decimal(text) % Decimal(step) == 0), text
    for number in range(1200):
        assert language.accepts(f"-{number}") == (number % Decimal(step) == 0)
    assert len(language.rows) <= n_states


def test_states_that_differ_in_nothing_are_one() -> None:
    a = ord("a")
    language = smallest([((a, a, 1),), ((a, a, 2),), ((a, a, 1),), ((a, a, 3),)], {0, 1, 2})
    assert language.rows == (((a, a, 0),),)


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){13}$", ".*x.{3000}$", "(a{100}){1000}"])
def test_a_language_has_an_end(pattern: str) -> None:
    with pytest.raises(TooManyStatesError):
        pattern_language(pattern)


LOOKING_AHEAD = [
    r"^(?!on$|off).*$",
    r"^(?!on$).*$",
    r"^(?=.*\d)(?=.*[a-z]).{3,6}$",
    r"^(?!.*--)(?!-)[a-z-]+$",
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
    r"^(?!\(|[)(])[()ab]+",
    r"^(?=a)b?",
]


@pytest.mark.parametrize("pattern", LOOKING_AHEAD[1:])
def test_look_aheads_at_the_beginning_are_what_python_takes_for_them(pattern: str) -> None:
    language, rng, n_taken = pattern_language(pattern), random.Random(pattern), 0
    for _ in range(3000):
        text = "".join(rng.choices("onf-+.01ab()", k=rng.randint(0, 6)))
        assert language.accepts(text) == (re.search(pattern, text) is not None), text
        n_taken += language.accepts(text)
    assert 0 < n_taken < 3000


@pytest.mark.parametrize("pattern", ["^(?=a", "^(?=a)*b", "^(?!a)b|c", "a(?!b)", LOOKING_AHEAD[0]])
def test_other_look_aheads_are_refused(pattern: str) -> None:
    with pytest.raises(
        LlamadError, match=r"is not supported|at the ends of the pattern|not closed"
    ):
        pattern_language(pattern)
