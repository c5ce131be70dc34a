"""A chat's messages and the tools it offers, checked, and a call as a message of the stream."""

import json
import re
from collections.abc import Sequence
from typing import Any

from llamad.errors import LlamadError, invalid
from llamad.jobs import event, request
from llamad_api.v1 import llamad_pb2 as pb

MAX_MESSAGES = 1024
MAX_TOOLS = 128
MAX_CALLS = 64  # of a message
MAX_ID_BYTES = 256
MAX_NAME_BYTES = 128
MAX_DECLARATION_BYTES = 64 << 10  # of a description, or of a schema
MAX_DEPTH = 64  # of arguments and schemas, which templates walk
MAX_CONTAINERS = 1 << 15  # objects and lists in the arguments, or the schemas, of a request
ROLES = ("system", "user", "assistant", "tool")

_NAME = re.compile(rf"[A-Za-z0-9_.:/-]{{1,{MAX_NAME_BYTES}}}")
_MODES = {
    pb.ToolChoice.MODE_UNSPECIFIED: request.ToolUse.AUTO,
    pb.ToolChoice.MODE_AUTO: request.ToolUse.AUTO,
    pb.ToolChoice.MODE_NONE: request.ToolUse.NONE,
    pb.ToolChoice.MODE_REQUIRED: request.ToolUse.REQUIRED,
}
_EFFORTS = {
    pb.EFFORT_UNSPECIFIED: None,
    pb.EFFORT_LOW: "low",
    pb.EFFORT_MEDIUM: "medium",
    pb.EFFORT_HIGH: "high",
}


def chat_messages(given: Sequence[pb.Message], most_bytes: int) -> tuple[request.ChatMessage, ...]:
    """Return the checked messages. most_bytes: of all texts together."""
    if not 1 <= len(given) <= MAX_MESSAGES:
        raise invalid("messages", f"there are {len(given)}, must be 1 to {MAX_MESSAGES}")
    total = sum(map(_n_bytes, given))
    if total > most_bytes:
        raise invalid("messages.content", f"has {total} bytes in all, at most {most_bytes}")
    arguments = [call.arguments for entry in given for call in entry.tool_calls]
    _check_containers("messages.tool_calls.arguments", arguments)
    return tuple(_message(i, entry) for i, entry in enumerate(given))


def _message(i: int, entry: pb.Message) -> request.ChatMessage:
    if entry.role not in ROLES:
        shown = repr(entry.role if len(entry.role) <= 32 else entry.role[:32] + "…")
        raise invalid(
            "messages.role", f"message {i} has role {shown}, must be one of {', '.join(ROLES)}"
        )
    for name, role in (
        ("tool_calls", "assistant"),
        ("thinking", "assistant"),
        ("tool_call_id", "tool"),
        ("tool_name", "tool"),
    ):
        if getattr(entry, name) and entry.role != role:
            raise invalid(f"messages.{name}", f"message {i} is of the {entry.role}, not of {role}")
    if len(entry.tool_calls) > MAX_CALLS:
        raise invalid(
            "messages.tool_calls",
            f"message {i} has {len(entry.tool_calls)}, at most {MAX_CALLS}",
        )
    _check_size("messages.tool_call_id", f"message {i}", entry.tool_call_id, MAX_ID_BYTES)
    _check_size("messages.tool_name", f"message {i}", entry.tool_name, MAX_NAME_BYTES)
    return request.ChatMessage(
        entry.role,
        entry.content,
        tuple(_call(f"message {i}", call) for call in entry.tool_calls),
        entry.tool_call_id,
        entry.tool_name,
        entry.thinking,
    )


def _n_bytes(message: pb.Message) -> int:
    texts = [message.content, message.thinking, message.tool_call_id, message.tool_name]
    for call in message.tool_calls:
        texts += [call.id, call.name, call.arguments]
    return sum(len(text.encode()) for text in texts)


def _call(where: str, call: pb.ToolCall) -> request.ToolCall:
    _check_name("messages.tool_calls.name", where, call.name)
    _check_size("messages.tool_calls.id", where, call.id, MAX_ID_BYTES)
    arguments = call.arguments or "{}"
    _check_object("messages.tool_calls.arguments", f"{where}, {call.name}", arguments)
    return request.ToolCall(call.name, arguments, call.id)


def tools(given: Sequence[pb.Tool], most_bytes: int) -> tuple[request.Tool, ...]:
    """Return the checked tools. most_bytes: of all their texts together."""
    if len(given) > MAX_TOOLS:
        raise invalid("tools", f"there are {len(given)}, at most {MAX_TOOLS}")
    total = sum(len(f"{t.name}{t.description}{t.parameters}".encode()) for t in given)
    if total > most_bytes:
        raise invalid("tools", f"have {total} bytes in all, at most {most_bytes}")
    _check_containers("tools.parameters", [tool.parameters for tool in given])
    names: set[str] = set()
    for i, tool in enumerate(given):
        _check_name("tools.name", f"tool {i}", tool.name)
        if tool.name in names:
            raise invalid("tools.name", f"{tool.name} is there twice")
        names.add(tool.name)
        _check_size("tools.description", tool.name, tool.description, MAX_DECLARATION_BYTES)
        _check_size("tools.parameters", tool.name, tool.parameters, MAX_DECLARATION_BYTES)
        if tool.parameters:
            _check_object("tools.parameters", tool.name, tool.parameters)
    return tuple(request.Tool(t.name, t.description, t.parameters, t.strict) for t in given)


def tool_use(given: pb.ToolChoice, offered: Sequence[request.Tool]) -> request.ToolUse:
    """Return whether tools are called. Checks which ones may be, too."""
    if given.mode not in _MODES:
        raise invalid("tool_choice.mode", f"{given.mode} is none of AUTO, NONE, REQUIRED")
    use = _MODES[given.mode]
    if use is request.ToolUse.REQUIRED and not offered:
        raise invalid("tool_choice", "requires a call, and there are no tools")
    if given.name and use is not request.ToolUse.REQUIRED:
        raise invalid("tool_choice.name", "needs the mode REQUIRED")
    names = {tool.name for tool in offered}
    if given.name and given.name not in names:
        raise invalid("tool_choice.name", f"{given.name[:128]!r} is none of the tools")
    if given.allowed and (given.name or use is request.ToolUse.NONE):
        raise invalid("tool_choice.allowed", "needs the mode AUTO or REQUIRED, and no name")
    for name in given.allowed:
        if name not in names:
            raise invalid("tool_choice.allowed", f"{name[:128]!r} is none of the tools")
    return use


def thinking(options: pb.Options) -> request.Thinking:
    """Return whether, how long and how hard the model thinks."""
    given = options.thinking
    if given.effort not in _EFFORTS:
        raise invalid("thinking.effort", f"{given.effort} is none of LOW, MEDIUM, HIGH")
    if given.effort and given.HasField("enabled") and not given.enabled:
        raise invalid("thinking.effort", "is given, and enabled is false")
    if given.HasField("budget_tokens") and given.budget_tokens < 1:
        raise invalid("thinking.budget_tokens", "is 0, must be at least 1: or set enabled to false")
    return request.Thinking(
        given.enabled if given.HasField("enabled") else None,
        given.budget_tokens if given.HasField("budget_tokens") else None,
        _EFFORTS[given.effort],
    )


def tool_call_delta(delta: event.Delta, head: event.ToolCallHead) -> pb.ToolCallDelta:
    """Return a call as the message of a stream."""
    return pb.ToolCallDelta(
        index=head.index, id=head.id, name=head.name, arguments=delta.text, tokens=delta.tokens
    )


def _check_name(field: str, where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid(
            field,
            f"{where} has {name[:32]!r}, must be 1 to {MAX_NAME_BYTES} letters, digits and _.:/-",
        )


def _check_size(field: str, where: str, text: str, most: int) -> None:
    size = len(text.encode())
    if size > most:
        raise invalid(field, f"{where} has {size} bytes, at most {most}")


def _check_containers(field: str, texts: Sequence[str]) -> None:
    """Raise the error for JSON texts whose values would hold the event loop."""
    if _n_brackets(texts) <= MAX_CONTAINERS:
        return
    n = _n_brackets([outside for text in texts for outside in _outside_strings(text)])
    if n > MAX_CONTAINERS:
        raise invalid(field, f"{n} objects and lists in all, at most {MAX_CONTAINERS}")


def _outside_strings(text: str) -> list[str]:
    return text.replace("\\\\", "").replace('\\"', "").split('"')[::2]


def _n_brackets(texts: Sequence[str]) -> int:
    return sum(text.count("{") + text.count("[") for text in texts)


def _check_object(field: str, where: str, text: str) -> None:
    """Raise the error for a text that is no JSON object, or too deep for a template."""
    try:
        value = json.loads(text, parse_constant=_no_number)
        text_again = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text_again.encode()
        depth = _depth(value)
    except (ValueError, RecursionError) as error:
        raise _no_object(field, where, str(error)) from None
    if not isinstance(value, dict):
        raise _no_object(field, where, "is no object")
    if depth > MAX_DEPTH:
        raise invalid(field, f"{where}: is nested {depth} deep, at most {MAX_DEPTH}")


def _no_object(field: str, where: str, fault: str) -> LlamadError:
    return invalid(field, f"{where}: is no JSON object: {fault[:100]}")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
