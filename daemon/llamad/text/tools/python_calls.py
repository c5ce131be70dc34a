"""Calls in Python's notation, as LFM2 writes them: ``[f(a="x", b=1), g()]``."""

import ast
from typing import Any

from llamad.text.tools.call import Call, NotACallError, Reading, Tools, made_call, read_json
from llamad.text.tools.json_calls import calls_of

CALLS, CALLS_END = "<|tool_call_start|>", "<|tool_call_end|>"
MAX_CHARACTERS = 1 << 16  # Python's parser takes some hundred bytes for each
_WORDS = {"true": True, "false": False, "null": None}


def python_calls(text: str, tools: Tools, ended: bool) -> Reading:
    """Read the calls between LFM2's marks; some of its models write JSON there."""
    start = len(CALLS)
    end = text.find(CALLS_END, start)
    while end >= 0:
        try:
            return _calls(text[start:end], tools), end + len(CALLS_END)
        except NotACallError:  # it may stand in a string
            end = text.find(CALLS_END, end + 1)
    if not ended:
        return None
    return _calls(text[start:], tools), len(text)


def _calls(source: str, tools: Tools) -> list[Call]:
    source = source.strip()
    if source.startswith(("[{", "{")):
        return calls_of(read_json(source), tools)
    tree = _parsed(source)
    entries = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    if not entries:
        raise NotACallError
    return [_call(entry, tools) for entry in entries]


def python_value(source: str) -> Any:
    """Return the value that a text is in Python: words, numbers, strings, lists, dicts.

    Raises NotACallError.
    """
    try:
        return _value(_parsed(source))
    except RecursionError:
        raise NotACallError from None


def _parsed(source: str) -> ast.expr:
    if len(source) > MAX_CHARACTERS:
        raise NotACallError
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NotACallError from None


def _call(node: ast.expr, tools: Tools) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise NotACallError
    try:
        name = ast.unparse(node.func)
        arguments = {word.arg: _value(word.value) for word in node.keywords if word.arg}
    except (ValueError, RecursionError):
        raise NotACallError from None
    if len(arguments) != len(node.keywords):
        raise NotACallError
    return made_call(name, arguments, tools)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() as value):
            return _whole(value)
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=entries) | ast.Tuple(elts=entries):
            return [_value(entry) for entry in entries]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
    raise NotACallError


def _whole(text: str) -> str:
    """Return a text in which two halves of a character are one: JSON may escape them apart."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise NotACallError from None


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise NotACallError
