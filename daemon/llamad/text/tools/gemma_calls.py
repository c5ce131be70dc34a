"""Calls as Gemma 4 and FunctionGemma write them: ``call:f{k:<|"|>v<|"|>,n:3,l:[1,2]}``.

Keys have no quotes, and strings stand between two marks of their own, as they are.
"""

import re
from typing import Any

from llamad.text.tools.call import NotACallError, Reader, Reading, Tools, made_call, read_json
from llamad.text.tools.json_calls import closing, may_become, skip_space

_CALL = re.compile(r"\s*call:([A-Za-z0-9_.:/-]{1,128})\{")
_BEGUN = re.compile(r"\s*(?:c|ca|cal|call|call:[A-Za-z0-9_.:/-]{0,128})?\Z")
_KEY = re.compile(r"\s*([^\s:,{}\[\]]+)\s*:\s*")
_WORD = re.compile(r"[^\s,{}\[\]]+")
_MAX_DEPTH = 64


class _UnfinishedError(Exception):
    """The text ends before the value does."""


def gemma_calls(opening: str, close: str, quote: str) -> Reader:
    """Return the reader for a model's three marks."""

    def read(text: str, tools: Tools, ended: bool) -> Reading:
        head = _CALL.match(text, len(opening))
        if head is None:
            if _BEGUN.match(text, len(opening)):
                return None
            raise NotACallError
        try:
            arguments, end = _object(text, head.end(), quote, 0)
        except _UnfinishedError:
            return None
        call = made_call(head[1], arguments, tools)
        after = closing(text, end, close, ended=ended)
        return None if after is None else ([call], after)

    return read


def _object(text: str, at: int, quote: str, depth: int) -> tuple[dict[str, Any], int]:
    """Return the object whose brace is behind us, and where it ends."""
    result: dict[str, Any] = {}
    while True:
        at = skip_space(text, at)
        if text.startswith("}", at):
            return result, at + 1
        if text.startswith(quote, at):
            key, at = _string(text, at, quote)
            at = skip_space(text, at)
            at = skip_space(text, _expect(text, at, ":"))
        else:
            found = _KEY.match(text, at)
            if found is None:
                if not re.search(r"[,{}\[\]]", text[at:]):
                    raise _UnfinishedError
                raise NotACallError
            key, at = found[1].strip("\"'"), found.end()
        result[key], at = _value(text, at, quote, depth + 1)
        at = skip_space(text, at)
        if not text.startswith("}", at):
            at = _expect(text, at, ",")


def _list(text: str, at: int, quote: str, depth: int) -> tuple[list[Any], int]:
    result: list[Any] = []
    while True:
        at = skip_space(text, at)
        if text.startswith("]", at):
            return result, at + 1
        value, at = _value(text, at, quote, depth + 1)
        result.append(value)
        at = skip_space(text, at)
        if not text.startswith("]", at):
            at = _expect(text, at, ",")


def _value(text: str, at: int, quote: str, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise NotACallError
    if at >= len(text):
        raise _UnfinishedError
    if text.startswith(quote, at):
        return _string(text, at, quote)
    if may_become(text, at, quote):
        raise _UnfinishedError
    if text[at] == "{":
        return _object(text, at + 1, quote, depth)
    if text[at] == "[":
        return _list(text, at + 1, quote, depth)
    if text[at] == '"':
        end = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL).match(text, at)
        if end is None:
            raise _UnfinishedError
        return read_json(end[0]), end.end()
    word = _WORD.match(text, at)
    if word is None:
        raise NotACallError
    if word.end() == len(text):
        raise _UnfinishedError
    try:
        return read_json(word[0]), word.end()
    except NotACallError:
        return word[0], word.end()  # a string without its marks


def _string(text: str, at: int, quote: str) -> tuple[str, int]:
    start = at + len(quote)
    end = text.find(quote, start)
    if end < 0:
        raise _UnfinishedError
    return text[start:end], end + len(quote)


def _expect(text: str, at: int, character: str) -> int:
    if at >= len(text):
        raise _UnfinishedError
    if text[at] != character:
        raise NotACallError
    return at + 1
