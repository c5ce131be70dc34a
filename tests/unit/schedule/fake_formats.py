"""Formats of answers for the fake engine, whose tokens are bytes: by the slow automaton."""

from collections.abc import Sequence

from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.formats import format_grammar
from llamad.sampling.response_format import ResponseFormat
from unit.constraint.slow_automaton import SlowAutomaton
from unit.schedule.fake_engine import END


class FakeConstraint:
    """Where an answer is in its grammar, by the book."""

    def __init__(self, automaton: SlowAutomaton, tokens: Sequence[int]) -> None:
        self._automaton = automaton
        self._ways = automaton.after(automaton.start, bytes(tokens))

    def accept(self, token: int) -> None:
        if token != END:
            self._ways = self._automaton.step(self._ways, token)
            assert self._ways

    def allowed(self) -> list[int]:
        return [i for i in range(256) if (self.accepts if i == END else self._after(i))]

    def _after(self, token: int) -> bool:
        return bool(self._automaton.step(self._ways, token))

    @property
    def accepts(self) -> bool:
        return None in self._ways

    @property
    def complete(self) -> bool:
        return self.allowed() == [END]

    def forced_tokens(self, limit: int) -> tuple[int, ...]:
        ways, tokens = self._ways, list[int]()
        while len(tokens) < limit and None not in ways:
            following = [i for i in range(1, 256) if self._automaton.step(ways, i)]
            if len(following) != 1:
                break
            tokens += following
            ways = self._automaton.step(ways, following[0])
        return tuple(tokens)


class FakeFormats:
    """Formats, of which ``kept`` are not forgotten."""

    def __init__(self) -> None:
        self.kept: dict[tuple[ResponseFormat, bool], SlowAutomaton] = {}
        self.n_compiled = 0

    def find(
        self, wanted: ResponseFormat, prompt: Sequence[int], *, is_chat: bool
    ) -> SlowAutomaton | None:
        return self.kept.get((wanted, is_chat))

    def compile(
        self, wanted: ResponseFormat, prompt: Sequence[int], *, is_chat: bool
    ) -> SlowAutomaton:
        self.n_compiled += 1
        found = SlowAutomaton(compile_grammar(format_grammar(wanted)))
        self.kept[wanted, is_chat] = found
        return found

    def constraint(self, grammar: SlowAutomaton, tokens: Sequence[int]) -> FakeConstraint:
        return FakeConstraint(grammar, tokens)
