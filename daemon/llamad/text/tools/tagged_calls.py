"""Calls whose names, and sometimes arguments, stand in tags or between marks.

Qwen3-Coder's ``<function=f><parameter=k>v</parameter></function>``, Functionary's
``<function=f>{...}</function>`` and ``>>>f``, Mistral's ``[TOOL_CALLS]f[ARGS]{...}``, DeepSeek's
and the harmony format of gpt-oss.
"""

import re
from typing import Any

from llamad.text.tools.call import Call, NotACallError, Reading, Tools, made_call, read_json
from llamad.text.tools.json_calls import (
    calls_of,
    closing,
    json_behind,
    json_end,
    may_become,
    skip_space,
)
from llamad.text.tools.python_calls import python_value

TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
NEVER_IN_VALUE = ("\n" + PARAMETER, "\n" + FUNCTION_END)
"""Behind its first line a string has no such lines: they may end it (``_end_of_value``)."""
TOOL_CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
RECIPIENT = ">>>"
DEEPSEEK_CALLS, DEEPSEEK_CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
DEEPSEEK_CALL, DEEPSEEK_CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"
HARMONY_MESSAGE, HARMONY_CALL = "<|message|>", "<|call|>"

_HARMONY_TO = "to=functions."
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_BEGUN_NAME = re.compile(r"[A-Za-z0-9_.:/-]{0,128}\Z")
_VALUE_END = re.compile(
    r"</parameter>|(?=\n<parameter=[^<>\s]+>\n)|(?=\n</function>\s*</tool_call>)"
)
_LAST_VALUE_END = re.compile(r"(?=\n</function>)")
_in_tags = json_behind(TOOL_CALL, TOOL_CALL_END, several=True)


def tool_call_tag(text: str, tools: Tools, ended: bool) -> Reading:
    """Read ``<tool_call>`` with JSON or with tags in it."""
    at = skip_space(text, len(TOOL_CALL))
    if not text.startswith("<", at):
        return _in_tags(text, tools, ended)
    return _functions(text, at, tools, ended=ended)


def function_in_tag(text: str, tools: Tools, ended: bool) -> Reading:
    """Read ``<function=f>`` of Qwen3-Coder, whose outer tag may have no beginning."""
    return _functions(text, 0, tools, ended=ended)


def _functions(text: str, at: int, tools: Tools, *, ended: bool) -> Reading:
    """Read functions up to the end of their tag, which may be missing."""
    calls: list[Call] = []
    behind = at
    while True:
        try:
            reading = _function(text, at, tools, ended=ended)
        except NotACallError:
            if not calls:
                raise
            return calls, behind
        if reading is None:
            return (calls, behind) if calls and ended else None
        calls, behind = calls + reading[0], reading[1]
        end = closing(text, behind, TOOL_CALL_END, ended=ended)
        at = skip_space(text, behind)
        if end is None or (not ended and may_become(text, at, FUNCTION)):
            return None
        if end > behind or not text.startswith(FUNCTION, at):
            return calls, end


def function_tag(text: str, tools: Tools, ended: bool) -> Reading:
    """Read ``<function=f>``, with JSON or with a tag for each parameter in it."""
    return _function(text, 0, tools, ended=ended)


def _function(text: str, at: int, tools: Tools, *, ended: bool) -> Reading:
    if not text.startswith(FUNCTION, at):
        return _wait(text, at, FUNCTION)
    name, at = _name(text, at + len(FUNCTION), ">")
    if not name:
        return None
    at = skip_space(text, at)
    if text.startswith("{", at):
        end = json_end(text, at)
        if end is None:
            return None
        call = made_call(name, read_json(text[at:end]), tools)
        after = closing(text, end, FUNCTION_END, ended=ended)
        return None if after is None else ([call], after)
    arguments: dict[str, Any] = {}
    while text.startswith(PARAMETER, at):
        key_end = text.find(">", at)
        found = _end_of_value(text, key_end + 1, ended=ended) if key_end >= 0 else None
        if found is None:
            return None
        key = text[at + len(PARAMETER) : key_end].strip()
        value = text[key_end + 1 : found.start()]
        arguments[key] = _value(value, is_text=tools.takes_text(name, key))
        at = skip_space(text, found.end())
    if text.startswith(FUNCTION_END, at):
        return [made_call(name, arguments, tools)], at + len(FUNCTION_END)
    if may_become(text, at, PARAMETER):
        return None
    return _wait(text, at, FUNCTION_END)


def _end_of_value(text: str, at: int, *, ended: bool) -> re.Match[str] | None:
    """Return the end of a parameter, or what stands in its place where a model left it out.

    at: of the value. The line end in front of it begins no mark.
    """
    at += text.startswith("\n", at)
    found = _VALUE_END.search(text, at)
    return found if found or not ended else _LAST_VALUE_END.search(text, at)


def _value(raw: str, *, is_text: bool) -> Any:
    """Return a parameter's value: a string as it stands, all else as JSON, by the schema's type."""
    raw = raw.removeprefix("\n").removesuffix("\n")
    if is_text:
        return raw
    word = raw.strip()
    for read in (read_json, python_value):  # a template may print what Python prints
        try:
            return read(word)
        except NotACallError:
            pass
    return raw


def mistral(text: str, tools: Tools, ended: bool) -> Reading:
    """Read ``[TOOL_CALLS]`` with a list of JSON, or with names and ``[ARGS]``, again and again."""
    at = skip_space(text, len(TOOL_CALLS))
    if text.startswith(("[", "{"), at) and not text.startswith(ARGS, at):
        end = json_end(text, at)
        return None if end is None else (calls_of(read_json(text[at:end]), tools), end)
    name, at = _name(text, at, "")
    if not name:
        return None
    call_id = ""
    if text.startswith(CALL_ID, at):
        call_id, at = _name(text, at + len(CALL_ID), "")
        if not call_id:
            return None
    if text.startswith(ARGS, at):
        at += len(ARGS)
    elif not text.startswith("{", at):
        return _wait(text, at, ARGS, CALL_ID)
    at = skip_space(text, at)
    end = json_end(text, at)
    if end is None:
        return None
    return [made_call(name, read_json(text[at:end]), tools, call_id)], end


def recipient(text: str, tools: Tools, ended: bool) -> Reading:
    """Read Functionary 3.2's ``>>>f`` and JSON; ``>>>all`` begins text."""
    name, at = _name(text, len(RECIPIENT), "\n")
    if not name:
        return None
    if name == "all":
        return [], at
    at = skip_space(text, at)
    end = json_end(text, at)
    return None if end is None else ([made_call(name, read_json(text[at:end]), tools)], end)


def deepseek(text: str, tools: Tools, ended: bool) -> Reading:
    """Read DeepSeek's section of calls, with or without a block of code around the JSON."""
    at = skip_space(text, len(DEEPSEEK_CALLS))
    calls: list[Call] = []
    while text.startswith(DEEPSEEK_CALL, at):
        separator = text.find(DEEPSEEK_SEPARATOR, at)
        if separator < 0:
            return None
        first = text[at + len(DEEPSEEK_CALL) : separator].strip()
        at = separator + len(DEEPSEEK_SEPARATOR)
        if first == "function":
            first, at = _name(text, at, "\n")
            if not first:
                return None
        at = skip_space(text, at)
        block = text.startswith("`", at)
        if block:
            at = text.find("\n", at)
            if at < 0:
                return None
            at = skip_space(text, at)
        end = json_end(text, at)
        if end is None:
            return None
        calls.append(made_call(first, read_json(text[at:end]), tools))
        fence = closing(text, end, "```", ended=ended) if block else end
        after = None if fence is None else closing(text, fence, DEEPSEEK_CALL_END, ended=ended)
        if after is None:
            return None
        at = skip_space(text, after)
    if not calls:
        return _wait(text, at, DEEPSEEK_CALL)
    if not ended and may_become(text, at, DEEPSEEK_CALL):
        return None
    after = closing(text, at, DEEPSEEK_CALLS_END, ended=ended)
    return None if after is None else (calls, after)


def harmony(text: str, tools: Tools, ended: bool) -> Reading:
    """Read gpt-oss's message to ``functions.f``, in either order of its head's parts."""
    body = text.find(HARMONY_MESSAGE)
    if body < 0:
        return None
    name = _NAME.match(text, text.index(_HARMONY_TO) + len(_HARMONY_TO), body)
    if name is None:
        raise NotACallError
    at = skip_space(text, body + len(HARMONY_MESSAGE))
    end = json_end(text, at)
    if end is None:
        return None
    call = made_call(name[0], read_json(text[at:end]), tools)
    after = closing(text, end, HARMONY_CALL, ended=ended)
    return None if after is None else ([call], after)


def _name(text: str, at: int, end: str) -> tuple[str, int]:
    """Return a name and the place behind it and its end; "" while it may go on.

    Raises NotACallError when there is none.
    """
    if _BEGUN_NAME.match(text, at):
        return "", at
    found = _NAME.match(text, at)
    if found is None:
        raise NotACallError
    behind = found.end() if end == "\n" else skip_space(text, found.end())
    if end and not text.startswith(end, behind):
        if may_become(text, behind, end):
            return "", at
        raise NotACallError
    return found[0], behind + len(end)


def _wait(text: str, at: int, *marks: str) -> Reading:
    """Return None where a mark may yet come. Raises NotACallError."""
    if not any(may_become(text, at, mark) for mark in marks):
        raise NotACallError
    return None
