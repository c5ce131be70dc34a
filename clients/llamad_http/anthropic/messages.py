"""The messages of a conversation, from Anthropic's content blocks to the service's messages.

A message of the user may hold results of tools beside its text; each is a message of its own for
the service, in the order of the blocks. Thoughts of earlier answers go back as the text they were;
their signatures, which another service would check, are not looked at.
"""

from typing import Any

from llamad_http.errors import HttpError, not_supported
from llamad_http.fields import Fields

ROLES = ("user", "assistant", "system")


def read_messages(body: Fields) -> list[dict[str, Any]]:
    """Return the messages of a request, its system prompt first. Raises HttpError."""
    given = body.objects("messages")
    if not given:
        raise body.wrong("messages", "must be a list of at least one message")
    messages: list[dict[str, Any]] = []
    if system := read_text(body, "system"):
        messages.append({"role": "system", "content": system})
    names: dict[str, str] = {}
    for message in given:
        role = message.text("role")
        if role not in ROLES:
            raise message.wrong("role", f"must be one of {', '.join(ROLES)}, is {role!r}")
        if role == "assistant":
            messages.append(_of_assistant(message, names))
        else:
            messages += _of_user(message, role, names)
    return messages


def read_text(holder: Fields, name: str) -> str:
    """Return a field that is a string or a list of text blocks. Raises HttpError."""
    if not isinstance(holder.get(name), list):
        return holder.text(name) or ""
    texts = []
    for block in holder.objects(name):
        if block.text("type") != "text":
            raise _unknown(block)
        texts.append(block.text("text") or "")
    return "\n".join(texts)


def _blocks(message: Fields) -> list[Fields]:
    """Return the content of a message as blocks; a string is one block of text."""
    if isinstance(message.get("content"), list):
        return message.objects("content")
    text = message.text("content")
    if text is None:
        raise message.wrong("content", "must be a string or a list of blocks")
    return [Fields({"type": "text", "text": text}, message.prefix + "content.")]


def _of_assistant(message: Fields, names: dict[str, str]) -> dict[str, Any]:
    """Return an answer as it was; ``names`` of the tools that it called are noted by their ids."""
    texts, thoughts, calls = [], [], []
    for block in _blocks(message):
        match block.text("type"):
            case "text":
                texts.append(block.text("text") or "")
            case "thinking":
                thoughts.append(block.text("thinking") or "")
            case "redacted_thinking":
                pass
            case "tool_use":
                name = block.text("name")
                if not name:
                    raise block.wrong("name", "must be the name of the tool that was called")
                id_ = block.text("id") or ""
                names[id_] = name
                arguments = dict(block.object("input").values)
                calls.append({"id": id_, "name": name, "arguments": arguments})
            case _:
                raise _unknown(block)
    read: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        read["thinking"] = "\n".join(thoughts)
    if calls:
        read["tool_calls"] = calls
    return read


def _of_user(message: Fields, role: str, names: dict[str, str]) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = []
    for block in _blocks(message):
        match block.text("type"):
            case "text":
                text = block.text("text") or ""
                if read and read[-1]["role"] == role:
                    read[-1]["content"] += "\n" + text
                else:
                    read.append({"role": role, "content": text})
            case "tool_result":
                id_ = block.text("tool_use_id") or ""
                if id_ not in names:
                    raise block.wrong("tool_use_id", f"{id_[:128]!r} is the id of no call before")
                result = {"role": "tool", "content": read_text(block, "content")}
                read.append({**result, "tool_call_id": id_, "tool_name": names[id_]})
            case _:
                raise _unknown(block)
    if not read:
        raise message.wrong("content", "must have at least one block")
    return read


def _unknown(block: Fields) -> HttpError:
    return not_supported(block.prefix + "type", f"{block.text('type')!r} is not supported here")
