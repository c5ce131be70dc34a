"""``/v1/responses``: the request.

The gateway keeps no answers, so a conversation comes whole with each request: what would go on
with a kept one is refused by its name, and ``store`` changes nothing. Tools of OpenAI's servers
are left out, because programs offer them without need.
"""

from typing import Any

from llamad_client.request import Options
from llamad_http.completion import Asked, CompletionRequest
from llamad_http.errors import not_supported
from llamad_http.fields import Fields
from llamad_http.formats import schema_of
from llamad_http.logprobs import MAX_LIKELIEST
from llamad_http.openai.response_items import read_input
from llamad_http.openai.response_writer import ResponseWriter
from llamad_http.sampling import read_sampling, refuse, set_effort
from llamad_http.tools import read_choice

ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "reasoning", "temperature", "text"),
    *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "parallel_tool_calls", "user"),
)
"""Fields of a request that its answer repeats."""

LOGPROBS = "message.output_text.logprobs"
"""What ``include`` says where it asks how likely tokens were."""

DEFAULTS = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {}}


def read_response(body: Fields) -> Asked:
    """Return what a request asks for. Raises HttpError."""
    refuse(body, "background")
    echo = {name: body.get(name) for name in ECHOED}
    for name, value in DEFAULTS.items():
        echo[name] = value if echo[name] is None else echo[name]
    request = read_conversation(body)
    n_likeliest = body.integer("top_logprobs", 0, MAX_LIKELIEST)
    if n_likeliest or LOGPROBS in body.texts("include"):
        request.options["logprobs"] = n_likeliest or 0
    return Asked([request], body.flag("stream") or False, ResponseWriter(echo))


def read_conversation(body: Fields) -> CompletionRequest:
    """Return the conversation and the options of its answer. Raises HttpError."""
    refuse(body, "previous_response_id", "conversation", "prompt")
    if body.integer("max_output_tokens") == 0:
        raise body.wrong("max_output_tokens", "must be at least 1")
    options = read_sampling(body, "max_output_tokens")
    if (wanted := _read_format(body.object("text").object("format"))) is not None:
        options["response_format"] = wanted
    set_effort(options, body.object("reasoning"), "effort")
    match body.text("truncation"):
        case None | "disabled":
            pass
        case "auto":
            options["context_full"] = "drop-oldest"
        case other:
            raise body.wrong("truncation", f"must be auto or disabled, is {other!r}")
    _set_tools(options, body)
    messages = read_input(body)
    return CompletionRequest(body.text("model") or "", options, messages=messages)


def _read_format(form: Fields) -> dict[str, Any] | None:
    match form.text("type"):
        case None | "text":
            return None
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            return schema_of(form, "schema")
        case kind:
            raise not_supported(
                form.prefix + "type", f"{kind!r} is not text, json_object or json_schema"
            )


def _set_tools(options: Options, body: Fields) -> None:
    tools = []
    for tool in body.objects("tools"):
        if tool.text("type") != "function":
            continue
        name = tool.text("name")
        if not name:
            raise tool.wrong("name", "must be the name of the tool")
        read: dict[str, Any] = {"name": name, "description": tool.text("description") or ""}
        if parameters := tool.object("parameters").values:
            read["parameters"] = parameters
        if tool.flag("strict"):
            read["strict"] = True
        tools.append(read)
    options.update(read_choice(body, of_chat=False))
    if not tools:
        return
    options["tools"] = tools
    if (parallel := body.flag("parallel_tool_calls")) is not None:
        options["parallel_tool_calls"] = parallel
