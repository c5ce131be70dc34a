"""Sets of texts as deterministic automata: what two patterns both take, what neither takes.

For what a regular expression alone cannot say: a pattern beside a length, names that no pattern
takes, multiples of a number within bounds. An automaton is over code points, and as large as
MAX_STATES; ``written`` makes a part of a grammar of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

from llamad.sampling.constraint.expression import (
    MAX_CODE_POINT,
    NEVER,
    Bytes,
    Choice,
    Expression,
    Literal,
    Machine,
    Range,
    Repeat,
    choice,
    sequence,
)
from llamad.sampling.constraint.expression import Sequence as Parts
from llamad.sampling.constraint.look_ahead import without_look_aheads
from llamad.sampling.constraint.regex import parse_regex

MAX_STATES = 4096
_MAX_POSITIONS = 4 * MAX_STATES  # of an expression
_MAX_STEPS = 64 * MAX_STATES  # edges that are looked at

Key = TypeVar("Key")
Row: TypeAlias = tuple[tuple[int, int, int], ...]  # first and last code point, state behind them


class TooManyStatesError(Exception):
    """A language needs more than MAX_STATES states, or takes too long to find."""


@dataclass(frozen=True, slots=True)
class Language:
    """A text is in it when the rows lead from state 0 to an end. Each state leads to one."""

    rows: tuple[Row, ...]
    ends: frozenset[int]

    def accepts(self, text: str) -> bool:
        """Whether a text is in it."""
        state = 0
        for character in text:
            after = [to for a, b, to in self.rows[state] if a <= ord(character) <= b]
            if not after:
                return False
            state = after[0]
        return state in self.ends


def one_of(ranges: Iterable[Range]) -> Expression:
    """Return one character, as the expressions of this module have it."""
    return Bytes(tuple(ranges))


ANY_CHARACTER = one_of([(0, MAX_CODE_POINT)])


def one_text(text: str) -> Expression:
    """Return exactly this text."""
    return sequence(*(one_of([(ord(c), ord(c))]) for c in text))


def texts(given: Iterable[str]) -> Language:
    """Return the language of these texts."""
    return language_of(choice(map(one_text, given)))


def pattern_language(pattern: str) -> Language:
    """Return the texts that a pattern matches. Raises INVALID_GRAMMAR."""
    rest, ahead = without_look_aheads(pattern)
    language = language_of(parse_regex(rest, one_of))
    if not ahead:
        return language
    others = [(language_of(parse_regex(one, one_of)), wanted) for one, wanted in ahead]
    return common_language([(language, True), *others])


def language_of(part: Expression) -> Language:
    """Return the language of an expression without rules; its ``Bytes`` are characters."""
    positions = _Positions()
    start, end = positions.new(), positions.new()
    positions.lead(part, start, end)
    first = positions.closed([start])
    numbers = {first: 0}
    pending = [first]
    rows: list[Row] = []
    n_steps = 0
    for group in pending:
        edges = [edge for position in sorted(group) for edge in positions.edges[position]]
        n_steps = _counted(n_steps, len(group) + len(edges))
        row = []
        for low, high, targets in _split(edges):
            behind = positions.closed(targets)
            row.append((low, high, _number(numbers, pending, behind)))
        rows.append(tuple(row))
    return _language(rows, {numbers[group] for group in pending if end in group})


def common_language(parts: Sequence[tuple[Language, bool]]) -> Language:
    """Return the texts that are in each language, or are not in it where that is wanted."""
    numbers = {(0,) * len(parts): 0}
    pending = list(numbers)
    rows: list[Row] = []
    ends = set()
    n_steps = 0
    for group in pending:
        edges = [(0, MAX_CODE_POINT, (-1, -1))]
        for i, state in enumerate(group):
            row = parts[i][0].rows[state] if state >= 0 else ()
            edges += [(low, high, (i, to)) for low, high, to in row]
        n_steps = _counted(n_steps, len(edges))
        made = []
        for low, high, found in _split(edges):
            to = dict(found)
            after = tuple(to.get(i, -1) for i in range(len(parts)))
            if any(after[i] < 0 and wanted for i, (_, wanted) in enumerate(parts)):
                continue
            made.append((low, high, _number(numbers, pending, after)))
        rows.append(tuple(made))
        if all((s in one.ends) == wanted for s, (one, wanted) in zip(group, parts, strict=True)):
            ends.add(numbers[group])
    return _language(rows, ends)


def written(language: Language, spell: Callable[[list[Range]], Expression]) -> Expression:
    """Return the part of a grammar. spell: makes one character; NEVER: it cannot be written."""
    edges: list[list[tuple[Expression, int]]] = []
    for row in language.rows:
        ranges: dict[int, list[Range]] = {}
        for low, high, to in row:
            ranges.setdefault(to, []).append((low, high))
        spelled = [(spell(some), to) for to, some in ranges.items()]
        edges.append([(part, to) for part, to in spelled if part != NEVER])
    useful = _leading_to(language.ends, [[to for _, to in row] for row in edges])
    if 0 not in useful:
        return NEVER
    kept = (tuple(edge for edge in row if edge[1] in useful) for row in edges)
    return Machine(tuple(kept), language.ends)


def smallest(rows: Sequence[Row], ends: set[int]) -> Language:
    """Return the language with as few states as it can have (Moore, 1956).

    States that differ only by how long their texts may be take a round each.
    """
    useful = _leading_to(ends, [[to for _, _, to in row] for row in rows])
    classes = [int(state in ends) for state in range(len(rows))]
    n_classes = 0
    while len(set(classes)) != n_classes:
        n_classes = len(set(classes))
        numbers: dict[tuple[int, Row], int] = {}
        rounds = [(classes[i], _merged(row, classes, useful)) for i, row in enumerate(rows)]
        classes = [numbers.setdefault(one, len(numbers)) for one in rounds]
    return _language(rows, ends, classes)


def _language(
    rows: Sequence[Row], ends: set[int], classes: Sequence[int] | None = None
) -> Language:
    """Return the language of states, without those that lead to no end; of a class there is one."""
    useful = _leading_to(ends, [[to for _, _, to in row] for row in rows])
    if 0 not in useful:
        return Language(((),), frozenset())
    own = range(len(rows)) if classes is None else classes
    first = {group: state for state, group in reversed(list(enumerate(own)))}
    numbers = {own[0]: 0}
    pending = [own[0]]
    made = []
    for group in pending:
        row = _merged(rows[first[group]], own, useful)
        made.append(tuple((a, b, _number(numbers, pending, to)) for a, b, to in row))
    final = (number for number, group in enumerate(pending) if first[group] in ends)
    return Language(tuple(made), frozenset(final))


def _merged(row: Row, classes: Sequence[int], useful: set[int]) -> Row:
    """Return a row between classes, without states that lead to no end."""
    merged: list[tuple[int, int, int]] = []
    for low, high, to in row:
        if to not in useful:
            continue
        if merged and merged[-1][1] == low - 1 and merged[-1][2] == classes[to]:
            low = merged.pop()[0]
        merged.append((low, high, classes[to]))
    return tuple(merged)


def _leading_to(ends: Iterable[int], targets: Sequence[Iterable[int]]) -> set[int]:
    """Return the states from which an end can be reached."""
    sources: dict[int, list[int]] = {}
    for state, behind in enumerate(targets):
        for to in behind:
            sources.setdefault(to, []).append(state)
    useful, pending = set(ends), list(ends)
    while pending:
        for source in sources.get(pending.pop(), ()):
            if source not in useful:
                useful.add(source)
                pending.append(source)
    return useful


def _counted(n_steps: int, more: int) -> int:
    if n_steps + more > _MAX_STEPS:
        raise TooManyStatesError
    return n_steps + more


def _number(numbers: dict[Any, int], pending: list[Any], key: Any) -> int:
    """Return the number of a state, a new one if it was not met."""
    if key not in numbers:
        if len(pending) >= MAX_STATES:
            raise TooManyStatesError
        numbers[key] = len(numbers)
        pending.append(key)
    return numbers[key]


def _split(edges: Sequence[tuple[int, int, Key]]) -> Iterator[tuple[int, int, list[Key]]]:
    """Yield ranges that do not overlap, and the keys of all edges that lie over each."""
    changes: dict[int, list[tuple[bool, int]]] = {}
    for i, (low, high, _) in enumerate(edges):
        changes.setdefault(low, []).append((True, i))
        changes.setdefault(high + 1, []).append((False, i))
    over: dict[int, None] = {}
    for place, behind in pairwise(sorted(changes)):
        for begins, i in changes[place]:
            if begins:
                over[i] = None
            else:
                del over[i]
        if over:
            yield place, behind - 1, [edges[i][2] for i in over]


class _Positions:
    """Places within an expression, and what leads from one to another (Thompson, 1968)."""

    def __init__(self) -> None:
        self.edges: list[list[tuple[int, int, int]]] = []
        self._empty: list[list[int]] = []

    def new(self) -> int:
        if len(self.edges) >= _MAX_POSITIONS:
            raise TooManyStatesError
        self.edges.append([])
        self._empty.append([])
        return len(self.edges) - 1

    def closed(self, positions: Iterable[int]) -> frozenset[int]:
        """Return the positions, and those that no character leads to from them."""
        found, pending = set(positions), list(positions)
        while pending:
            for to in self._empty[pending.pop()]:
                if to not in found:
                    found.add(to)
                    pending.append(to)
        return frozenset(found)

    def lead(self, part: Expression, start: int, end: int) -> None:
        """Lead from start to end by what the part says."""
        match part:
            case Bytes(ranges):
                self.edges[start] += [(low, high, end) for low, high in ranges]
            case Literal(text):
                self.lead(one_text(text.decode("utf-8")), start, end)
            case Parts(parts):
                for inner in parts:
                    behind = self.new()
                    self.lead(inner, start, behind)
                    start = behind
                self._empty[start].append(end)
            case Choice(parts):
                for inner in parts:
                    self.lead(inner, start, end)
            case Repeat(inner, least, most):
                self._repeat(inner, least, most, start, end)
            case _:
                raise TypeError(part)

    def _repeat(
        self, inner: Expression, least: int, most: int | None, start: int, end: int
    ) -> None:
        if most is not None and most < least:
            return
        for i in range(least if most is None else most):
            if i >= least:
                self._empty[start].append(end)
            behind = self.new()
            self.lead(inner, start, behind)
            start = behind
        if most is None:
            again = self.new()
            self._empty[start].append(again)
            behind = self.new()
            self.lead(inner, again, behind)
            self._empty[behind].append(again)
            start = again
        self._empty[start].append(end)
