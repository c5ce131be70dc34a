"""The messages of a chat, from OpenAI's shape to the service's."""

from typing import Any

from llamad_http.errors import not_supported
from llamad_http.fields import Fields
from llamad_http.sampling import refuse
from llamad_http.tools import read_calls

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_messages(body: Fields) -> list[dict[str, Any]]:
    """Return the messages of a chat. Raises HttpError."""
    messages = body.objects("messages")
    if not messages:
        raise body.wrong("messages", "must be a list of at least one message")
    return [_read_message(message) for message in messages]


def _read_message(message: Fields) -> dict[str, Any]:
    role = message.text("role")
    if role not in _ROLES:
        raise message.wrong("role", f"must be one of {', '.join(_ROLES)}, is {role!r}")
    refuse(message, "function_call")
    read: dict[str, Any] = {"role": _ROLES[role], "content": read_content(message)}
    if calls := read_calls(message):
        read["tool_calls"] = calls
    if role in ("tool", "function"):
        read["tool_call_id"] = message.text("tool_call_id") or ""
        read["tool_name"] = message.text("name") or ""
    if thinking := message.text("reasoning_content") or message.text("reasoning"):
        read["thinking"] = thinking
    return read


def read_content(message: Fields, name: str = "content") -> str:
    """Return the text of a message: a string, or the text parts of a list. Raises HttpError."""
    content = message.get(name)
    if content is None or isinstance(content, str):
        return message.text(name) or ""
    texts = []
    for part in message.objects(name):
        kind = part.text("type")
        if kind in ("text", "input_text", "output_text"):
            texts.append(part.text("text") or "")
        elif kind == "refusal":
            texts.append(part.text("refusal") or "")
        else:
            raise not_supported(part.prefix + "type", f"{kind!r} is not supported, only text is")
    return "\n".join(texts)
