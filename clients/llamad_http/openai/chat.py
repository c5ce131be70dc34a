"""``/v1/chat/completions``: the request, and the writer of its answer."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from llamad_client import (
    Event,
    PrefillProgress,
    Result,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
)
from llamad_client.request import Options
from llamad_http.adapters import read_lora
from llamad_http.completion import Answer, Asked, CompletionRequest
from llamad_http.errors import HttpError, not_supported
from llamad_http.exchange import dump
from llamad_http.fields import Fields
from llamad_http.formats import read_own_format, schema_of
from llamad_http.logprobs import entries, of_answer, read_logprobs
from llamad_http.openai.errors import error_body
from llamad_http.openai.messages import read_messages
from llamad_http.openai.options import options_of_each, read_n, read_options
from llamad_http.openai.usage import usage_of
from llamad_http.sampling import refuse, set_effort
from llamad_http.sse import comment
from llamad_http.timings import timings
from llamad_http.tools import read_choice, read_tools

FINGERPRINT = "b-llamad"  # llama-server's begins with b
DONE = b"data: [DONE]\n\n"
FINISH_REASONS = {"stop": "stop", "stop_string": "stop", "length": "length", "loop": "length"}


def read_chat(body: Fields) -> Asked:
    """Return what a request asks for. Raises HttpError."""
    refuse(body, "functions", "function_call", "audio")
    messages, options = read_conversation(body)
    read_logprobs(body, options)
    model = body.text("model") or ""
    requests = [
        CompletionRequest(model, own, messages=messages)
        for own in options_of_each(options, read_n(body))
    ]
    stream = body.flag("stream") or False
    usage = body.object("stream_options").flag("include_usage") or False
    progress = body.flag("return_progress") or False
    lora = read_lora(body)
    return Asked(requests, stream, ChatWriter(with_usage=usage, with_progress=progress), lora)


def read_conversation(body: Fields) -> tuple[list[dict[str, Any]], Options]:
    """Return the messages and the options of a chat. Raises HttpError."""
    options = read_options(body)
    if (wanted := read_format(body)) is not None:
        options["response_format"] = wanted
    if arguments := dict(body.object("chat_template_kwargs").values):
        options["template_arguments"] = arguments
    set_effort(options, body, "reasoning_effort")
    options.update(read_choice(body, of_chat=True))
    if tools := read_tools(body):
        options["tools"] = tools
        if (parallel := body.flag("parallel_tool_calls")) is not None:
            options["parallel_tool_calls"] = parallel
    messages = read_messages(body)
    if wants_continuation(body, messages, options):
        options["continue_final_message"] = True
    return messages, options


def wants_continuation(
    body: Fields, messages: Sequence[Mapping[str, Any]], options: Options
) -> bool:
    """Whether the last message is to go on. Raises HttpError.

    Where no field says so, a last message of the assistant does, as for llama-server and Ollama.
    """
    asked, begins = body.flag("continue_final_message"), body.flag("add_generation_prompt")
    if asked and begins:
        raise body.wrong("continue_final_message", "is true, and so is add_generation_prompt")
    if asked or begins is False:
        return True
    last = messages[-1]
    if asked is False or begins or last["role"] != "assistant" or "tool_calls" in last:
        return False
    if options.get("tool_choice", "auto") not in ("auto", "none"):  # a call has to come
        return False
    if [message["role"] for message in messages[-2:]] == ["assistant", "assistant"]:
        raise body.wrong("messages", "two of the assistant are at the end: which goes on?")
    return bool(last["content"])


def read_format(body: Fields) -> dict[str, Any] | None:
    """Return what the answer must look like; None for any text. Raises HttpError."""
    form = body.object("response_format")
    match form.text("type"):
        case None | "text":
            return read_own_format(body)
        case "json_object":
            schema = form.get("schema")
            return {"json_object": True} if schema is None else schema_of(form, "schema")
        case "json_schema":
            return schema_of(form.object("json_schema"), "schema")
        case kind:
            raise not_supported(
                "response_format.type", f"{kind!r} is not text, json_object or json_schema"
            )


class ChatWriter:
    """Writes chunks of a stream, or one answer."""

    stream_type = "text/event-stream"

    def __init__(self, *, with_usage: bool, with_progress: bool) -> None:
        self._with_usage = with_usage
        self._with_progress = with_progress
        self._created = int(time.time())
        self._id = f"chatcmpl-{time.time_ns():x}"
        self._model = ""
        self._begun: set[int] = set()

    def begin(self, model: str) -> bytes:
        """Remember the model; the first chunk of a text comes with its first event."""
        self._model = model
        return b""

    def event(self, index: int, event: Event) -> bytes:
        """Return the chunks of an event."""
        first = b""
        if index not in self._begun:
            self._begun.add(index)
            first = self._chunk(index, {"role": "assistant", "content": None})
        match event:
            case TextDelta():
                told = entries(event.logprob)
                if event.text or told:
                    content = {"content": event.text}
                    return first + self._chunk(index, content, logprobs=told or None)
            case ThinkingDelta():
                return first + self._chunk(index, {"reasoning_content": event.text})
            case ToolCallDelta():
                return first + self._chunk(index, {"tool_calls": [_call_piece(event)]})
            case Result():
                return first + self._chunk(index, {}, finish_reason(event), timings(event))
            case PrefillProgress() if self._with_progress:
                return first + self._progress(event)
        return first + comment(event)

    def idle(self) -> bytes:
        """Return a comment, which every reader of such streams skips."""
        return comment()

    def failure(self, error: HttpError) -> bytes:
        """Return the error as an event; openai's libraries raise it."""
        return _data(error_body(error))

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return the usage, if it was asked for, and the end."""
        usage = b""
        if self._with_usage:
            usage = _data(
                {
                    **self._head(),
                    "choices": [],
                    "usage": usage_of(answers, texts_of_a_prompt=len(answers)),
                    "timings": timings(answers[0].end),
                }
            )
        return usage + DONE

    def whole(self, model: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return the answer that does not stream."""
        self._model = model
        choices = [
            {
                "index": index,
                "message": _message(answer),
                "logprobs": _logprobs(of_answer(answer)),
                "finish_reason": finish_reason(answer.end),
            }
            for index, answer in enumerate(answers)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage_of(answers, texts_of_a_prompt=len(answers)),
            "timings": timings(answers[0].end),
        }

    def _head(self, kind: str = "chat.completion.chunk") -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        finish: str | None = None,
        speeds: Mapping[str, Any] | None = None,
        logprobs: Sequence[Mapping[str, Any]] | None = None,
    ) -> bytes:
        told = None if logprobs is None else {"content": logprobs, "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish}
        chunk = {**self._head(), "choices": [choice]}
        return _data(chunk if speeds is None else {**chunk, "timings": speeds})

    def _progress(self, event: PrefillProgress) -> bytes:
        progress = {"total": event.prompt_tokens, "processed": event.processed_tokens}
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
        return _data({**self._head(), "choices": [choice], "prompt_progress": progress})


def _logprobs(told: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Return what is told of an answer's tokens; None where nobody asked."""
    content = [entry for logprob in told for entry in entries(logprob)]
    return {"content": content, "refusal": None} if content else None


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if calls := answer.calls.all():
        message["content"] = answer.text or None
        message["tool_calls"] = [_call(call) for call in calls]
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    return message


def _call(call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _call_piece(piece: ToolCallDelta) -> dict[str, Any]:
    """Return a piece of a call; id, type and name stand in the first alone."""
    if not piece.name:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def finish_reason(result: Result) -> str:
    """Return OpenAI's word for why a completion ended."""
    return FINISH_REASONS.get(result.finish_reason, result.finish_reason)


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + dump(value) + b"\n\n"
