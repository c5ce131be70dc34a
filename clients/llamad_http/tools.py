"""Tools of a chat, as OpenAI's API and Ollama's both offer them, and calls put together."""

from collections.abc import Mapping
from typing import Any

from llamad_client import ToolCallDelta
from llamad_client.request import Options
from llamad_http.errors import not_supported
from llamad_http.fields import Fields

_MODES = ("auto", "none", "required")
_CHOICES = "auto, none, required, a function or allowed_tools"


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


def read_choice(body: Fields, *, of_chat: bool) -> Options:
    """Return the options that say which of the tools may, or must, be called. Raises HttpError.

    A word, one function, or OpenAI's ``allowed_tools``, in the shape of chats or of responses: each
    takes the other's, too, and an error names the fields of its own.
    """
    given = body.get("tool_choice")
    if not isinstance(given, dict):
        choice = body.text("tool_choice")
        if choice not in (None, *_MODES):
            raise body.wrong("tool_choice", f"must be {_CHOICES}, is {choice!r}")
        return {} if choice is None else {"tool_choice": choice}
    fields = body.object("tool_choice")
    match fields.text("type"):
        case None | "function":
            name = _function_name(fields)
            if not name:
                raise body.wrong("tool_choice", "must name a function")
            return {"tool_choice": name}
        case "allowed_tools":
            has_own = "mode" in fields or "tools" in fields
            inside = "allowed_tools" in fields or (of_chat and not has_own)
            return _read_allowed(fields.object("allowed_tools") if inside else fields)
        case kind:
            raise fields.wrong("type", f"must be function or allowed_tools, is {kind!r}")


def _read_allowed(given: Fields) -> Options:
    """Return the tools that may be called; the model is told of the others, too."""
    mode = given.text("mode")
    if mode not in ("auto", "required"):
        raise given.wrong("mode", f"must be auto or required, is {mode!r}")
    tools = given.objects("tools")
    names = [_function_name(tool) for tool in tools if tool.text("type") in (None, "function")]
    if not names or not all(names):
        raise given.wrong("tools", "must name functions, at least one")
    return {"tool_choice": mode, "allowed_tools": [name for name in names if name]}


def _function_name(fields: Fields) -> str | None:
    """Return the name of a function: of chats it lies in an object of its own."""
    return fields.object("function").text("name") or fields.text("name")


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
