"""From keyword arguments to request messages.

Owns the names of the options. Ranges are the service's business; only what a message cannot hold is
refused here, with the same reason the service would give.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, cast

from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.errors import Refused

Priority = Literal["interactive", "normal", "batch"]
ContextFull = Literal["refuse", "drop-oldest"]
Pooling = Literal["mean", "first", "last"]

_ENUMS = {"priority": pb.Priority, "context_full": pb.ContextFull, "pooling": pb.Pooling}
_OF_CHAT = (
    *("context_full", "tools", "tool_choice", "parallel_tool_calls", "continue_final_message"),
    *("allowed_tools", "thinking", "thinking_budget", "thinking_effort"),
)
_SAMPLING_FIELDS = frozenset(field.name for field in pb.Sampling.DESCRIPTOR.fields)


class Options(TypedDict, total=False):
    """Options of generate and chat; see Options and Sampling in generation.proto for the ranges."""

    model: str
    adapter: str  # (LoRA) of the loaded model that the request goes through
    adapter_scale: float
    max_tokens: int
    stop: Sequence[str]
    priority: Priority
    deadline_seconds: float
    resumable_seconds: float  # of generate and chat
    time_to_live_seconds: float  # from submission to the start
    on_behalf_of: str  # of a gateway: the user for whom it asks
    speculation: bool
    pin: str  # keep the beginning of the prompt under this name
    template_arguments: Mapping[str, Any]  # of chat: values of JSON's types, by name
    context_full: ContextFull  # of chat
    # of chat: each a name, description, parameters (a schema), and whether they are strict
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str  # of chat: auto, none, required, or the name of the tool that is called
    allowed_tools: Sequence[str]  # of chat: names of those that may be called; default: all
    parallel_tool_calls: bool  # of chat
    continue_final_message: bool  # of chat
    thinking: bool  # of chat: whether the model thinks before it answers
    thinking_budget: int  # of chat: tokens
    thinking_effort: str  # of chat: low, medium or high
    n: int  # answers, of generate and chat; ``answers()`` of the completion returns them
    logprobs: int  # tell how likely tokens were, and of so many likeliest in their place
    loop_guard: bool
    min_tokens: int
    ignore_eos: bool
    # What the answer must look like, one of: {"json_schema": dict or JSON text}, {"grammar": GBNF},
    # {"regex": str}, {"choices": [str, ...]}, {"json_object": True}; with "closed_objects": True
    # beside a json_schema no object has members that it does not name
    response_format: Mapping[str, Any]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    seed: int
    logit_bias: Mapping[int, float]
    penalize_prompt: bool
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    xtc_probability: float
    xtc_threshold: float
    top_n_sigma: float
    dynatemp_range: float
    dynatemp_exponent: float
    dry_sequence_breakers: Sequence[str]
    samplers: Sequence[str]  # the order, by llama.cpp's names


_OF_ADAPTER = {"adapter": "name", "adapter_scale": "scale"}


class EmbedOptions(TypedDict, total=False):
    """Options of embed; see EmbedRequest in llamad.proto."""

    model: str
    truncate: bool  # leave out the end of a text that is too long
    pooling: Pooling
    priority: Priority
    deadline_seconds: float  # of each text
    on_behalf_of: str
    dimensions: int  # only so many numbers of each vector
    adapter: str  # (LoRA) that the texts go through
    adapter_scale: float


class RerankOptions(TypedDict, total=False):
    """Options of rerank; see RerankRequest in llamad.proto."""

    top_n: int  # only so many results
    model: str
    truncate: bool  # leave out the end of a document that is too long
    priority: Priority
    deadline_seconds: float  # of each document
    on_behalf_of: str


class ScoreOptions(TypedDict, total=False):
    """Options of score; see ScoreRequest in llamad.proto."""

    likeliest: int  # tell of so many tokens in each one's place
    adapter: str  # (LoRA) that the texts go through
    adapter_scale: float
    model: str
    priority: Priority
    deadline_seconds: float  # of each continuation
    on_behalf_of: str


def generate_request(
    prompt: str | Sequence[int], parse_special: bool, options: Options
) -> pb.GenerateRequest:
    """Return the message of a Generate call, of a text or of its tokens. Raises Refused."""
    request = pb.GenerateRequest(parse_special=parse_special)
    _set(request, "prompt" if isinstance(prompt, str) else "prompt_tokens", prompt)
    for name in _OF_CHAT:
        if options.get(name) is not None:
            raise TypeError(f"{name} is for chat: a prompt has no messages")
    _fill(request.options, options)
    return request


def chat_request(messages: Sequence[Mapping[str, Any]], options: Options) -> pb.ChatRequest:
    """Return the message of a Chat call. Raises Refused.

    A message has ``role`` and ``content``, and where it needs them ``tool_calls`` (each a name,
    arguments and maybe an id), ``tool_call_id``, ``tool_name`` and ``thinking``. Arguments and the
    parameters of a tool are objects, or their JSON.
    """
    request = pb.ChatRequest()
    for message in messages:
        entry = request.messages.add()
        for name in ("role", "content", "tool_call_id", "tool_name", "thinking"):
            if message.get(name) or name in ("role", "content"):
                _set(entry, name, message[name])
        for call in message.get("tool_calls") or ():
            added = entry.tool_calls.add()
            _set(added, "id", call.get("id", ""))
            _set(added, "name", call["name"])
            _set(added, "arguments", _json_text("arguments", call.get("arguments", "")))
    others = Options(**options)
    for tool in others.pop("tools", None) or ():
        offered = request.tools.add()
        _set(offered, "name", tool["name"])
        _set(offered, "description", tool.get("description", ""))
        _set(offered, "parameters", _json_text("parameters", tool.get("parameters", "")))
        _set(offered, "strict", tool.get("strict") or False)
    if (choice := others.pop("tool_choice", None)) is not None:
        _choose(request.tool_choice, choice)
    if (allowed := others.pop("allowed_tools", None)) is not None:
        _set(request.tool_choice, "allowed", allowed)
    if (parallel := others.pop("parallel_tool_calls", None)) is not None:
        _set(request, "parallel_tool_calls", parallel)
    if (go_on := others.pop("continue_final_message", None)) is not None:
        _set(request, "continue_final_message", go_on)
    if (full := others.pop("context_full", None)) is not None:
        _set(request, "context_full", f"CONTEXT_FULL_{str(full).replace('-', '_').upper()}")
    _fill(request.options, others)
    return request


def _choose(message: pb.ToolChoice, choice: str) -> None:
    modes = {"auto": pb.ToolChoice.MODE_AUTO, "none": pb.ToolChoice.MODE_NONE}
    message.mode = modes.get(choice, pb.ToolChoice.MODE_REQUIRED)
    if choice not in ("auto", "none", "required"):
        _set(message, "name", choice)


def _json_text(name: str, value: Any) -> str:
    return value if isinstance(value, str) else _json(name, value)


def tokenize_request(text: str, add_bos: bool | None, parse_special: bool) -> pb.TokenizeRequest:
    """Return the message of a Tokenize call. Raises Refused."""
    request = pb.TokenizeRequest(parse_special=parse_special)
    _set(request, "text", text)
    if add_bos is not None:
        request.add_bos = add_bos
    return request


def detokenize_request(tokens: Sequence[int]) -> pb.DetokenizeRequest:
    """Return the message of a Detokenize call. Raises Refused."""
    request = pb.DetokenizeRequest()
    _set(request, "tokens", tokens)
    return request


def embed_request(texts: Sequence[str], options: EmbedOptions) -> pb.EmbedRequest:
    """Return the message of an Embed call. Raises Refused."""
    request = pb.EmbedRequest()
    _set(request, "texts", texts)
    for name, value in options.items():
        if value is not None and name in _OF_ADAPTER:
            _set(request.adapter, _OF_ADAPTER[name], value)
        elif value is not None:
            prefix = {"pooling": "POOLING_", "priority": "PRIORITY_"}.get(name)
            _set(request, name, value if prefix is None else prefix + str(value).upper())
    return request


def rerank_request(
    query: str, documents: Sequence[str], options: RerankOptions
) -> pb.RerankRequest:
    """Return the message of a Rerank call. Raises Refused."""
    request = pb.RerankRequest()
    _set(request, "query", query)
    _set(request, "documents", documents)
    for name, value in options.items():
        if value is not None:
            _set(request, name, f"PRIORITY_{value}".upper() if name == "priority" else value)
    return request


def score_request(
    prompt: str | Sequence[int],
    continuations: Sequence[str | Sequence[int]],
    parse_special: bool,
    options: ScoreOptions,
) -> pb.ScoreRequest:
    """Return the message of a Score call; each text may be its tokens. Raises Refused."""
    request = pb.ScoreRequest()
    _set(request, "prompt" if isinstance(prompt, str) else "prompt_tokens", prompt)
    if parse_special:
        request.parse_special = True
    for text in continuations:
        _set(request.continuations.add(), "text" if isinstance(text, str) else "tokens", text)
    for name, value in options.items():
        if value is not None and name in _OF_ADAPTER:
            _set(request.adapter, _OF_ADAPTER[name], value)
        elif value is not None:
            _set(request, name, f"PRIORITY_{value}".upper() if name == "priority" else value)
    return request


def submit_request(
    prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
    parse_special: bool,
    idempotency_key: str,
    options: Options,
) -> pb.SubmitJobRequest:
    """Return the message of a SubmitJob call: of a text, tokens or messages. Raises Refused."""
    request = pb.SubmitJobRequest()
    _set(request, "idempotency_key", idempotency_key)
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = cast("str | Sequence[int]", prompt)
        request.generate.CopyFrom(generate_request(prompt, parse_special, options))
    else:
        messages = cast("Sequence[Mapping[str, Any]]", prompt)
        request.chat.CopyFrom(chat_request(messages, options))
    return request


def render_request(messages: Sequence[Mapping[str, Any]], options: Options) -> pb.RenderChatRequest:
    """Return the message of a RenderChat call. Raises Refused."""
    return pb.RenderChatRequest(chat=chat_request(messages, options))


def resume_request(job_id: str, from_token: int, wait: bool) -> pb.ResumeJobRequest:
    """Return the message of a ResumeJob call. Raises Refused."""
    request = job_request(pb.ResumeJobRequest, job_id)
    _set(request, "from_token", from_token)
    request.no_wait = not wait
    return request


AboutJob = TypeVar("AboutJob", pb.GetJobRequest, pb.CancelJobRequest, pb.ResumeJobRequest)


def job_request(kind: type[AboutJob], job_id: str) -> AboutJob:
    """Return the message of a call about a job. Raises Refused."""
    request = kind()
    _set(request, "id", job_id)
    return request


def add_model_start(
    name: str,
    file_bytes: int | None,
    sha256: str,
    source: str,
    replace: bool,
    recommended_sampling: Mapping[str, float] | None,
) -> admin_pb2.AddModelRequest.Start:
    """Return the first message of an AddModel call. Raises Refused."""
    start = admin_pb2.AddModelRequest.Start(
        replace=replace, recommended_sampling=recommended_sampling
    )
    _set(start, "name", name)
    _set(start, "sha256", sha256)
    _set(start, "source", source)
    if file_bytes is not None:
        _set(start, "file_bytes", file_bytes)
    return start


Named = TypeVar(
    "Named",
    admin_pb2.UseModelRequest,
    admin_pb2.RemoveModelRequest,
    admin_pb2.RemovePrefixRequest,
    pb.GetModelRequest,
)


def model_request(kind: type[Named], name: str) -> Named:
    """Return the message of a call that names a model or a prefix. Raises Refused."""
    request = kind()
    _set(request, "name", name)
    return request


def add_prefix_request(name: str, system: str, prompt: str) -> admin_pb2.AddPrefixRequest:
    """Return the message of an AddPrefix call. Raises Refused."""
    if bool(system) == bool(prompt):
        raise TypeError("give either system or prompt")
    message = admin_pb2.AddPrefixRequest()
    _set(message, "name", name)
    _set(message, "system" if system else "prompt", system or prompt)
    return message


def _fill(message: pb.Options, options: Options) -> None:
    for name, value in options.items():
        if value is None:
            continue
        if name == "priority":
            _set(message, name, f"PRIORITY_{str(value).upper()}")
        elif name == "thinking":
            _set(message.thinking, "enabled", value)
        elif name == "thinking_budget":
            _set(message.thinking, "budget_tokens", value)
        elif name == "thinking_effort":
            _set(message.thinking, "effort", f"EFFORT_{str(value).upper()}")
        elif name in _OF_ADAPTER:
            _set(message.adapter, _OF_ADAPTER[name], value)
        elif name == "template_arguments":
            arguments = options["template_arguments"]
            _set(message, name, {key: _json(f"{name}: {key}", arguments[key]) for key in arguments})
        elif name == "response_format":
            _fill_format(message.response_format, options["response_format"])
        else:
            _set(message.sampling if name in _SAMPLING_FIELDS else message, name, value)


def _fill_format(message: pb.ResponseFormat, wanted: Mapping[str, Any]) -> None:
    kinds = {kind: value for kind, value in wanted.items() if kind != "closed_objects"}
    if len(kinds) != 1:
        raise TypeError(f"response_format has {len(kinds)} kinds, must be one")
    ((kind, value),) = kinds.items()
    if wanted.get("closed_objects"):
        _set(message, "closed_objects", wanted["closed_objects"])
    if kind == "json_schema" and not isinstance(value, str):
        value = _json(f"response_format: {kind}", value)
    if kind == "choices":
        _set(message.choices, "texts", value)
    else:
        _set(message, kind, value)


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"INVALID_{name.partition(':')[0].upper()}"
        raise Refused(reason, f"{name} cannot be JSON: {error}") from None


def _enum_value(name: str, value: str) -> int:
    """Return a value of an enumeration. Raises ValueError with those that there are."""
    prefix, keys = f"{name.upper()}_", _ENUMS[name].keys()
    if value not in keys:
        known = ", ".join(key.removeprefix(prefix).lower() for key in keys[1:])
        given = str(value).removeprefix(prefix).lower()
        raise ValueError(f"is {given[:60]!r}, must be one of {known}")
    return int(_ENUMS[name].Value(value))


def _set(message: Any, name: str, value: Any) -> None:
    """Set a field, or raise Refused that names it."""
    try:
        if isinstance(value, str):
            value.encode()  # protobuf's own error for this has several forms
        if isinstance(value, Mapping):
            getattr(message, name).update(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            getattr(message, name).extend(value)
        elif name in _ENUMS:
            setattr(message, name, _enum_value(name, value))
        else:
            setattr(message, name, value)
    except UnicodeEncodeError:
        raise Refused(f"INVALID_{name.upper()}", f"{name}: is no valid UTF-8") from None
    except (ValueError, TypeError) as error:
        raise Refused(f"INVALID_{name.upper()}", f"{name}: {error}") from None
    except AttributeError:
        raise TypeError(f"there is no option {name!r}") from None
