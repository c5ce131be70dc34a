"""The request to ``/v1/messages``, which is also that to ``/v1/messages/count_tokens``."""

from typing import Any

from llamad_client.request import Options
from llamad_http.anthropic.messages import read_messages
from llamad_http.anthropic.writer import MessageWriter
from llamad_http.completion import Asked, CompletionRequest
from llamad_http.errors import not_supported
from llamad_http.fields import Fields
from llamad_http.formats import schema_of
from llamad_http.sampling import read_sampling, refuse

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_request(body: Fields) -> Asked:
    """Return what a request asks for. Raises HttpError."""
    if body.integer("max_tokens", 1) is None:
        raise body.wrong("max_tokens", "must be there: the most tokens of the answer")
    return Asked([read_conversation(body)], body.flag("stream") or False, MessageWriter())


def read_conversation(body: Fields) -> CompletionRequest:
    """Return the conversation and the options of its answer. Raises HttpError."""
    refuse(body, "container", "mcp_servers")
    options = read_sampling(body, "max_tokens")
    if stop := [text for text in body.texts("stop_sequences") if text]:
        options["stop"] = stop
    _set_thinking(options, body)
    _set_tools(options, body)
    _set_format(options, body)
    messages = read_messages(body)
    if messages[-1] == {"role": "assistant", "content": ""} and len(messages) > 1:
        messages.pop()  # the one message that may be empty: nothing goes on
    elif messages[-1]["role"] == "assistant":
        options["continue_final_message"] = True
    return CompletionRequest(body.text("model") or "", options, messages=messages)


def _set_thinking(options: Options, body: Fields) -> None:
    """Set whether the model thinks; it does not where nothing is said, as the reference has it."""
    thinking = body.object("thinking")
    kind = thinking.text("type")
    if kind not in (None, "enabled", "adaptive", "disabled"):
        raise not_supported("thinking.type", f"{kind!r} is not enabled, adaptive or disabled")
    options["thinking"] = kind in ("enabled", "adaptive")
    budget = thinking.integer("budget_tokens", 1, (1 << 32) - 1)
    if kind == "enabled" and budget is not None:
        options["thinking_budget"] = budget


def _set_tools(options: Options, body: Fields) -> None:
    tools: list[dict[str, Any]] = []
    for tool in body.objects("tools"):
        kind = tool.text("type")
        if kind not in (None, "custom"):
            raise not_supported(
                tool.prefix + "type", f"{kind!r} is a tool of a server, and there is none"
            )
        name = tool.text("name")
        if not name:
            raise tool.wrong("name", "must be the name of the tool")
        read: dict[str, Any] = {"name": name, "description": tool.text("description") or ""}
        if schema := tool.object("input_schema").values:
            read["parameters"] = schema
        if tool.flag("strict"):
            read["strict"] = True
        tools.append(read)
    choice = body.object("tool_choice")
    kind = choice.text("type")
    if kind not in (None, "tool", *_CHOICES):
        raise choice.wrong("type", f"must be auto, any, none or tool, is {kind!r}")
    if kind == "tool":
        name = choice.text("name")
        if not name:
            raise choice.wrong("name", "must be the name of a tool")
        options["tool_choice"] = name
    elif kind is not None:
        options["tool_choice"] = _CHOICES[kind]
    if not tools:
        return
    options["tools"] = tools
    if (one := choice.flag("disable_parallel_tool_use")) is not None:
        options["parallel_tool_calls"] = not one


def _set_format(options: Options, body: Fields) -> None:
    """Set what the answer must look like, by ``output_config.format``, once ``output_format``."""
    config = body.object("output_config")
    form = config.object("format") if "format" in config else body.object("output_format")
    kind = form.text("type")
    if kind == "json_schema":
        options["response_format"] = schema_of(form, "schema")
    elif kind is not None:
        raise not_supported(form.prefix + "type", f"{kind!r} is not json_schema")
