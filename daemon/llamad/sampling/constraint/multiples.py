"""The multiples of a number, as decimal digits."""

from decimal import Decimal

from llamad.sampling.constraint.languages import (
    MAX_STATES,
    Language,
    Row,
    TooManyStatesError,
    smallest,
)

_ZERO = ord("0")


def multiples(step: Decimal) -> Language:
    """Return the decimals without an exponent that are multiples of a step above 0.

    Signs, zeros in front and a missing digit behind the point are not looked at: the range of the
    numbers says that (numbers.py). A state is the remainder of the digits so far.
    """
    _, _, exponent = step.normalize().as_tuple()
    assert isinstance(exponent, int)
    n_places = max(0, -exponent)  # behind the point
    units = int(step.scaleb(n_places))
    if units * (n_places + 2) > MAX_STATES:
        raise TooManyStatesError
    rows: list[Row] = []
    ends = set()
    for i in range(-1, n_places + 1):  # digits behind the point; -1: no point yet
        for rest in range(units):
            state = len(rows)
            if rest * 10 ** (n_places - max(i, 0)) % units == 0:
                ends.add(state)
            if i == n_places:
                rows.append(((_ZERO, _ZERO, state),))
                continue
            base = units * (i + 2 if i >= 0 else 0)
            after = [(_ZERO + d, _ZERO + d, base + (rest * 10 + d) % units) for d in range(10)]
            others = [(ord("-"), ord("-"), state), (ord("."), ord("."), units + rest)]
            rows.append((*(others if i < 0 else []), *after))
    return smallest(rows, ends)
