"""Formats of answers for the fake engine, whose tokens are bytes: by the slow automaton."""

from collections.abc import Sequence

from llamad.jobs.request import GenerationRequest
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.formats import Thoughts, behind_thoughts, format_grammar
from llamad.sampling.response_format import ResponseFormat
from llamad.service.tool_grammar import ToolRules, answer_with_tools
from llamad.text.tools.formats import HERMES
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
        self.kept: dict[tuple[ResponseFormat | None, ToolRules | None], SlowAutomaton] = {}
        self.thoughts: tuple[tuple[str, str], ...] = ()  # marks around them
        self.n_compiled = 0

    def find(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> SlowAutomaton | None:
        return self.kept.get((request.response_format, ToolRules.of(request)))

    def compile(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> SlowAutomaton:
        self.n_compiled += 1
        wanted, rules = request.response_format, ToolRules.of(request)
        answer = None if wanted is None else format_grammar(wanted)
        if rules is not None:
            answer = answer_with_tools(rules, HERMES, (), answer=answer)
        assert answer is not None
        answer = behind_thoughts(answer, Thoughts(pairs=self.thoughts))
        found = SlowAutomaton(compile_grammar(answer))
        self.kept[wanted, rules] = found
        return found

    def constraint(self, grammar: SlowAutomaton, tokens: Sequence[int]) -> FakeConstraint:
        return FakeConstraint(grammar, tokens)
