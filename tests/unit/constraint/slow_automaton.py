"""The automaton of a grammar, run by the book: every way of it, byte by byte, with whole stacks.

Independent of native/src/constraint/: no numbers for states, no trie, nothing kept.
"""

from itertools import pairwise

from llamad.sampling.constraint.automaton import EDGE, Automaton, Kind

Frame = tuple[int, int]  # where a return leads to, memory
Way = tuple[int, tuple[Frame, ...]]
DEPTH = 200  # frames; the tests nest less


class SlowAutomaton:
    """Where a text is in its grammar."""

    def __init__(self, automaton: Automaton) -> None:
        edges = list(EDGE.iter_unpack(automaton.edges))
        first = automaton.first_edge
        self._edges = [edges[a:b] for a, b in pairwise(first)]
        self.start = self._closed({(automaton.start, ())})

    def step(self, ways: frozenset[Way | None], byte: int) -> frozenset[Way | None]:
        """Return the ways after one more byte; None among them: the text may end there."""
        after = set()
        for way in ways:
            if way is None:
                continue
            for kind, low, high, target, _ in self._edges[way[0]]:
                if kind == Kind.BYTES and low <= byte <= high:
                    after.add((target, way[1]))
        return self._closed(after)

    def after(self, ways: frozenset[Way | None], text: bytes) -> frozenset[Way | None]:
        """Return the ways after a text."""
        for byte in text:
            ways = self.step(ways, byte)
        return ways

    def accepts(self, text: bytes) -> bool:
        """Whether the whole text is in the grammar."""
        return None in self.after(self.start, text)

    def _closed(self, ways: set[Way]) -> frozenset[Way | None]:
        pending, seen = list(ways), set(ways)
        ends = False
        while pending:
            state, stack = pending.pop()
            for kind, _, _, target, value in self._edges[state]:
                if kind == Kind.RETURN and not stack:
                    ends = True
                    continue
                if kind == Kind.END:
                    ends = True
                for way in self._follow(Kind(kind), target, value, stack):
                    if way not in seen and len(way[1]) < DEPTH:
                        seen.add(way)
                        pending.append(way)
        return frozenset(seen) | ({None} if ends else set())

    def _follow(self, kind: Kind, target: int, value: int, stack: tuple[Frame, ...]) -> list[Way]:
        match kind:
            case Kind.EMPTY:
                return [(target, stack)]
            case Kind.CALL:
                return [(target, (*stack, (value, 0)))]
            case Kind.BYTES | Kind.END:
                return []
        to, memory = stack[-1]
        match kind:
            case Kind.RETURN:
                return [(to, stack[:-1])] if memory >= value else []
            case Kind.BELOW:
                return [(target, stack)] if memory < value else []
            case Kind.NEXT:
                return [(target, (*stack[:-1], (to, min(memory + 1, max(memory, value)))))]
            case Kind.TAKE if not memory >> value & 1:
                return [(target, (*stack[:-1], (to, memory | 1 << value)))]
            case Kind.HAVE if memory >> value & 1:
                return [(target, stack)]
            case Kind.LACK if not memory >> value & 1:
                return [(target, stack)]
        return []
