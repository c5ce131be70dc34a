"""Tools of a chat, as OpenAI's API and Ollama's both offer them, and calls put together."""

from collections.abc import Mapping
from typing import Any

from llamad_client import ToolCallDelta
from llamad_http.errors import not_supported
from llamad_http.fields import Fields


def read_tools(body: Fields) -> list[dict[str, Any]]:
    """Return the tools that a request offers. Raises HttpError."""
    tools = []
    for tool in body.objects("tools"):
        kind = tool.text("type")
        if kind not in (None, "function"):
            raise not_supported(tool.prefix + "type", f"{kind!r} is not supported, 'function' is")
        function = tool.object("function")
        name = function.text("name")
        if not name:
            raise function.wrong("name", "must be the name of the tool")
        read: dict[str, Any] = {"name": name, "description": function.text("description") or ""}
        if parameters := function.object("parameters").values:
            read["parameters"] = parameters
        if function.flag("strict"):
            read["strict"] = True
        tools.append(read)
    return tools


def read_calls(message: Fields) -> list[dict[str, Any]]:
    """Return the calls of a message: their arguments are JSON or an object. Raises HttpError."""
    calls = []
    for call in message.objects("tool_calls"):
        function = call.object("function")
        name = function.text("name")
        if not name:
            raise function.wrong("name", "must be the name of the tool that was called")
        arguments = function.get("arguments")
        if not isinstance(arguments, dict):
            arguments = function.text("arguments") or "{}"
        calls.append({"id": call.text("id") or "", "name": name, "arguments": arguments})
    return calls


class Calls:
    """The calls of an answer, put together from their pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, piece: ToolCallDelta) -> None:
        """Take the next piece of a call."""
        call = self._calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
        call["id"] += piece.id
        call["name"] += piece.name
        call["arguments"] += piece.arguments

    def all(self) -> list[Mapping[str, str]]:
        """Return the calls in their order, each with id, name and the JSON of its arguments."""
        return [self._calls[index] for index in sorted(self._calls)]
