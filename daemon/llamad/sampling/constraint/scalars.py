"""Strings, numbers and given values, by what a schema says of them, as parts of a grammar."""

import math
import re
from decimal import Decimal
from fractions import Fraction

from llamad.errors import LlamadError
from llamad.sampling.constraint.expression import (
    NEVER,
    Bytes,
    Expression,
    Repeat,
    choice,
    literal,
    optional,
    sequence,
)
from llamad.sampling.constraint.facts import Facts, Place, higher, lower, refused, unique
from llamad.sampling.constraint.json_text import Json
from llamad.sampling.constraint.languages import (
    ANY_CHARACTER,
    MAX_STATES,
    Language,
    TooManyStatesError,
    common_language,
    language_of,
    one_of,
    pattern_language,
    written,
)
from llamad.sampling.constraint.look_ahead import without_look_aheads
from llamad.sampling.constraint.multiples import multiples
from llamad.sampling.constraint.numbers import Bound, integers, numbers
from llamad.sampling.constraint.regex import parse_regex
from llamad.sampling.constraint.string_forms import FORM_PATTERNS, MAX_FORM_LENGTH

_END = Bound(Decimal(10) ** 18)  # of multiples without a bound of their own
_EXACT = 10**15  # integers up to here are themselves as float64, which those with a point become

# ---- strings --------------------------------------------------------------------------------


def string_characters(facts: Facts, notation: Json) -> Expression | None:
    """Return the characters of the strings that these facts accept; None: any."""
    forms = _forms(facts)
    if not forms:
        if facts.min_length == 0 and facts.max_length is None:
            return None
        if facts.max_length is not None and facts.max_length < facts.min_length:
            return NEVER
        return Repeat(notation.character(), facts.min_length, facts.max_length)
    is_plain = len(forms) == 1 and not without_look_aheads(forms[0][1])[1]
    if is_plain and not _length_matters(facts):
        place, pattern = forms[0]
        _parsed(place, pattern)
        return notation.kept(("pattern", pattern), lambda: parse_regex(pattern, notation.spelled))
    if is_plain and (some := _of_one_class(forms[0], facts, notation)) is not None:
        return some
    language = string_language(facts, notation)
    assert language is not None
    return written(language, notation.spelled)


def _of_one_class(form: tuple[Place, str], facts: Facts, notation: Json) -> Expression | None:
    """Return so many characters of one class, where the pattern says no more; else None."""
    part = _parsed(*form)
    if not isinstance(part, Repeat) or not isinstance(part.part, Bytes):
        return None
    least = max(part.least, facts.min_length)
    bounds = [most for most in (part.most, facts.max_length) if most is not None]
    if bounds and min(bounds) < least:
        return NEVER
    return Repeat(notation.spelled(part.part.ranges), least, min(bounds, default=None))


def string_language(facts: Facts, notation: Json) -> Language | None:
    """Return the strings that these facts accept, enum and const aside; None: any."""
    forms = _forms(facts)
    bounded = facts.min_length > 0 or facts.max_length is not None
    place = forms[0][0] if forms else ""
    try:
        languages = [_language(*form, notation) for form in forms]
        length = language_of(Repeat(ANY_CHARACTER, facts.min_length, facts.max_length))
        together = common_language([(one, True) for one in (*languages, length)])
    except TooManyStatesError:
        raise refused(
            place, f"patterns, formats and lengths together need more than {MAX_STATES} states"
        ) from None
    notation.count(place, len(together.rows))
    return together if forms or bounded else None


def _forms(facts: Facts) -> list[tuple[Place, str]]:
    """Return what patterns and formats say, as patterns."""
    named = [(place, f"^(?:{FORM_PATTERNS[name]})$") for place, name in facts.formats]
    return [*facts.patterns, *named]


def _length_matters(facts: Facts) -> bool:
    if facts.patterns:
        return facts.min_length > 0 or facts.max_length is not None
    return facts.min_length > 1 or (facts.max_length or MAX_FORM_LENGTH) < MAX_FORM_LENGTH


def _language(place: Place, pattern: str, notation: Json) -> Language:
    def made() -> Language:
        try:
            language = pattern_language(pattern)
        except LlamadError as error:
            raise _wrong_pattern(place, error) from None
        notation.count(place, len(language.rows))
        return language

    return notation.kept(("language", pattern), made)


def _parsed(place: Place, pattern: str) -> Expression:
    try:
        return parse_regex(pattern, one_of)
    except LlamadError as error:
        raise _wrong_pattern(place, error) from None


def _wrong_pattern(place: Place, error: LlamadError) -> LlamadError:
    return refused(place, error.message.removeprefix("pattern: "))


# ---- numbers --------------------------------------------------------------------------------


def number(facts: Facts, notation: Json) -> Expression:
    """Return the numbers that these facts accept. Multiples have at most 18 digits."""
    low, high = facts.low, facts.high
    if facts.multiples:
        return _multiples(facts, notation)
    if not facts.integer:
        return notation.number if low is None and high is None else numbers(low, high)
    return notation.integer if low is None and high is None else _integer(low, high)


def _multiples(facts: Facts, notation: Json) -> Expression:
    place = facts.multiples[0][0]
    if facts.integer and any(step % 1 for _, step in facts.multiples):
        raise refused(place, "must be an integer where the type is integer")
    low, high = higher(facts.low, Bound(-_END.value)), lower(facts.high, _END)
    within = _integer(low, high) if facts.integer else numbers(low, high)
    if within == NEVER:
        return NEVER
    try:
        languages = [
            language_of(within),
            *(_of_step(step, notation) for _, step in facts.multiples),
        ]
        together = common_language([(one, True) for one in languages])
    except TooManyStatesError:
        raise refused(
            place, f"needs more than {MAX_STATES} states: fewer with a minimum and a maximum"
        ) from None
    notation.count(place, len(together.rows))
    return written(together, one_of)


def _of_step(step: Decimal, notation: Json) -> Language:
    return notation.kept(("multiples", step), lambda: multiples(step))


def integers_of(facts: Facts, at_most: int) -> range | None:
    """Return the integers within the bounds of these facts; None: other numbers fit, or more."""
    least, most = _integer_bounds(facts.low, facts.high)
    if not facts.integer or least is None or most is None or most - least >= at_most:
        return None
    return range(least, most + 1)


def _integer_bounds(low: Bound | None, high: Bound | None) -> tuple[int | None, int | None]:
    least = most = None
    if low is not None:
        least = math.ceil(low.value)
        least += 1 if low.open and least == low.value else 0
    if high is not None:
        most = math.floor(high.value)
        most -= 1 if high.open and most == high.value else 0
    return least, most


def _integer(low: Bound | None, high: Bound | None) -> Expression:
    least, most = _integer_bounds(low, high)
    if least is not None and most is not None and most < least:
        return NEVER
    whole = integers(least, most)
    if all(abs(end) <= _EXACT for end in (least, most) if end is not None):
        return sequence(whole, optional(literal(".0")))
    low_exact = -_EXACT if least is None else max(least, -_EXACT)
    high_exact = _EXACT if most is None else min(most, _EXACT)
    if high_exact < low_exact:
        return whole
    return choice([whole, sequence(integers(low_exact, high_exact), literal(".0"))])


# ---- given values ---------------------------------------------------------------------------


def fits(value: object, facts: Facts, place: Place, notation: Json) -> bool:
    """Whether a value of ``enum`` or ``const`` is what the other keywords say."""
    match value:
        case bool():
            return "boolean" in facts.types
        case None:
            return "null" in facts.types
        case int() | float():
            return "number" in facts.types and _number_fits(value, facts)
        case str():
            return "string" in facts.types and _string_fits(value, facts, notation)
        case list():
            if "array" in facts.types and _has_array_facts(facts):
                raise refused(place, "an array among the values beside items is not supported")
            if facts.unique and len(unique(value)) < len(value):
                return False
            return "array" in facts.types and facts.min_items <= len(value) <= (
                len(value) if facts.max_items is None else facts.max_items
            )
    described = facts.properties or facts.required or facts.name_patterns
    if "object" in facts.types and (described or facts.others != () or facts.names != ()):
        raise refused(place, "an object among the values beside properties is not supported")
    assert isinstance(value, dict)
    return "object" in facts.types and facts.min_properties <= len(value) <= (
        len(value) if facts.max_properties is None else facts.max_properties
    )


def _has_array_facts(facts: Facts) -> bool:
    return bool(facts.prefix) or facts.items != ()


def _number_fits(value: float, facts: Facts) -> bool:
    if facts.integer and value != int(value):
        return False
    exact = Fraction(Decimal(repr(value)))
    if any((exact / Fraction(step)).denominator != 1 for _, step in facts.multiples):
        return False
    low, high = facts.low, facts.high
    above = low is None or value > low.value or (value == low.value and not low.open)
    return above and (high is None or value < high.value or (value == high.value and not high.open))


def _string_fits(value: str, facts: Facts, notation: Json) -> bool:
    if len(value) < facts.min_length:
        return False
    if facts.max_length is not None and len(value) > facts.max_length:
        return False
    forms = [FORM_PATTERNS[name] for _, name in facts.formats]
    if any(re.fullmatch(form, value) is None for form in forms):
        return False
    try:
        languages = [_language(*pattern, notation) for pattern in facts.patterns]
    except TooManyStatesError:
        raise refused(facts.patterns[0][0], "is too large beside enum or const") from None
    return all(language.accepts(value) for language in languages)
