"""Calls that are JSON behind a mark: ``{"name": f, "arguments": {...}}``, one or a list of them."""

import re
from typing import Any

from llamad.text.tools.call import Call, NotACallError, Reader, Reading, Tools, made_call, read_json

_PART = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]]|"', re.DOTALL)
_SPACE = re.compile(r"\s*")
_FENCE = re.compile(r"```(?:json|tool_call|tool_code|tool)?[ \t]*\n\s*[{\[]")
_BEGUN_FENCE = re.compile(r"```[a-z_]{0,9}[ \t]*(?:\n\s*)?\Z")
_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args")


def skip_space(text: str, at: int) -> int:
    """Return where the white space that begins at ``at`` ends."""
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def json_end(text: str, at: int) -> int | None:
    """Return where the object or list that begins at ``at`` ends; None: not yet.

    Raises NotACallError when none begins there.
    """
    if at >= len(text):
        return None
    if text[at] not in "{[":
        raise NotACallError
    depth = 0
    for part in _PART.finditer(text, at):
        if part[0] in "{[":
            depth += 1
        elif part[0] in "}]":
            depth -= 1
            if depth == 0:
                return part.end()
        elif part[0] == '"':
            return None  # a string without its end
    return None


def call_of(value: object, tools: Tools) -> Call:
    """Return the call that an object describes. Raises NotACallError."""
    if not isinstance(value, dict):
        raise NotACallError
    inner = value.get("function")
    if isinstance(inner, dict):  # as the interface of OpenAI has it
        value = {**inner, "id": value.get("id", "")}
    name = next((value[key] for key in _NAMES if key in value), None)
    arguments = next((value[key] for key in _ARGUMENTS if key in value), None)
    return made_call(name, arguments, tools, value.get("id", ""))


def calls_of(value: Any, tools: Tools) -> list[Call]:
    """Return the calls that an object, or a list of them, describes. Raises NotACallError."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise NotACallError
    return [call_of(entry, tools) for entry in values]


def may_become(text: str, at: int, mark: str) -> bool:
    """Whether the text ends within the mark, which may yet come."""
    return mark.startswith(text[at:])


def closing(text: str, at: int, close: str, *, ended: bool) -> int | None:
    """Return the place behind a closing mark that may be missing; None: it may still come."""
    mark = skip_space(text, at)
    if text.startswith(close, mark):
        return mark + len(close)
    return None if not ended and may_become(text, mark, close) else at


def json_behind(opening: str, close: str = "", *, several: bool = False) -> Reader:
    """Return the reader of JSON between an opening mark and a closing one, which may be missing.

    several: objects may follow each other, divided by white space, a semicolon or a comma.
    """

    def read(text: str, tools: Tools, ended: bool) -> Reading:
        at = skip_space(text, len(opening))
        end = json_end(text, at)
        if end is None:
            return None
        calls = calls_of(read_json(text[at:end]), tools)
        if several:
            following = _following(text, end, tools, ended=ended)
            if following is None:
                return None
            calls, end = calls + following[0], following[1]
        if not close:
            return calls, end
        after = closing(text, end, close, ended=ended)
        return None if after is None else (calls, after)

    return read


def _following(text: str, at: int, tools: Tools, *, ended: bool) -> Reading:
    """Return the calls of known tools that follow one which ends at ``at``, and where they end."""
    calls: list[Call] = []
    while True:
        begin = skip_space(text, at)
        if text.startswith((";", ","), begin):
            begin = skip_space(text, begin + 1)
        is_object = text.startswith("{", begin)
        end = json_end(text, begin) if is_object else None
        if end is None:
            waits = not ended and (is_object or begin == len(text))
            return None if waits else (calls, at)
        try:
            more = calls_of(read_json(text[begin:end]), tools)
        except NotACallError:
            return calls, at
        if any(call.name not in tools for call in more):
            return calls, at
        calls, at = calls + more, end


def bare_json(text: str, tools: Tools, ended: bool) -> Reading:
    """Read an answer that is a call and nothing else, of a known tool.

    Llama 3 writes it so, several divided by semicolons; others put it into a block of code.
    """
    body, fenced = text.strip(), False
    if text.startswith("`"):
        head = _FENCE.match(text)
        if head is None:
            if ended or not _BEGUN_FENCE.match(text):
                raise NotACallError
            return None
        body, fenced = text[head.end() - 1 :].rstrip(), True
    calls: list[Call] = []
    at = 0
    while at < len(body):
        if fenced and may_become(body, at, "```"):
            break
        end = json_end(body, at)
        if end is None:
            break
        calls += calls_of(read_json(body[at:end]), tools)
        if any(call.name not in tools for call in calls):
            raise NotACallError
        at = skip_space(body, end)
        if at < len(body) and body[at] in ";,":
            at = skip_space(body, at + 1)
    if not ended:
        return None
    if not calls or not "```".startswith(body[at:]) or (body[at:] and not fenced):
        raise NotACallError
    return calls, len(text)
