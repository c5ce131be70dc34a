"""From a grammar to the pushdown automaton that the engine runs (native/src/constraint/).

Thompson's construction (1968) for what is regular; a rule is called, with a frame that says where
to go on behind it. A counted repetition and members in any order are rules of their own: their
frame has a memory, for the rounds or for the members seen.
"""

import itertools
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeGuard

from llamad.errors import ErrorKind, LlamadError
from llamad.sampling.constraint.expression import (
    NOTHING,
    AnyOrder,
    Bytes,
    Call,
    Choice,
    Expression,
    Grammar,
    Literal,
    Machine,
    Repeat,
    Sequence,
    Text,
    Until,
    sequence,
)
from llamad.sampling.constraint.nullable import (
    check_left_recursion,
    invalid,
    is_nullable,
    nullable_rules,
)
from llamad.sampling.constraint.search import Row, search_table

MAX_STATES = 1 << 18
MAX_ROUNDS = (1 << 31) - 1
MAX_EMPTY_ROUNDS = 64  # of a part that may be empty
UNROLLED_ROUNDS = 8  # of a short part, written out instead of counted
UNROLLED_PARTS = 4
FEW_PARTS = 8  # of a choice, each of which has states of its own
NO_LIMIT = 0xFFFFFFFF

_RUN = (Bytes, Literal)
EDGE = struct.Struct("=BBBxII")  # lld_edge
STATE_BYTES = 12  # about what the engine keeps of a state besides


class Kind(IntEnum):
    """What an edge does: lld_edge_kind of the engine's header."""

    BYTES = 0
    EMPTY = 1
    CALL = 2
    RETURN = 3
    BELOW = 4
    NEXT = 5
    TAKE = 6
    HAVE = 7
    LACK = 8
    END = 9


class TooLargeError(LlamadError):
    """The automaton would take more than it may."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.INVALID, "INVALID_GRAMMAR", "the grammar is too large")


@dataclass(slots=True)
class Automaton:
    """The edges of each state, as the engine takes them."""

    start: int
    edges: bytes  # lld_edge each, in the order of the states that they leave
    first_edge: "array[int]"  # (n_states + 1)
    bounds: "array[int]"  # (n_states)

    @property
    def n_states(self) -> int:
        """States in all."""
        return len(self.bounds)

    @property
    def n_bytes(self) -> int:
        """About what the engine's copy takes."""
        return len(self.edges) + STATE_BYTES * self.n_states


def compile_grammar(grammar: Grammar, most_bytes: int | None = None) -> Automaton:
    """Return the automaton of a grammar.

    most_bytes: that it may take. Raises INVALID_GRAMMAR for a rule that calls itself before it
    takes a byte, and for more than MAX_STATES; TooLargeError as soon as it takes more bytes.
    """
    try:
        nullable = nullable_rules(grammar)
        check_left_recursion(grammar, nullable)
        return _Builder(grammar, nullable, most_bytes).build()
    except RecursionError:
        raise invalid("the grammar is nested too deep") from None


class _Builder:
    """Makes the states; those of a rule when it is first called."""

    def __init__(self, grammar: Grammar, nullable: set[str], most_bytes: int | None) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._grammar = grammar
        self._nullable = nullable
        self._edges: list[bytes] = []  # of each state, lld_edge each
        self._bounds = array("I")  # of each state
        self._rules: dict[str, int] = {}  # where each begins
        self._pending: list[str] = []

    def build(self) -> Automaton:
        start = self._rule(self._grammar.start)
        while self._pending:
            name = self._pending.pop()
            end = self._state(0)
            self._edge(end, Kind.RETURN)
            self._emit(self._grammar.rules[name], self._rules[name], end, 0)
        ends = itertools.accumulate((len(e) // EDGE.size for e in self._edges), initial=0)
        return Automaton(start, b"".join(self._edges), array("I", ends), self._bounds)

    def _state(self, bound: int) -> int:
        return self._new_states([b""], bound)

    def _new_states(self, edges: list[bytes], bound: int) -> int:
        """Make a state for each of the edges; return the first."""
        first = len(self._edges)
        if first + len(edges) > MAX_STATES:
            raise invalid(f"the grammar is too large: more than {MAX_STATES} states")
        self._take(STATE_BYTES * len(edges))
        self._edges += edges
        self._bounds.extend([bound] * len(edges))
        return first

    def _edge(
        self,
        state: int,
        kind: Kind,
        target: int = 0,
        *,
        value: int = 0,
        low: int = 0,
        high: int = 0,
    ) -> None:
        self._take(EDGE.size)
        self._edges[state] += EDGE.pack(kind, low, high, target, value)

    def _take(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._most_bytes is not None and self._n_bytes > self._most_bytes:
            raise TooLargeError

    def _rule(self, name: str) -> int:
        if name not in self._rules:
            if name not in self._grammar.rules:
                raise invalid(f"rule {name!r} is called, but nowhere defined")
            self._rules[name] = self._state(0)
            self._pending.append(name)
        return self._rules[name]

    def _emit(self, part: Expression, start: int, end: int, bound: int) -> None:
        """Lead from start to end by what the part says; ``bound``: of the frame's loop.

        From a state that takes bytes no other edges lead: such a state is made for bytes alone.
        """
        match part:
            case Bytes() | Literal():
                self._emit_run([part], start, end, bound)
            case Sequence(parts):
                self._emit_sequence(parts, start, end, bound)
            case Choice(parts):
                self._emit_choice(parts, start, end, bound)
            case Repeat():
                self._emit_repeat(part, start, end, bound)
            case Call(rule):
                self._edge(start, Kind.CALL, self._rule(rule), value=end)
            case AnyOrder():
                self._emit_any_order(part, start, end)
            case Until():
                self._emit_search(part, start, end, bound)
            case Text():
                self._emit_text(part, start, end, bound)
            case Machine():
                self._emit_machine(part, start, end, bound)

    def _emit_run(self, parts: list[Bytes | Literal], start: int, end: int, bound: int) -> None:
        first = self._new_states([b""] * len(parts), bound)
        last = first + len(parts) - 1
        self._edge(start, Kind.EMPTY, first)
        for state, part in enumerate(parts, first):
            after = end if state == last else state + 1
            if isinstance(part, Literal):
                self._emit_literal(part.text, state, after, bound)
            else:
                for low, high in part.ranges:
                    self._edge(state, Kind.BYTES, after, low=low, high=high)

    def _emit_literal(self, text: bytes, start: int, end: int, bound: int) -> None:
        """Lead from start, which nothing else leaves, to end: most states are those of a text."""
        n = len(text) - 1
        first = len(self._edges)
        targets = (*range(first, first + n), end)
        edges = [EDGE.pack(Kind.BYTES, b, b, to, 0) for b, to in zip(text, targets, strict=True)]
        self._take(EDGE.size * len(edges))
        self._edges[start] = edges[0]
        self._new_states(edges[1:], bound)

    def _emit_sequence(
        self, parts: tuple[Expression, ...], start: int, end: int, bound: int
    ) -> None:
        if not parts:
            self._edge(start, Kind.EMPTY, end)
            return
        i = 0
        while i < len(parts):
            run: list[Bytes | Literal] = []
            for n in range(i, len(parts)):
                part = parts[n]
                if not _is_run(part):
                    break
                run.append(part)
            n = i + max(1, len(run))
            after = end if n == len(parts) else self._state(bound)
            if run:
                self._emit_run(run, start, after, bound)
            else:
                self._emit(parts[i], start, after, bound)
            start, i = after, n

    def _emit_choice(self, parts: tuple[Expression, ...], start: int, end: int, bound: int) -> None:
        """Lead from start to end by one of the parts; what many begin with alike is there once.

        Thousands of values would else be as many ways at once.
        """
        if len(parts) <= FEW_PARTS:
            for part in parts:
                self._emit(part, start, end, bound)
            return
        texts: list[tuple[bytes, Expression]] = []
        alike: dict[Expression, list[Expression]] = {}  # what follows each first part
        for part in parts:
            first, rest = _split(part)
            if isinstance(first, Literal):
                texts.append((first.text, rest))
            else:
                alike.setdefault(first, []).append(rest)
        if texts:
            self._emit_tree(texts, start, end, bound)
        for first, rests in alike.items():
            if len(rests) == 1:
                self._emit(sequence(first, rests[0]), start, end, bound)
                continue
            behind = self._state(bound)
            self._emit(first, start, behind, bound)
            self._emit_choice(tuple(dict.fromkeys(rests)), behind, end, bound)

    def _emit_tree(
        self, texts: list[tuple[bytes, Expression]], start: int, end: int, bound: int
    ) -> None:
        """Lead from start to end by texts, and what follows each."""
        children: list[dict[int, int]] = [{}]  # of each node
        behind: list[dict[Expression, None]] = [{}]  # what follows the texts that end in the node
        for text, rest in texts:
            node = 0
            for byte in text:
                if byte not in children[node]:
                    children[node][byte] = len(children)
                    children.append({})
                    behind.append({})
                node = children[node][byte]
            behind[node][rest] = None
        states = [end] * len(children)  # in which each node begins
        takes = [0] * len(children)  # where it takes bytes
        for node, (after, rests) in enumerate(zip(children, behind, strict=True)):
            if after or list(rests) != [NOTHING]:
                takes[node] = states[node] = self._state(bound)
            if after and rests:
                takes[node] = self._state(bound)
                self._edge(states[node], Kind.EMPTY, takes[node])
        self._edge(start, Kind.EMPTY, states[0])
        for node, (after, rests) in enumerate(zip(children, behind, strict=True)):
            for byte, to in after.items():
                self._edge(takes[node], Kind.BYTES, states[to], low=byte, high=byte)
            if states[node] != end and rests:
                self._emit_choice(tuple(rests), states[node], end, bound)

    def _emit_machine(self, part: Machine, start: int, end: int, bound: int) -> None:
        states = [self._state(bound) for _ in part.edges]
        self._edge(start, Kind.EMPTY, states[0])
        for state, edges in zip(states, part.edges, strict=True):
            for inner, to in edges:
                self._emit(inner, state, states[to], bound)
        for state in part.ends:
            self._edge(states[state], Kind.EMPTY, end)

    def _emit_repeat(self, part: Repeat, start: int, end: int, bound: int) -> None:
        inner, least, most = part.part, part.least, part.most
        if max(least, most or 0) > MAX_ROUNDS:
            raise invalid(f"a repetition of {max(least, most or 0)} times, at most {MAX_ROUNDS}")
        if is_nullable(inner, self._nullable):
            least = 0
            if most is not None and most > MAX_EMPTY_ROUNDS:
                raise invalid(
                    f"a part that may be empty is repeated up to {most} times, at most"
                    f" {MAX_EMPTY_ROUNDS}"
                )
        if most is not None and most < least:
            return
        if most is None and least <= 1:
            self._emit_loop(inner, start, end, bound, skips=least == 0)
        elif most is not None and most <= UNROLLED_ROUNDS and (most <= 1 or _is_short(inner)):
            self._emit_unrolled(inner, least, most, start, end, bound)
        else:
            self._emit_counted(inner, least, most, start, end)

    def _emit_loop(
        self, inner: Expression, start: int, end: int, bound: int, *, skips: bool
    ) -> None:
        again, done = self._state(bound), self._state(bound)
        self._edge(start, Kind.EMPTY, again)
        self._emit(inner, again, done, bound)
        self._edge(done, Kind.EMPTY, again)
        self._edge(done, Kind.EMPTY, end)
        if skips:
            self._edge(start, Kind.EMPTY, end)

    def _emit_unrolled(
        self, inner: Expression, least: int, most: int, start: int, end: int, bound: int
    ) -> None:
        for i in range(most):
            if i >= least:
                self._edge(start, Kind.EMPTY, end)
            after = end if i == most - 1 else self._state(bound)
            self._emit(inner, start, after, bound)
            start = after
        if most == 0:
            self._edge(start, Kind.EMPTY, end)

    def _emit_counted(
        self, inner: Expression, least: int, most: int | None, start: int, end: int
    ) -> None:
        bound = NO_LIMIT if most is None else most
        head, body, round_end = (self._state(bound) for _ in range(3))
        self._edge(start, Kind.CALL, head, value=end)
        if most is None:
            self._edge(head, Kind.EMPTY, body)
        else:
            self._edge(head, Kind.BELOW, body, value=most)
        self._edge(head, Kind.RETURN, value=least)
        self._emit(inner, body, round_end, bound)
        self._edge(round_end, Kind.NEXT, head, value=least if most is None else most)

    def _emit_search(self, part: Until, start: int, end: int, bound: int) -> None:
        table = search_table([*part.markers, *part.without])
        table = [[to for to in row if -1 - to[2] < len(part.markers)] for row in table]
        begins = [self._state(bound) for _ in table]
        self._edge(start, Kind.EMPTY, begins[0])
        if part.plain:
            table = [list(_without_controls(row)) for row in table]
        self._emit_table(table, begins, [end] * len(part.markers), bound)

    def _emit_text(self, part: Text, start: int, end: int, bound: int) -> None:
        marks = [*part.marks, *part.first]
        table = search_table([m for m, _ in part.marks], [m for m, _ in part.first])
        begins = [self._state(bound) for _ in table]
        self._edge(start, Kind.EMPTY, begins[0])
        for begin in begins:
            self._edge(begin, Kind.END)
        behind = [self._state(bound) for _ in marks]
        self._emit_table(table, begins, behind, bound)
        anywhere = begins[1 if part.first else 0]
        for i, (_, inner) in enumerate(marks):
            goes_on = i < len(part.marks) and not part.once
            self._emit(inner, behind[i], anywhere if goes_on else end, bound)

    def _emit_table(
        self, table: list[Row], begins: list[int], behind: list[int], bound: int
    ) -> None:
        """Lead from the states of a search by its table; behind: where each marker leads to."""
        for begin, row in zip(begins, table, strict=True):
            state = self._state(bound)
            self._edge(begin, Kind.EMPTY, state)
            for low, high, after in row:
                target = behind[-1 - after] if after < 0 else begins[after]
                self._edge(state, Kind.BYTES, target, low=low, high=high)

    def _emit_any_order(self, part: AnyOrder, start: int, end: int) -> None:
        """Call a rule whose frame has a bit for each member that was seen, and for each number.

        The bits of the numbers are taken one after the other: so many optional members were seen.
        """
        head, member, behind, more = (self._state(NO_LIMIT) for _ in range(4))
        self._edge(start, Kind.CALL, head, value=end)
        self._edge(head, Kind.EMPTY, member)
        if not part.required and part.least == 0:
            self._edge(head, Kind.RETURN)
        first = len(part.members)
        numbers = range(first, first + part.n_counted)
        optional = self._emit_counting(member, numbers, bounded=part.most is not None)
        room = behind  # where one more optional member may follow
        if part.most:
            room = self._state(NO_LIMIT)
            self._edge(behind, Kind.LACK, room, value=numbers[-1])
        for i, expression in enumerate(part.members):
            taken = self._state(NO_LIMIT)
            required = i in part.required
            self._edge(member if required else optional, Kind.TAKE, taken, value=i)
            self._emit(expression, taken, behind, NO_LIMIT)
            # behind the last member no separator may come
            if required:
                self._edge(behind, Kind.LACK, more, value=i)
            elif part.most != 0 and part.rest is None:
                self._edge(room, Kind.LACK, more, value=i)
        if part.rest is not None:
            self._emit(part.rest, optional, behind, NO_LIMIT)
            if part.most != 0:
                self._edge(room, Kind.EMPTY, more)
        self._emit(part.separator, more, member, NO_LIMIT)
        state = behind
        for i in (*sorted(part.required), *([numbers[part.least - 1]] if part.least else [])):
            after = self._state(NO_LIMIT)
            self._edge(state, Kind.HAVE, after, value=i)
            state = after
        self._edge(state, Kind.RETURN)

    def _emit_counting(self, state: int, numbers: range, *, bounded: bool) -> int:
        """Take the first free bit; return the state behind. With all taken: none, or the same."""
        if not numbers and not bounded:
            return state
        behind = self._state(NO_LIMIT)
        for i in numbers:
            free = self._state(NO_LIMIT)
            self._edge(state, Kind.LACK, free, value=i)
            self._edge(free, Kind.TAKE, behind, value=i)
            after = self._state(NO_LIMIT)
            self._edge(state, Kind.HAVE, after, value=i)
            state = after
        if not bounded:
            self._edge(state, Kind.EMPTY, behind)
        return behind


def _without_controls(row: Row) -> Iterator[tuple[int, int, int]]:
    """Yield what a row says, but for a control token that is no marker's beginning."""
    for low, high, after in row:
        if after != 0 or low < 0xFE:
            yield low, high if after != 0 else min(high, 0xFD), after


def _split(part: Expression) -> tuple[Expression, Expression]:
    """Return the first of a part's parts, and what is behind it."""
    if isinstance(part, Sequence) and part.parts:
        return part.parts[0], sequence(*part.parts[1:])
    return part, NOTHING


def _is_run(part: Expression) -> TypeGuard[Bytes | Literal]:
    return isinstance(part, _RUN)


def _is_short(part: Expression) -> bool:
    match part:
        case Bytes():
            return True
        case Literal(text):
            return len(text) <= UNROLLED_PARTS
        case Sequence(parts) | Choice(parts):
            return len(parts) <= UNROLLED_PARTS and all(isinstance(p, Bytes) for p in parts)
    return False
