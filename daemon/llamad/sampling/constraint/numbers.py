"""Numbers between two bounds, as decimal digits, without an exponent.

Digits end: a small model goes on with zeros as long as it may. 17 behind the point hold every
float64 of a common size.
"""

from dataclasses import dataclass
from decimal import Decimal

from llamad.sampling.constraint.expression import (
    NEVER,
    NOTHING,
    Bytes,
    Expression,
    Repeat,
    choice,
    literal,
    sequence,
)

MAX_WHOLE_DIGITS = 64  # JSON-Schema-Test-Suite wants integers of 53
MAX_FRACTION_DIGITS = 17

_BEYOND = 10**MAX_WHOLE_DIGITS  # the first integer that is not written

_DIGIT = Bytes(((0x30, 0x39),))
_ZERO = Bytes(((0x30, 0x30),))
_NOT_ZERO = Bytes(((0x31, 0x39),))


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that others are above or below of; ``open``: itself not included."""

    value: Decimal
    open: bool = False


def integers(least: int | None, most: int | None) -> Expression:
    """Return the integers from least to most; None: no limit."""
    parts: list[Expression] = []
    least = None if least is not None and least <= -_BEYOND else least
    most = None if most is not None and most >= _BEYOND else most
    if most is None or most >= 0:
        parts.append(_naturals(max(0, least or 0), most))
    if least is None or least < 0:
        low = 1 if most is None or most >= 0 else -most
        if most is not None and most < 0:
            parts.append(
                sequence(literal("-"), _naturals(-most, None if least is None else -least))
            )
        else:
            parts.append(sequence(literal("-"), _naturals(low, None if least is None else -least)))
    return choice(parts)


def numbers(low: Bound | None, high: Bound | None) -> Expression:
    """Return the numbers between two bounds, with or without a fraction."""
    parts: list[Expression] = []
    low = None if low is not None and low.value <= -_BEYOND else low
    high = None if high is not None and high.value >= _BEYOND else high
    if high is None or high.value >= 0:
        above = low if low is not None and low.value >= 0 else None
        parts.append(_magnitudes(above, high))
    if low is None or low.value <= 0:
        nearest = None if high is None or high.value > 0 else Bound(-high.value, high.open)
        furthest = None if low is None else Bound(-low.value, low.open)
        parts.append(sequence(literal("-"), _magnitudes(nearest, furthest)))
    return choice(parts)


def _naturals(least: int, most: int | None) -> Expression:
    """Return the integers from least >= 0 to most, without zeros in front."""
    if most is not None and most < least:
        return NEVER
    parts: list[Expression] = []
    n_digits = len(str(least))
    while most is None or n_digits <= len(str(most)):
        first = max(least, 10 ** (n_digits - 1) if n_digits > 1 else 0)
        last = 10**n_digits - 1 if most is None else min(most, 10**n_digits - 1)
        if most is None and first == 10 ** (n_digits - 1) and n_digits > 1:
            most_digits = max(n_digits, MAX_WHOLE_DIGITS)
            parts.append(sequence(_NOT_ZERO, Repeat(_DIGIT, n_digits - 1, most_digits - 1)))
            break
        parts.append(_digits(str(first), str(last)))
        n_digits += 1
    return choice(parts)


def _digits(first: str, last: str) -> Expression:
    """Return the numbers between two of the same length."""
    if not first:
        return NOTHING
    n = len(first) - 1
    if set(first) == {"0"} and set(last) == {"9"}:
        return Repeat(_DIGIT, n + 1, n + 1)
    if first[0] == last[0]:
        return sequence(literal(first[0]), _digits(first[1:], last[1:]))
    parts: list[Expression] = []
    low, high = int(first[0]), int(last[0])
    if first[1:] != "0" * n:
        parts.append(sequence(literal(first[0]), _digits(first[1:], "9" * n)))
        low += 1
    if last[1:] != "9" * n:
        parts.append(sequence(literal(last[0]), _digits("0" * n, last[1:])))
        high -= 1
    if low <= high:
        parts.append(sequence(Bytes(((0x30 + low, 0x30 + high),)), Repeat(_DIGIT, n, n)))
    return choice(parts)


_Limit = tuple[str, bool] | None  # digits behind the point, and whether it is open


def _magnitudes(low: Bound | None, high: Bound | None) -> Expression:
    """Return the numbers between two bounds >= 0."""
    low = low or Bound(Decimal(0))
    first, low_digits = _split(low.value)
    if high is None:
        whole = _naturals(first + 1, None)
        return choice([_with(first, _fraction((low_digits, low.open), None)), _any(whole)])
    last, high_digits = _split(high.value)
    if last < first:
        return NEVER
    low_limit, high_limit = (low_digits, low.open), (high_digits, high.open)
    if first == last:
        return _with(first, _fraction(low_limit, high_limit))
    return choice([
        _with(first, _fraction(low_limit, None)),
        _any(_naturals(first + 1, last - 1)),
        _with(last, _fraction(None, high_limit)),
    ])  # fmt: skip


def _split(value: Decimal) -> tuple[int, str]:
    whole, _, digits = f"{value:f}".partition(".")
    return int(whole), digits.rstrip("0")


def _any(whole: Expression) -> Expression:
    if whole == NEVER:
        return NEVER
    fraction = sequence(literal("."), Repeat(_DIGIT, 1, MAX_FRACTION_DIGITS))
    return sequence(whole, Repeat(fraction, 0, 1))


def _with(whole: int, fraction: tuple[bool, Expression]) -> Expression:
    """Return an integer with what may stand behind its point: nothing, or digits."""
    bare, digits = fraction
    parts: list[Expression] = [literal(str(whole))] if bare else []
    if digits != NEVER:
        parts.append(sequence(literal(f"{whole}."), digits))
    return choice(parts)


def _fraction(low: _Limit, high: _Limit) -> tuple[bool, Expression]:
    """Return whether no fraction at all is between the limits, and the digits that are."""
    return _zero_fits(low, high), _next_digit(low, high)


def _zero_fits(low: _Limit, high: _Limit) -> bool:
    above = low is None or (not low[0] and not low[1])
    return above and not (high is not None and not high[0] and high[1])


def _next_digit(low: _Limit, high: _Limit) -> Expression:
    """Return the digits, one at least, that lie between the limits as a fraction."""
    if low is not None and not low[0] and not low[1]:
        low = None
    if low is None and high is None:
        return Repeat(_DIGIT, 1, MAX_FRACTION_DIGITS)
    if high is not None and not high[0]:
        return NEVER if high[1] or low is not None else Repeat(_ZERO, 1, MAX_FRACTION_DIGITS)
    if low is not None and not low[0] and high is None:
        zeros = Repeat(_ZERO, 0, MAX_FRACTION_DIGITS)
        return sequence(zeros, _NOT_ZERO, Repeat(_DIGIT, 0, MAX_FRACTION_DIGITS))
    parts: list[Expression] = []
    for digit in range(10):
        above, fits = _after(low, digit, below=False)
        below, also = _after(high, digit, below=True)
        if not (fits and also):
            continue
        rest: list[Expression] = [NOTHING] if _zero_fits(above, below) else []
        following = _next_digit(above, below)
        rest += [following] if following != NEVER else []
        if rest:
            parts.append(sequence(literal(str(digit)), choice(rest)))
    return choice(parts)


def _after(limit: _Limit, digit: int, *, below: bool) -> tuple[_Limit, bool]:
    """Return what of a limit is left behind a digit, and whether the digit is inside of it."""
    if limit is None:
        return None, True
    own = int(limit[0][:1] or "0")
    if digit == own:
        return (limit[0][1:], limit[1]), True
    return None, digit < own if below else digit > own
