"""The answer of ``/v1/responses``: a response with its items, or the events that build it.

Both are made by one state: an item is open at a time, a thought, a text or a call. It is added
with its first piece, grows by deltas, and is done when another begins or the answer ends.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamad_client import Event, Result, TextDelta, ThinkingDelta, ToolCallDelta
from llamad_http.completion import Answer
from llamad_http.errors import HttpError
from llamad_http.exchange import dump
from llamad_http.logprobs import entries, of_answer
from llamad_http.openai.errors import error_body
from llamad_http.sse import comment


@dataclass(slots=True)
class Item:
    """An item of the output. text: what it holds, of a call its arguments; logprobs: of a text."""

    kind: str
    id: str
    text: str = ""
    name: str = ""
    call_id: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def body(self, status: str) -> dict[str, Any]:
        """Return the item as JSON."""
        head = {"type": self.kind, "id": self.id, "status": status}
        if self.kind == "function_call":
            call = {"call_id": self.call_id, "name": self.name, "arguments": self.text}
            return {**head, **call}
        parts = [self.part()] if self.text else []
        if self.kind == "reasoning":
            return {**head, "summary": [], "content": parts}
        return {**head, "role": "assistant", "content": parts}

    def part(self) -> dict[str, Any]:
        """Return the part that holds the text of a thought or a message."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        text = {"type": "output_text", "text": self.text, "annotations": []}
        return {**text, "logprobs": [*self.logprobs]}


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_EVENTS = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_text",
    "function_call": "response.function_call_arguments",
}


class ResponseWriter:
    """Writes events of a stream, or one response."""

    stream_type = "text/event-stream"

    def __init__(self, echo: Mapping[str, Any]) -> None:
        """``echo``: the fields of the request that the response repeats."""
        self._echo = echo
        self._created = int(time.time())
        self._unique = f"{time.time_ns():x}"
        self._model = ""
        self._sequence = 0
        self._items: list[Item] = []
        self._open: tuple[str, int] | None = None  # kind of the item, index of the call

    def begin(self, model: str) -> bytes:
        """Return the events that a stream begins with."""
        self._model = model
        response = self._response("in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def event(self, index: int, event: Event) -> bytes:
        """Return the events that an event of the service becomes."""
        match event:
            case TextDelta(text=text):
                events = self._opened("message", 0)
                told = entries(event.logprob)
                self._items[-1].logprobs += told
                return events + self._grow(text, logprobs=told)
            case ThinkingDelta(text=text):
                return self._opened("reasoning", 0) + self._grow(text)
            case ToolCallDelta():
                events = self._opened("function_call", event.index, event)
                return events + self._grow(event.arguments)
            case Result():
                return self._close(_status(event))
        return comment(event)

    def idle(self) -> bytes:
        """Return a comment, which every reader of such streams skips."""
        return comment()

    def failure(self, error: HttpError) -> bytes:
        """Return the event of a response that failed."""
        told = error_body(error)["error"]
        failed = self._response("failed", [item.body("incomplete") for item in self._items])
        failed["error"] = {"code": told["code"], "message": told["message"]}
        return self._event("response.failed", response=failed)

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return the last event, which has the whole response."""
        result = answers[0].end
        return self._event(f"response.{_status(result)}", response=self._ended(result))

    def whole(self, model: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return the answer that does not stream."""
        self._model = model
        answer = answers[0]
        if answer.thinking:
            self._add("reasoning").text = answer.thinking
        if answer.text:
            item = self._add("message")
            item.text = answer.text
            item.logprobs = [told for one in of_answer(answer) for told in entries(one)]
        for call in answer.calls.all():
            item = self._add("function_call")
            item.name, item.call_id, item.text = call["name"], call["id"], call["arguments"]
        return self._ended(answer.end)

    # ---- the response ---------------------------------------------------------------------------

    def _response(self, status: str, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{self._unique}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            **self._echo,
            "model": self._model,
            "output": output,
            "previous_response_id": None,
            "store": False,
        }

    def _ended(self, result: Result) -> dict[str, Any]:
        status = _status(result)
        response = self._response(status, [item.body("completed") for item in self._items])
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
            if self._items:
                response["output"][-1]["status"] = status
        response["usage"] = {
            "input_tokens": result.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": result.cached_prompt_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": result.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": result.reasoning_tokens},
            "total_tokens": result.prompt_tokens + result.completion_tokens,
        }
        return response

    # ---- items ----------------------------------------------------------------------------------

    def _add(self, kind: str) -> Item:
        item = Item(kind, f"{_PREFIXES[kind]}_{self._unique}{len(self._items):02x}")
        self._items.append(item)
        return item

    def _opened(self, kind: str, index: int, call: ToolCallDelta | None = None) -> bytes:
        """Return the beginning of an item, nothing where it is open."""
        if self._open == (kind, index):
            return b""
        events = self._close("completed")
        self._open = (kind, index)
        item = self._add(kind)
        if call is not None:
            item.name, item.call_id = call.name, call.id
        place = {"output_index": len(self._items) - 1}
        events += self._event("response.output_item.added", **place, item=item.body("in_progress"))
        if call is None:
            part = item.part()
            events += self._event("response.content_part.added", **self._place(), part=part)
        return events

    def _grow(self, text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """Return a delta of the open item."""
        item = self._items[-1]
        item.text += text
        if not text and not logprobs:
            return b""
        told = {"logprobs": logprobs} if item.kind == "message" else {}
        return self._event(f"{_EVENTS[item.kind]}.delta", **self._place(), **told, delta=text)

    def _close(self, status: str) -> bytes:
        """Return the events of an item that is whole."""
        if self._open is None:
            return b""
        self._open = None
        item, place = self._items[-1], self._place()
        if item.kind == "function_call":
            events = self._event(
                f"{_EVENTS[item.kind]}.done", **place, name=item.name, arguments=item.text
            )
        else:
            told = {"logprobs": item.logprobs} if item.kind == "message" else {}
            events = self._event(f"{_EVENTS[item.kind]}.done", **place, **told, text=item.text)
            events += self._event("response.content_part.done", **place, part=item.part())
        index = {"output_index": len(self._items) - 1}
        return events + self._event("response.output_item.done", **index, item=item.body(status))

    def _place(self) -> dict[str, Any]:
        """Return where the open item is."""
        item = self._items[-1]
        place: dict[str, Any] = {"item_id": item.id, "output_index": len(self._items) - 1}
        if item.kind != "function_call":
            place["content_index"] = 0
        return place

    def _event(self, kind: str, **values: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **values}
        self._sequence += 1
        return f"event: {kind}\ndata: ".encode() + dump(event) + b"\n\n"


def _status(result: Result) -> str:
    return "incomplete" if result.finish_reason in ("length", "loop") else "completed"
