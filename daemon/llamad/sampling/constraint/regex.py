r"""Regular expressions as JSON Schema writes them (ECMA-262), to the parts of a grammar.

Literals, ``.``, classes, ``\d \w \s`` and their opposites, groups, ``|``, the repetitions
``* + ? {m} {m,} {m,n}``, lazy or not, ``^`` at the beginning and ``$`` at the end of an
alternative. Refused by name: look-around (look_ahead.py has what schemas may say of it),
back-references, ``\b``, ``\p``, anchors elsewhere.
Without an anchor anything may stand in front or behind, as JSON Schema says.
"""

from collections.abc import Callable
from typing import NoReturn

from llamad.sampling.constraint.automaton import MAX_ROUNDS
from llamad.sampling.constraint.expression import (
    MAX_CODE_POINT,
    NOTHING,
    Expression,
    Range,
    Repeat,
    choice,
    complement,
    sequence,
)
from llamad.sampling.constraint.nullable import invalid

MAX_PATTERN = 1 << 14  # characters
MAX_DEPTH = 50  # of groups

# ECMA-262, section 22.2.2: WhiteSpace and LineTerminator.
_SPACES = [(9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
           (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]  # fmt: skip
_CLASSES: dict[str, list[Range]] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": _SPACES,
}
_LINE_ENDS = [(10, 10), (13, 13), (0x2028, 0x2029)]
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}

Spell = Callable[[list[Range]], Expression]


def parse_regex(pattern: str, spell: Spell) -> Expression:
    """Return what the pattern matches in a whole text.

    ``spell``: makes a part of one character of the code points. Raises INVALID_GRAMMAR that says
    what of the pattern is not supported, and where.
    """
    if len(pattern) > MAX_PATTERN:
        raise invalid(f"pattern: {len(pattern)} characters, at most {MAX_PATTERN}")
    return _Parser(pattern, spell).pattern()


class _Parser:
    def __init__(self, pattern: str, spell: Spell) -> None:
        self._text = pattern
        self._spell = spell
        self._at = 0
        self._depth = 0

    def pattern(self) -> Expression:
        part = self._choice(anchors=True)
        if self._at < len(self._text):
            self._fail("this parenthesis has no beginning")
        return part

    def _choice(self, *, anchors: bool) -> Expression:
        parts = [self._sequence(anchors=anchors)]
        while self._take("|"):
            parts.append(self._sequence(anchors=anchors))
        return choice(parts)

    def _sequence(self, *, anchors: bool) -> Expression:
        anything = Repeat(self._spell([(0, MAX_CODE_POINT)]))
        begins = anchors and self._take("^")
        parts: list[Expression] = []
        ends = False
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if anchors and self._text[self._at] == "$" and self._text[self._at + 1 :][:1] in "|":
                self._at += 1
                ends = True
                break
            parts.append(self._repeated())
        if not anchors:
            return sequence(*parts) if parts else NOTHING
        return sequence(*([] if begins else [anything]), *parts, *([] if ends else [anything]))

    def _repeated(self) -> Expression:
        part = self._part()
        while self._at < len(self._text) and self._text[self._at] in "*+?{":
            begin = self._at
            sign = self._text[self._at]
            self._at += 1
            if sign == "{":
                least, most = self._bounds(begin)
            else:
                least, most = (1 if sign == "+" else 0), (1 if sign == "?" else None)
            self._take("?")  # lazy: the same texts
            if self._text[self._at : self._at + 1] == "+":
                self._fail("a possessive quantifier is not supported")
            part = Repeat(part, least, most)
        return part

    def _part(self) -> Expression:
        character = self._text[self._at]
        if character == "(":
            return self._group()
        if character == "[":
            return self._spell(self._class())
        if character in "^$":
            self._fail(f"{character!r} is supported at the ends of the pattern only")
        if character in "*+?":
            self._fail(f"nothing to repeat before {character!r}")
        self._at += 1
        if character == ".":
            return self._spell(complement(_LINE_ENDS))
        if character == "\\":
            ranges, _ = self._escape(in_class=False)
            return self._spell(ranges)
        return self._spell([(ord(character), ord(character))])

    def _group(self) -> Expression:
        begin = self._at
        self._at += 1
        if self._take("?"):
            if self._take("<") and self._text[self._at : self._at + 1] not in ("=", "!"):
                end = self._text.find(">", self._at)
                if end < 0:
                    self._fail("the name of this group does not end", begin)
                self._at = end + 1
            elif not self._take(":"):
                self._fail("look-around is not supported", begin)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"groups are nested more than {MAX_DEPTH} deep", begin)
        part = self._choice(anchors=False)
        if not self._take(")"):
            self._fail("this group is not closed", begin)
        self._depth -= 1
        return part

    def _class(self) -> list[Range]:
        begin = self._at
        self._at += 1
        negated = self._take("^")
        ranges: list[Range] = []
        while not self._take("]"):
            first, single = self._class_member(begin)
            behind = self._text[self._at : self._at + 2]
            if single and behind[:1] == "-" and behind != "-]":
                self._at += 1
                last, also = self._class_member(begin)
                if not also or last[0][0] < first[0][0]:
                    self._fail("this range does not begin before it ends", begin)
                first = [(first[0][0], last[0][0])]
            ranges += first
        return complement(ranges) if negated else ranges

    def _class_member(self, begin: int) -> tuple[list[Range], bool]:
        """Return the code points of a member, and whether it is one character."""
        if self._at >= len(self._text):
            self._fail("this class is not closed", begin)
        character = self._text[self._at]
        self._at += 1
        if character == "\\":
            return self._escape(in_class=True)
        return [(ord(character), ord(character))], True

    def _escape(self, *, in_class: bool) -> tuple[list[Range], bool]:
        at = self._at - 1
        if self._at >= len(self._text):
            self._fail("the pattern ends with a backslash", at)
        character = self._text[self._at]
        self._at += 1
        if character in _CLASSES:
            return list(_CLASSES[character]), False
        if character.lower() in _CLASSES:
            return complement(_CLASSES[character.lower()]), False
        if character in "xu":
            return self._code_point(character, at), True
        if character == "b" and in_class:
            return [(8, 8)], True
        if character == "c":
            letter = self._text[self._at : self._at + 1]
            if not (letter.isascii() and letter.isalpha()):
                self._fail("a letter expected behind \\c", at)
            self._at += 1
            return [(ord(letter) % 32,) * 2], True
        if character in _CONTROLS:
            return [(_CONTROLS[character],) * 2], True
        if character.isdigit() or character == "k":
            self._fail("a back-reference is not supported", at)
        if character.isascii() and character.isalpha():
            self._fail(f"\\{character} is not supported", at)
        return [(ord(character), ord(character))], True

    def _code_point(self, kind: str, at: int) -> list[Range]:
        if kind == "u" and self._take("{"):
            end = self._text.find("}", self._at)
            digits = self._text[self._at : max(end, self._at)]
            self._at = end + 1
        else:
            digits = self._text[self._at : self._at + (2 if kind == "x" else 4)]
            self._at += len(digits)
            if len(digits) < (2 if kind == "x" else 4):
                digits = ""
        if not 0 < len(digits) <= 6 or any(d not in "0123456789abcdefABCDEF" for d in digits):
            self._fail(f"hexadecimal digits expected behind \\{kind}", at)
        code_point = int(digits, 16)
        if code_point > MAX_CODE_POINT or 0xD800 <= code_point <= 0xDFFF:
            self._fail(f"\\{kind}{digits} is no character", at)
        return [(code_point, code_point)]

    def _bounds(self, begin: int) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at : max(end, self._at)].partition(",")
        numbers = [least, *([most] if most else [])]
        if end < 0 or any(not (n.isascii() and n.isdigit() and len(n) < 8) for n in numbers):
            self._fail('"{" must begin a repetition, or be escaped', begin)
        self._at = end + 1
        low = int(least)
        high = int(most) if most else None if comma else low
        if max(low, high or 0) > MAX_ROUNDS or (high is not None and high < low):
            self._fail(f"a repetition of {low} to {high} times, at most {MAX_ROUNDS}", begin)
        return low, high

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        raise invalid(f"pattern: character {(self._at if at is None else at) + 1}: {message}")
