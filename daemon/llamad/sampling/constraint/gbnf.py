r"""GBNF, the grammar notation of llama.cpp (grammars/README.md there), to the parts of a grammar.

``name ::= "text" | [a-z0-9] | [^\n] | . | ( ... ) | other-rule``, with ``* + ? {m} {m,} {m,n}``
behind a part and ``#`` before a comment; an answer follows the rule ``root``. A rule goes on in the
next line behind ``::=`` or ``|``, and inside of parentheses. Token references (``<think>``,
``<[1000]>``) are refused: what a token says depends on the model.
"""

from typing import NoReturn

from llamad.sampling.constraint.automaton import MAX_ROUNDS
from llamad.sampling.constraint.expression import (
    MAX_CODE_POINT,
    NOTHING,
    Call,
    Expression,
    Grammar,
    Range,
    Repeat,
    characters,
    choice,
    complement,
    literal,
    sequence,
)
from llamad.sampling.constraint.nullable import invalid

MAX_TEXT = 1 << 20  # characters of a grammar
MAX_DEPTH = 100  # of parentheses

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def parse_gbnf(text: str) -> Grammar:
    """Return the grammar. Raises INVALID_GRAMMAR with line and column."""
    if len(text) > MAX_TEXT:
        raise invalid(f"grammar: {len(text)} characters, at most {MAX_TEXT}")
    return _Parser(text).grammar()


class _Parser:
    """Reads from the beginning to the end; ``at`` is what comes next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._called: dict[str, int] = {}  # rules, and where first

    def grammar(self) -> Grammar:
        rules: dict[str, Expression] = {}
        self._space(newlines=True)
        while self._at < len(self._text):
            begin = self._at
            name = self._name()
            if name in rules:
                self._fail(f"rule {name!r} is defined twice", begin)
            self._space(newlines=False)
            if not self._take("::="):
                self._fail(f'"::=" expected behind {name!r}')
            self._space(newlines=True)
            rules[name] = self._choice(nested=False)
            if self._at < len(self._text) and self._peek() not in "\r\n":
                self._fail(f"{self._peek()!r} is not expected here")
            self._space(newlines=True)
        for name, at in self._called.items():
            if name not in rules:
                self._fail(f"rule {name!r} is called, but nowhere defined", at)
        if "root" not in rules:
            raise invalid("grammar: has no rule 'root'")
        return Grammar(rules, "root")

    # ---- what a rule says ----

    def _choice(self, *, nested: bool) -> Expression:
        parts = [self._sequence(nested=nested)]
        while self._take("|"):
            self._space(newlines=True)
            parts.append(self._sequence(nested=nested))
        return choice(parts)

    def _sequence(self, *, nested: bool) -> Expression:
        parts: list[Expression] = []
        while self._at < len(self._text) and self._peek() not in "|)\r\n":
            parts.append(self._repeated(nested=nested))
            self._space(newlines=nested)
        return sequence(*parts) if parts else NOTHING

    def _repeated(self, *, nested: bool) -> Expression:
        part = self._part()
        self._space(newlines=nested)
        while self._at < len(self._text) and self._peek() in "*+?{":
            sign = self._next()
            if sign == "{":
                least, most = self._bounds()
            else:
                least, most = (1 if sign == "+" else 0), (1 if sign == "?" else None)
            part = Repeat(part, least, most)
            self._space(newlines=nested)
        return part

    def _part(self) -> Expression:
        begin = self._at
        first = self._peek()
        if first == '"':
            return self._literal()
        if first == "[":
            return self._class()
        if first == ".":
            self._next()
            return characters([(0, MAX_CODE_POINT)])
        if first == "(":
            return self._group()
        if first in _NAME:
            name = self._name()
            self._called.setdefault(name, begin)
            return Call(name)
        if first in "<!":
            self._fail("a reference to a token is not supported: write its text")
        return self._fail(f"{first!r} is not expected here")

    def _group(self) -> Expression:
        begin = self._at
        self._next()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"parentheses are nested more than {MAX_DEPTH} deep")
        self._space(newlines=True)
        part = self._choice(nested=True)
        if not self._take(")"):
            self._fail("this parenthesis is not closed", begin)
        self._depth -= 1
        return part

    def _literal(self) -> Expression:
        begin = self._at
        self._next()
        text = []
        while self._at < len(self._text) and self._peek() != '"':
            text.append(self._character())
        if not self._take('"'):
            self._fail("this text is not closed", begin)
        return literal("".join(text))

    def _class(self) -> Expression:
        begin = self._at
        self._next()
        negated = self._take("^")
        ranges: list[Range] = []
        while self._at < len(self._text) and self._peek() != "]":
            at = self._at
            first = last = ord(self._character())
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._next()
                last = ord(self._character())
            if last < first:
                self._fail(f"the range ends before it begins: {chr(first)!r} to {chr(last)!r}", at)
            ranges.append((first, last))
        if not self._take("]"):
            self._fail("this class is not closed", begin)
        return characters(complement(ranges) if negated else ranges)

    def _character(self) -> str:
        at = self._at
        character = self._next()
        if "\ud800" <= character <= "\udfff":
            self._fail("half of a surrogate pair is no character", at)
        if character != "\\":
            return character
        escape = self._next()
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        if escape not in _HEX_DIGITS:
            self._fail(f"\\{escape} is no escape of this notation", at)
        n = _HEX_DIGITS[escape]
        digits = self._text[self._at : self._at + n]
        self._at += n
        if len(digits) < n or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            self._fail(f"{n} hexadecimal digits expected behind \\{escape}", at)
        code_point = int(digits, 16)
        if code_point > MAX_CODE_POINT or 0xD800 <= code_point <= 0xDFFF:
            self._fail(f"\\{escape}{digits} is no character", at)
        return chr(code_point)

    def _bounds(self) -> tuple[int, int | None]:
        begin = self._at
        least = self._number()
        most: int | None = least
        if self._take(","):
            most = None if self._peek() == "}" else self._number()
        if not self._take("}"):
            self._fail('"}" expected', begin)
        if least is None:
            self._fail("a repetition needs a least number", begin)
        if most is not None and most < least:
            self._fail(f"a repetition of {least} to {most} times", begin)
        if max(least, most or 0) > MAX_ROUNDS:
            self._fail(
                f"a repetition of {max(least, most or 0)} times, at most {MAX_ROUNDS}", begin
            )
        return least, most

    # ---- characters ----

    def _number(self) -> int | None:
        digits = ""
        self._space(newlines=False)
        while self._at < len(self._text) and self._peek() in "0123456789":
            digits += self._next()
            if len(digits) > 9:
                self._fail(f"a repetition of {digits}... times, at most {MAX_ROUNDS}")
        self._space(newlines=False)
        return int(digits) if digits else None

    def _name(self) -> str:
        begin = self._at
        while self._at < len(self._text) and self._peek() in _NAME:
            self._at += 1
        if self._at == begin:
            self._fail(f"the name of a rule expected, not {self._peek()!r}")
        return self._text[begin : self._at]

    def _space(self, *, newlines: bool) -> None:
        blank = " \t\r\n" if newlines else " \t"
        while self._at < len(self._text):
            if self._peek() == "#":
                while self._at < len(self._text) and self._peek() not in "\r\n":
                    self._at += 1
            elif self._peek() in blank:
                self._at += 1
            else:
                return

    def _peek(self) -> str:
        if self._at >= len(self._text):
            self._fail("the grammar ends too early")
        return self._text[self._at]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        at = min(self._at if at is None else at, len(self._text))
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        raise invalid(f"grammar: line {line}, column {column}: {message}")
