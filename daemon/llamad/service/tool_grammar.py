"""The grammar of an answer that may call tools.

Behind a mark that begins calls there is nothing but calls, as the readers of text/tools take them.
A call names a tool of the request, and its arguments are what the tool's schema accepts. An object
of a schema has no other members than it names, unless it says that it does. Of a tool that is not
``strict`` the keywords that are not supported are not held to, and where a schema is wrong its
names alone are.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from llamad.errors import LlamadError
from llamad.jobs.request import GenerationRequest, Tool, ToolUse
from llamad.sampling.constraint.call_texts import GemmaText, JsonInTags, PythonText, RawText
from llamad.sampling.constraint.closed_schema import closed
from llamad.sampling.constraint.expression import (
    NOTHING,
    Call,
    Expression,
    Grammar,
    Repeat,
    Text,
    Until,
    choice,
    literal,
    sequence,
    these_bytes,
)
from llamad.sampling.constraint.facts import Facts, member, refused
from llamad.sampling.constraint.formats import control_token
from llamad.sampling.constraint.json_schema import SchemaRules, member_names
from llamad.sampling.constraint.json_text import Json
from llamad.sampling.constraint.productive import without_dead_ends
from llamad.sampling.constraint.scalars import string_characters
from llamad.sampling.constraint.schema_facts import Document
from llamad.text.tools.call import takes_text
from llamad.text.tools.formats import ToolFormat
from llamad.text.tools.syntax import CallSyntax, Notation
from llamad.text.tools.tagged_calls import NEVER_IN_VALUE, PARAMETER, PARAMETER_END

_NO_ARGUMENTS = {"type": "object", "properties": {}}


class _JsonOfCall(Json):
    prefix = "call "


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What calls an answer may make."""

    tools: tuple[Tool, ...]
    required: bool = False  # the answer is calls
    several: bool = True

    @staticmethod
    def of(request: GenerationRequest) -> "ToolRules | None":
        """Return those of a request; None: it offers no tools."""
        if not request.offers_tools:
            return None
        tools = tuple(replace(tool, description="") for tool in request.callable_tools)
        return ToolRules(tools, request.tool_use is ToolUse.REQUIRED, request.parallel_tool_calls)


class Marks:
    """How a vocabulary spells the marks of calls: one control token each, where it has that."""

    def __init__(self, controls: Collection[str], ends: Collection[str]) -> None:
        """Begin; controls: the marks that are control tokens. ends: of them, what ends answers."""
        self._ends = frozenset(ends)
        longest_first = sorted(controls, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def spelled(self, text: str) -> bytes:
        """Return a text with the control tokens that are in it."""
        result, at = b"", 0
        for found in self._controls.finditer(text):
            result += text[at : found.start()].encode()
            result += b"" if found[0] in self._ends else control_token(found[0].encode())
            at = found.end()
        return result + text[at:].encode()

    def spellings(self, text: str) -> tuple[bytes, ...]:
        """Return a mark as control tokens and as text."""
        return tuple(dict.fromkeys((self.spelled(text), text.encode())))


class _Values:
    """The notations of a grammar, each made once, for what tools have in common."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._made: dict[tuple[Notation, str], Json] = {}

    def notation(self, syntax: CallSyntax) -> Json:
        """Return how the values of a syntax are written."""
        key = syntax.notation, syntax.quote
        if key not in self._made:
            self._made[key] = self._new(syntax)
        return self._made[key]

    def _new(self, syntax: CallSyntax) -> Json:
        match syntax.notation:
            case Notation.JSON:
                return _JsonOfCall()
            case Notation.GEMMA:
                return GemmaText(self._marks.spellings(syntax.quote))
            case Notation.PYTHON:
                return PythonText()
            case Notation.TAGS:
                return JsonInTags()


def answer_with_tools(
    rules: ToolRules,
    row: ToolFormat,
    controls: Collection[str],
    ends: Collection[str] = (),
    opened: str = "",
    answer: Grammar | None = None,
) -> Grammar:
    """Return the grammar of an answer.

    controls: of the row's marks those that are control tokens; ends: of them, those that end an
    answer, and so are no part of it. opened: the mark that the prompt
    ends with. answer: what one without calls must be; None: any text. Raises INVALID_SCHEMA with
    tool, place and keyword for a strict tool.
    """
    calls = _Calls(rules, row, Marks(controls, ends))
    if rules.required or answer is not None:
        start = calls.nothing_else(opened)
        if answer is not None and not rules.required:
            start = choice([start, Call(answer.start)])
    else:
        start = calls.in_text(opened)
    others = {} if answer is None else answer.rules
    return Grammar({**others, **calls.rules, "answer with tools": start}, "answer with tools")


class _Calls:
    """The parts of such a grammar."""

    def __init__(self, rules: ToolRules, row: ToolFormat, marks: Marks) -> None:
        self._several = rules.several
        self._row = row
        self._marks = marks
        self.rules: dict[str, Expression] = {}
        values = _Values(marks)
        self._tools = [_Arguments(i, tool, values) for i, tool in enumerate(rules.tools)]
        self._syntaxes: dict[str, list[CallSyntax]] = {}
        for mark, those in groupby(row.syntaxes, key=lambda syntax: syntax.mark):
            self._syntaxes[mark] = self._usable(list(those))

    def _usable(self, syntaxes: list[CallSyntax]) -> list[CallSyntax]:
        """Return the syntaxes behind a mark that can write all tools, spare ones if none can."""
        able = [
            syntax
            for syntax in syntaxes
            if all(syntax.notation.can_write(t.name, t.parameters) for t in self._tools)
        ]
        return [syntax for syntax in able if not syntax.is_spare] or able

    def nothing_else(self, opened: str) -> Expression:
        """Return an answer that is calls. opened: as of ``answer_with_tools``."""
        mark = self._row.syntaxes[0].mark
        begin = NOTHING if opened else these_bytes(self._marks.spelled(mark))
        return sequence(begin, self._behind(mark, several=self._several))

    def in_text(self, opened: str) -> Expression:
        """Return any text with calls in it."""
        marks: list[tuple[bytes, Expression]] = []
        first: list[tuple[bytes, Expression]] = []
        for mark, syntaxes in self._syntaxes.items():
            in_answer = all(syntax.is_answer for syntax in syntaxes)
            # a list of calls has an end; others begin with the mark again
            lists = [bool(syntax.close) or syntax.is_answer for syntax in syntaxes]
            behind = self._behind(mark, several=self._several and any(lists))
            if self._row.text_name:
                behind = choice([behind, literal(self._row.text_name)])
            for spelling in self._marks.spellings(mark):
                (first if in_answer else marks).append((spelling, behind))
        self.rules["text with calls"] = Text(tuple(marks), tuple(first), once=not self._several)
        text = Call("text with calls")
        if not opened:
            return text
        then = sequence(self._behind(opened, several=False), text if self._several else NOTHING)
        name = self._row.text_name
        return choice([then, *([sequence(literal(name), text)] if name else [])])

    def _behind(self, mark: str, *, several: bool) -> Expression:
        """Return calls up to their end, whose mark is behind us."""
        return choice(
            sequence(self._text(syntax.behind_mark), self._one_or_more(syntax, several=several))
            for syntax in self._syntaxes[mark]
        )

    def _one_or_more(self, syntax: CallSyntax, *, several: bool) -> Expression:
        """Return calls from the name of the first one on."""
        name = f"call behind {syntax.opening} {syntax.behind_name}"
        if name not in self.rules:
            self.rules[name] = choice(self._one(syntax, tool) for tool in self._tools)
        one = Call(name)
        more = Repeat(sequence(self._text(syntax.again), one)) if several else NOTHING
        return sequence(one, more, self._text(syntax.close))

    def _one(self, syntax: CallSyntax, tool: "_Arguments") -> Expression:
        arguments = Call(f"arguments {tool.number} {syntax.notation.value}")
        if arguments.rule not in self.rules:
            added = tool.rules(syntax)
            self.rules.update(added.rules)
            self.rules[arguments.rule] = Call(added.start)
        head = self._text(tool.name + syntax.behind_name)
        return sequence(head, arguments, self._text(syntax.behind))

    def _text(self, text: str) -> Expression:
        return these_bytes(self._marks.spelled(text))


# ---- arguments ------------------------------------------------------------------------------


Member = Callable[[str, Facts], Expression]  # an argument by its name


def _keywords(made: SchemaRules) -> Member:
    """Return what writes ``a="x"``."""
    return lambda name, facts: sequence(literal(f"{name}="), made.value(member(facts, name)))


def _tags(made: SchemaRules, document: Document, schema: Mapping[str, Any]) -> Member:
    """Return what writes ``<parameter=a>`` and the value on lines of their own."""

    def tag(name: str, facts: Facts) -> Expression:
        places = member(facts, name)
        if takes_text(schema, name) and places is not None:
            texts = map(_text_in_tags, document.alternatives(places))
            return _tag(literal(name), choice(texts))
        return _tag(literal(name), sequence(made.value(places), _END_OF_LINE))

    return tag


def _text_in_tags(facts: Facts) -> Expression:
    """Return a string as it stands, up to its tag's end."""
    if facts.values is not None:
        marks = (PARAMETER_END, *NEVER_IN_VALUE)
        texts = [
            value
            for value in facts.values
            if isinstance(value, str) and not any(mark in value for mark in marks)
        ]
        return choice(sequence(literal(text), _END_OF_LINE) for text in texts)
    characters = string_characters(facts, RawText())
    if characters is None:
        never = tuple(mark.encode() for mark in NEVER_IN_VALUE)
        return Until((PARAMETER_END.encode(),), plain=True, without=never)
    return sequence(characters, _END_OF_LINE)


def _tag(name: Expression, value: Expression) -> Expression:
    return sequence(literal(PARAMETER), name, literal(">\n"), value, literal("\n"))


_END_OF_LINE = literal("\n" + PARAMETER_END)


class _Arguments:
    """What one tool takes."""

    def __init__(self, number: int, tool: Tool, values: _Values) -> None:
        """Raise INVALID_SCHEMA for what of a strict tool's schema is not supported."""
        self.number = number
        self.name = tool.name
        self._strict = tool.strict
        self._values = values
        given = json.loads(tool.parameters) if tool.parameters else {}
        self._schema: dict[str, Any] = closed(given or _NO_ARGUMENTS)
        self._wants_object()
        properties = self._schema.get("properties")
        self.parameters = list(properties) if isinstance(properties, dict) else []

    def _wants_object(self) -> None:
        """Leave an object as the only type of all arguments."""
        types = self._schema.get("type", "object")
        if types != "object" and not (isinstance(types, list) and "object" in types):
            if self._strict:
                raise self._fault(refused("/type", "must be object"))
            self._schema = {}
        self._schema = {**self._schema, "type": "object"}
        self._schema.pop("nullable", None)

    def rules(self, syntax: CallSyntax) -> Grammar:
        """Return the grammar of the arguments. Raises INVALID_SCHEMA."""
        try:
            grammar = self._rules(self._schema, syntax)
            if grammar is not None:
                return grammar
            if self._strict:
                raise refused("", "no value fits")
        except (LlamadError, RecursionError) as error:
            if self._strict:
                raise self._fault(error) from None
        names = dict.fromkeys(self.parameters, True)
        free = {"type": "object", **({"properties": names} if names else {})}
        grammar = self._rules(free, syntax)
        assert grammar is not None
        return grammar

    def _rules(self, schema: dict[str, Any], syntax: CallSyntax) -> Grammar | None:
        """Return the grammar of what a schema accepts; None: that is nothing."""
        document = Document(schema, lenient=not self._strict)
        prefix = f"tool {self.number} "
        notation = self._values.notation(syntax)
        made = SchemaRules(document, notation, prefix)
        match syntax.notation:
            case Notation.JSON | Notation.GEMMA:
                grammar = made.grammar()
            case Notation.PYTHON:
                grammar = _listed(document, made, _keywords(made), literal(", "), prefix)
            case Notation.TAGS:
                tags = _tags(made, document, schema)
                grammar = _listed(document, made, tags, NOTHING, prefix)
        return without_dead_ends(grammar, notation.rules())

    def _fault(self, error: Exception) -> LlamadError:
        """Return the error of a strict tool's schema, with the tool's name."""
        if not isinstance(error, LlamadError):
            error = refused("", "is nested too deep, or has a name that is too long")
        fault = error.message.removeprefix("schema: ")
        return LlamadError(error.kind, error.reason, f"tool {self.name}: parameters: {fault}")


def _listed(
    document: Document, made: SchemaRules, argument: Member, separator: Expression, prefix: str
) -> Grammar:
    """Return the arguments one after the other, those that the schema names."""
    lists = []
    for facts in document.alternatives(("",)):
        if "object" in facts.types and facts.values is None:
            members = [argument(name, facts) for name in member_names(facts, ("",))]
            lists.append(made.members(facts, ("",), members, None, separator))
    start = prefix + "arguments"
    return Grammar({**made.rules(), start: choice(lists)}, start)
