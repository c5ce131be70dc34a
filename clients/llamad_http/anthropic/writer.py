"""The answer of ``/v1/messages``: a message, or the events of a stream that build it.

A stream is ``message_start``, then for each block ``content_block_start``, deltas and
``content_block_stop``, then ``message_delta`` with the end and ``message_stop``. A block is a
thought, a text or a call; one is open at a time.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llamad_client import Event, Queued, Result, TextDelta, ThinkingDelta, ToolCallDelta
from llamad_http.anthropic.errors import error_body
from llamad_http.completion import Answer
from llamad_http.errors import HttpError
from llamad_http.exchange import dump

_STOP_REASONS = {
    "stop": "end_turn",
    "stop_string": "stop_sequence",
    "length": "max_tokens",
    "loop": "max_tokens",
    "tool_calls": "tool_use",
}


class MessageWriter:
    """Writes events of a stream, or one message."""

    stream_type = "text/event-stream"

    def __init__(self) -> None:
        self._id = f"msg_{time.time_ns():x}"
        self._model = ""
        self._n_blocks = 0
        self._open: tuple[str, int] | None = None  # type of the block, index of the call
        self._begun = False

    def begin(self, model: str) -> bytes:
        """Remember the model; the message begins with the first event, which counts its prompt."""
        self._model = model
        return b""

    def event(self, index: int, event: Event) -> bytes:
        """Return the events that an event of the service becomes."""
        match event:
            case TextDelta(text=text):
                start = {"type": "text", "text": ""}
                return self._piece(("text", 0), start, {"type": "text_delta", "text": text})
            case ThinkingDelta(text=text):
                start = {"type": "thinking", "thinking": "", "signature": ""}
                delta = {"type": "thinking_delta", "thinking": text}
                return self._piece(("thinking", 0), start, delta)
            case ToolCallDelta():
                call = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": event.arguments}
                return self._piece(("tool_use", event.index), call, delta)
            case Result():
                return self._close() + self._last(event)
            case Queued() if not self._begun:
                self._begun = True
                return self._first(event)
        return self.idle()

    def idle(self) -> bytes:
        """Return the event that keeps a stream alive."""
        return _event({"type": "ping"})

    def failure(self, error: HttpError) -> bytes:
        """Return the error as an event; anthropic's libraries raise it."""
        return _event(error_body(error))

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return the last event."""
        return _event({"type": "message_stop"})

    def whole(self, model: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return the answer that does not stream."""
        self._model = model
        answer = answers[0]
        content: list[dict[str, Any]] = []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": answer.thinking, "signature": ""})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        for call in answer.calls.all():
            arguments = json.loads(call["arguments"] or "{}")
            block = {"type": "tool_use", "id": call["id"], "name": call["name"]}
            content.append({**block, "input": arguments})
        return {**self._message(content), **_end(answer.end), "usage": usage(answer.end)}

    def _message(self, content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _first(self, event: Queued) -> bytes:
        tokens = {"input_tokens": event.prompt_tokens, "output_tokens": 0}
        return _event({"type": "message_start", "message": {**self._message([]), "usage": tokens}})

    def _last(self, result: Result) -> bytes:
        return _event({"type": "message_delta", "delta": _end(result), "usage": usage(result)})

    def _piece(
        self, block: tuple[str, int], start: Mapping[str, Any], delta: Mapping[str, Any]
    ) -> bytes:
        """Return a delta of a block, behind the start of the block where it is not open yet."""
        events = b""
        if self._open != block:
            events = self._close()
            head = {"type": "content_block_start", "index": self._n_blocks, "content_block": start}
            events += _event(head)
            self._open = block
        piece = {"type": "content_block_delta", "index": self._n_blocks, "delta": delta}
        return events + _event(piece)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._n_blocks += 1
        return _event({"type": "content_block_stop", "index": self._n_blocks - 1})


def _end(result: Result) -> dict[str, Any]:
    reason = _STOP_REASONS.get(result.finish_reason, "end_turn")
    if result.context_full:
        reason = "model_context_window_exceeded"
    return {"stop_reason": reason, "stop_sequence": result.stop_string or None}


def usage(result: Result) -> dict[str, Any]:
    """Return the tokens of an answer; those that the cache had are no input, as is usual there."""
    return {
        "input_tokens": result.prompt_tokens - result.cached_prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": result.cached_prompt_tokens,
        "output_tokens": result.completion_tokens,
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: ".encode() + dump(value) + b"\n\n"
