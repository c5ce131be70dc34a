"""``/api/chat`` and ``/api/generate``: the requests, and the writers of their answers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamad_client import Event, Result, TextDelta, ThinkingDelta, ToolCallDelta
from llamad_http.completion import Answer, Asked, CompletionRequest
from llamad_http.errors import HttpError
from llamad_http.exchange import dump
from llamad_http.fields import Fields
from llamad_http.logprobs import entries, of_answer, read_logprobs
from llamad_http.ollama.options import (
    read_options,
    refuse_what_is_not_there,
    set_thinking,
)
from llamad_http.ollama.times import nanoseconds, rfc3339
from llamad_http.sampling import refuse
from llamad_http.tools import Calls, read_calls, read_tools

ROLES = ("system", "user", "assistant", "tool")
_DONE_REASONS = {
    "stop": "stop",
    "stop_string": "stop",
    "length": "length",
    "loop": "length",
    "tool_calls": "stop",
}


def read_chat(body: Fields) -> Asked:
    """Return what a request to ``/api/chat`` asks for. Raises HttpError."""
    refuse_what_is_not_there(body)
    options = read_options(body)
    read_logprobs(body, options)
    set_thinking(options, body)
    if tools := read_tools(body):
        options["tools"] = tools
    messages = [_read_message(message) for message in body.objects("messages")]
    request = CompletionRequest(required_model(body), options, messages=messages)
    return Asked([request], is_streamed(body), ChatWriter())


def read_generate(body: Fields) -> Asked:
    """Return what a request to ``/api/generate`` asks for. Raises HttpError."""
    refuse_what_is_not_there(body)
    refuse(body, "suffix", "template", "context")
    options = read_options(body)
    read_logprobs(body, options)
    model, prompt = required_model(body), body.text("prompt") or ""
    if body.flag("raw"):
        request = CompletionRequest(model, options, prompt=prompt, parse_special=True)
        return Asked([request], is_streamed(body), GenerateWriter())
    set_thinking(options, body)
    messages = [{"role": "user", "content": prompt}]
    if system := body.text("system"):
        messages.insert(0, {"role": "system", "content": system})
    request = CompletionRequest(model, options, messages=messages)
    return Asked([request], is_streamed(body), GenerateWriter())


def required_model(body: Fields) -> str:
    """Return the name of the model: ``model``, or ``name`` as older programs say."""
    name = body.text("model") or body.text("name")
    if not name:
        raise body.wrong("model", "must be the name of a model")
    return name


def is_streamed(body: Fields) -> bool:
    """Whether the answer streams; it does where nothing is said."""
    return body.flag("stream") is not False


def _read_message(message: Fields) -> dict[str, Any]:
    role = message.text("role")
    if role not in ROLES:
        raise message.wrong("role", f"must be one of {', '.join(ROLES)}, is {role!r}")
    refuse(message, "images")
    read: dict[str, Any] = {"role": role, "content": message.text("content") or ""}
    if calls := read_calls(message):
        read["tool_calls"] = calls
    if role == "tool":
        read["tool_call_id"] = message.text("tool_call_id") or ""
        read["tool_name"] = message.text("tool_name") or message.text("name") or ""
    if thinking := message.text("thinking"):
        read["thinking"] = thinking
    return read


class _Writer:
    """Writes lines of JSON; what is in a line is the business of the two below."""

    stream_type = "application/x-ndjson"

    def __init__(self) -> None:
        self._model = ""
        self._calls = Calls()

    def begin(self, model: str) -> bytes:
        """Remember the model."""
        self._model = model
        return b""

    def event(self, index: int, event: Event) -> bytes:
        """Return a line for a piece of text; the end waits for ``end``."""
        match event:
            case TextDelta():
                told = entries(event.logprob)
                if event.text or told:
                    return self._line({**self._content(event.text, ""), **_logprobs(told)})
            case ThinkingDelta():
                return self._line(self._content("", event.text))
            case ToolCallDelta():
                self._calls.add(event)
            case Result() if calls := self._calls.all():
                return self._line(self._content("", "", calls))
        return b""

    def idle(self) -> bytes:
        """Return a line without text; programs add nothing to nothing."""
        return self._line(self._content("", ""))

    def failure(self, error: HttpError) -> bytes:
        """Return the error as a line."""
        return dump({"error": error.message}) + b"\n"

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return the last line, which has the numbers."""
        return self._line({**self._content("", ""), **numbers(answers[0].end)})

    def whole(self, model: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return the answer that does not stream."""
        self._model = model
        answer = answers[0]
        content = self._content(answer.text, answer.thinking, answer.calls.all())
        told = [entry for logprob in of_answer(answer) for entry in entries(logprob)]
        return {**self._head(), **content, **_logprobs(told), **numbers(answer.end)}

    def _content(
        self, text: str, thinking: str, calls: Sequence[Mapping[str, str]] = ()
    ) -> dict[str, Any]:
        raise NotImplementedError

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": rfc3339()}

    def _line(self, content: Mapping[str, Any]) -> bytes:
        return dump({**self._head(), "done": False, **content}) + b"\n"


def _logprobs(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"logprobs": told} if told else {}


class ChatWriter(_Writer):
    """Writes answers of ``/api/chat``."""

    def _content(
        self, text: str, thinking: str, calls: Sequence[Mapping[str, str]] = ()
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(calls)]
        return {"message": message}


class GenerateWriter(_Writer):
    """Writes answers of ``/api/generate``."""

    def _content(
        self, text: str, thinking: str, calls: Sequence[Mapping[str, str]] = ()
    ) -> dict[str, Any]:
        return {"response": text, "thinking": thinking} if thinking else {"response": text}


def _call(index: int, call: Mapping[str, str]) -> dict[str, Any]:
    arguments = json.loads(call["arguments"] or "{}")
    function = {"index": index, "name": call["name"], "arguments": arguments}
    return {"id": call["id"], "function": function}


def numbers(result: Result) -> dict[str, Any]:
    """Return the end of an answer: why, how many tokens, how long."""
    timings = result.timings
    work = timings.queue_seconds + timings.prefill_seconds + timings.decode_seconds
    return {
        "done": True,
        "done_reason": _DONE_REASONS.get(result.finish_reason, result.finish_reason),
        "total_duration": nanoseconds(work),
        "load_duration": nanoseconds(timings.queue_seconds),
        "prompt_eval_count": result.prompt_tokens,
        "prompt_eval_duration": nanoseconds(timings.prefill_seconds),
        "eval_count": result.completion_tokens,
        "eval_duration": nanoseconds(timings.decode_seconds),
    }
