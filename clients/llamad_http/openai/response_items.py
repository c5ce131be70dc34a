"""The items of a conversation, from the shape of ``/v1/responses`` to the service's messages.

What the assistant did is several items: thoughts, a text and calls. They become one message, as
the model wrote them, until an item of somebody else comes.
"""

from typing import Any

from llamad_http.errors import not_supported
from llamad_http.fields import Fields
from llamad_http.openai.messages import read_content

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def read_input(body: Fields) -> list[dict[str, Any]]:
    """Return the messages of a request, its instructions first. Raises HttpError."""
    messages: list[dict[str, Any]] = []
    if instructions := body.text("instructions"):
        messages.append({"role": "system", "content": instructions})
    given = body.get("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": body.text("input") or ""}]
    items = body.objects("input")
    if not items:
        raise body.wrong("input", "must be a text, or a list of at least one item")
    for item in items:
        _add(messages, item)
    return messages


def _add(messages: list[dict[str, Any]], item: Fields) -> None:
    """Put an item behind the messages. Raises HttpError."""
    match item.text("type"):
        case None | "message":
            role = item.text("role")
            if role not in _ROLES:
                raise item.wrong("role", f"must be one of {', '.join(_ROLES)}, is {role!r}")
            content = read_content(item)
            if role == "assistant":
                message = _of_assistant(messages)
                message["content"] += ("\n" if message["content"] else "") + content
            else:
                messages.append({"role": _ROLES[role], "content": content})
        case "reasoning":
            parts = item.objects("content") or item.objects("summary")
            thoughts = "\n".join(part.text("text") or "" for part in parts)
            if thoughts:
                _of_assistant(messages)["thinking"] = thoughts
        case "function_call":
            name = item.text("name")
            if not name:
                raise item.wrong("name", "must be the name of the tool that was called")
            call = {"id": item.text("call_id") or "", "name": name}
            call["arguments"] = item.text("arguments") or "{}"
            _of_assistant(messages).setdefault("tool_calls", []).append(call)
        case "function_call_output":
            result = {"role": "tool", "content": read_content(item, "output")}
            messages.append({**result, "tool_call_id": item.text("call_id") or ""})
        case kind:
            raise not_supported(item.prefix + "type", f"{kind!r} is not supported")


def _of_assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message at the end, a new one where somebody else's is there."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]
