"""Arguments of a chat template beside the messages: which names and values may reach it.

Owns the bounds. A name is one that a template can read as a variable, and none that the service
sets itself; a value is anything that JSON can say. What a template makes of them is its own.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Never

MAX_ARGUMENTS = 32
MAX_BYTES = 16 << 10  # of all names and values, as JSON text
MAX_DEPTH = 32  # of lists and objects in each other
RESERVED = frozenset({"messages", "add_generation_prompt", "bos_token", "eos_token", "tools"})
THINKING = "enable_thinking"  # what the templates of thinking models ask for

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
NAMES = "1 to 64 letters, digits and _, no digit first"


def parse_arguments(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of arguments given as JSON text; raise ValueError naming the fault."""
    size = sum(len(name.encode()) + len(text.encode()) for name, text in texts.items())
    _check_size(len(texts), size)
    arguments = {}
    for name, text in texts.items():
        _check_name(name)
        try:
            arguments[name] = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            fault = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ValueError(f"{name} is no JSON: {fault}") from None
        _check_depth(name, arguments[name])
    return arguments


def check_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments given as values, of a configuration; raise ValueError naming the fault."""
    size = 0
    for name, value in arguments.items():
        _check_name(name)
        _check_depth(name, value)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot be JSON: {error}") from None
        size += len(name.encode()) + len(text.encode("utf-8", "surrogatepass"))
    _check_size(len(arguments), size)
    return dict(arguments)


def _check_size(count: int, size: int) -> None:
    if count > MAX_ARGUMENTS:
        raise ValueError(f"there are {count}, at most {MAX_ARGUMENTS}")
    if size > MAX_BYTES:
        raise ValueError(f"have {size} bytes in all, at most {MAX_BYTES}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:70]!r} is no name: {NAMES}")
    if name in RESERVED:
        raise ValueError(f"{name} is set by the service")


def _check_depth(name: str, value: Any) -> None:
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"{name} is nested deeper than {MAX_DEPTH}")
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


def _refuse_constant(text: str) -> Never:
    raise ValueError(f"{text} is no number of JSON")
