"""A call of a tool, and the tools that a request offers. Plain values.

A reader is a function of text that begins with an opening mark. It returns the calls and where they
end, None while the text may still become a call, and raises NotACallError when it cannot.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never, TypeAlias

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")  # as rpc/tools_from_proto.py takes them


class NotACallError(ValueError):
    """What stands behind an opening mark is text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. id: as the model gave it; empty where the format has none."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call. parameters: its JSON Schema; empty: it takes none."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def declaration(self) -> dict[str, Any]:
        """Return it as templates take it, in the notation of Hugging Face and OpenAI."""
        parameters = dict(self.parameters) or {"type": "object", "properties": {}}
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


def takes_text(schema: Mapping[str, Any], parameter: str) -> bool:
    """Whether every value of a parameter is a string; schema: of the tool's arguments."""
    properties = schema.get("properties")
    own = properties.get(parameter) if isinstance(properties, Mapping) else None
    if not isinstance(own, Mapping):
        return False
    if "type" in own:
        return bool(own["type"] == "string")
    values = own.get("enum", [own["const"]] if "const" in own else ())
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


class Tools:
    """The tools of one request, by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        lower: dict[str, list[str]] = {}
        for name in self._tools:
            lower.setdefault(name.lower(), []).append(name)
        self._by_lower = {key: names[0] for key, names in lower.items() if len(names) == 1}

    def __contains__(self, name: str) -> bool:
        return self.known(name) in self._tools

    def known(self, name: str) -> str:
        """Return the tool's name that a model meant: small models get capitals wrong."""
        return name if name in self._tools else self._by_lower.get(name.lower(), name)

    def takes_text(self, name: str, parameter: str) -> bool:
        """Whether every value of a tool's parameter is a string, by its schema."""
        tool = self._tools.get(self.known(name))
        return tool is not None and takes_text(tool.parameters, parameter)


Reading: TypeAlias = "tuple[list[Call], int] | None"  # the calls, and where they end
Reader: TypeAlias = Callable[[str, Tools, bool], Reading]  # text, tools, whether it has ended


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Return a call's arguments as JSON. Raises NotACallError for what JSON or UTF-8 cannot say."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        raise NotACallError from None
    return text


def read_json(text: str) -> Any:
    """Return the value of a JSON text; strings may contain line ends, as models write them.

    Raises NotACallError.
    """
    try:
        return json.loads(text, strict=False, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise NotACallError from None


def _refuse(name: str) -> Never:
    raise ValueError(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def made_call(name: object, arguments: object, tools: Tools, call_id: object = "") -> Call:
    """Return the call of these parts; arguments may be an object, its text, or missing.

    Raises NotACallError.
    """
    if isinstance(arguments, str):
        arguments = read_json(arguments) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(arguments, dict):
        raise NotACallError
    arguments_text({name: arguments})
    return Call(tools.known(name), arguments, call_id if isinstance(call_id, str) else "")
