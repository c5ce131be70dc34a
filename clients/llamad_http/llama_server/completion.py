"""``/completion``: the request, and the writer of its answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llamad_client import Event, PrefillProgress, Result, TextDelta, TokenLogprob
from llamad_client.request import Options
from llamad_http.adapters import read_lora
from llamad_http.completion import Answer, Asked, CompletionRequest
from llamad_http.errors import HttpError
from llamad_http.exchange import dump
from llamad_http.fields import Fields
from llamad_http.formats import read_own_format
from llamad_http.llama_server.errors import error_body
from llamad_http.llama_server.prompts import Prompts
from llamad_http.logprobs import MAX_LIKELIEST, entry, of_answer
from llamad_http.sampling import read_sampling, refuse
from llamad_http.sse import comment
from llamad_http.timings import timings

_STOP_TYPES = {"stop": "eos", "stop_string": "word", "length": "limit", "loop": "limit"}


def read_completion(body: Fields, prompts: Prompts) -> Asked:
    """Return what a request asks for of its prompts. Raises HttpError."""
    refuse(body, "post_sampling_probs")
    options = read_sampling(body, "n_predict", "max_tokens")
    wants_none = body.integer("n_predict" if "n_predict" in body else "max_tokens") == 0
    if wants_none:
        options["max_tokens"] = 1  # the fewest of the service; the writer leaves it out
    n_likeliest = body.integer("n_probs", 0, MAX_LIKELIEST) or 0
    if n_likeliest:
        options["logprobs"] = n_likeliest
    if (wanted := read_own_format(body)) is not None:
        options["response_format"] = wanted
    model = body.text("model") or ""
    progress = body.flag("return_progress") or False
    with_tokens = body.flag("return_tokens") or False
    if with_tokens:
        options.setdefault("logprobs", 0)  # with which each token is told of
    requests = [
        CompletionRequest(model, options, prompt=prompt, parse_special=True)
        for prompt in prompts.each
    ]
    writer = CompletionWriter(
        prompts,
        options,
        with_progress=progress,
        n_likeliest=n_likeliest,
        with_tokens=with_tokens,
        fields=body.texts("response_fields"),
        wants_none=wants_none,
    )
    return Asked(requests, body.flag("stream") or False, writer, read_lora(body))


class CompletionWriter:
    """Writes chunks of a stream, or one answer; to a list of prompts a list of answers."""

    stream_type = "text/event-stream"

    def __init__(
        self,
        prompts: Prompts,
        options: Options,
        *,
        with_progress: bool,
        n_likeliest: int,
        with_tokens: bool,
        fields: Sequence[str],
        wants_none: bool,
    ) -> None:
        """fields: the only ones of an answer, where there are any; a/b is field b of object a.

        wants_none: the prompt is only read, for what comes after it.
        """
        self._wants_none = wants_none
        self._n_likeliest = n_likeliest
        self._with_tokens = with_tokens
        self._fields = fields
        self._prompts = prompts
        self._options = options
        self._with_progress = with_progress
        self._model = ""
        self._tokens: Counter[int] = Counter()  # of each text
        self._has_new_line: Counter[int] = Counter()

    def begin(self, model: str) -> bytes:
        """Remember the model."""
        self._model = model
        return b""

    def event(self, index: int, event: Event) -> bytes:
        """Return the chunk of an event."""
        match event:
            case TextDelta() if not self._wants_none:
                self._has_new_line[index] += "\n" in event.text
                self._tokens[index] = event.tokens
                told = self._told([event.logprob] if event.logprob is not None else [])
                if event.text or told:
                    return self._chunk(index, event.text, told)
            case PrefillProgress() if self._with_progress:
                progress = {"total": event.prompt_tokens, "processed": event.processed_tokens}
                return self._chunk(index, "", {"prompt_progress": progress})
            case Result():
                return _data(self._last(index, "", event))
        return comment(event)

    def idle(self) -> bytes:
        """Return a comment."""
        return comment()

    def failure(self, error: HttpError) -> bytes:
        """Return the error as an event."""
        return _data(error_body(error))

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return nothing: the last chunk was the end."""
        return b""

    def whole(self, model: str, answers: Sequence[Answer]) -> Any:
        """Return the answer that does not stream."""
        self._model = model
        wholes = []
        for index, answer in enumerate(answers):
            if self._wants_none:
                wholes.append(self._last(index, "", answer.end))
                continue
            self._has_new_line[index] += "\n" in answer.text
            told = self._told(of_answer(answer) if answer.logprobs else [])
            wholes.append(self._last(index, answer.text, answer.end, told))
        return wholes if self._prompts.is_list else wholes[0]

    def _told(self, told: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the fields that tell of tokens, as far as somebody asked."""
        shown = [one for one in told if one.piece]
        fields: dict[str, Any] = {}
        if self._with_tokens and shown:
            fields["tokens"] = [one.token for one in shown]
        if self._n_likeliest and shown:
            fields["completion_probabilities"] = [_probabilities(one) for one in shown]
        return fields

    def _chunk(self, index: int, content: str, more: Mapping[str, Any]) -> bytes:
        chunk = {
            "index": index,
            "content": content,
            "tokens": [],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": self._tokens[index],
        }
        return _data({**chunk, **more})

    def _last(
        self, index: int, content: str, result: Result, told: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        n_predict = self._options.get("max_tokens", -1)
        if self._wants_none:
            n_predict = 0
            result = replace(result, completion_tokens=0, finish_reason="length", stop_string="")
        settings = {**self._options, "n_predict": n_predict, "seed": result.seed}
        last = {
            "index": index,
            "content": content,
            "tokens": [],
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            "tokens_predicted": result.completion_tokens,
            "tokens_evaluated": result.prompt_tokens,
            "tokens_cached": result.cached_prompt_tokens,
            "generation_settings": settings,
            "prompt": self._prompts.each[index],
            "has_new_line": self._has_new_line[index] > 0,
            "truncated": False,
            "stop_type": _STOP_TYPES.get(result.finish_reason, "none"),
            "stopping_word": result.stop_string,
            "timings": timings(result),
            **(told or {}),
        }
        return last if not self._fields else _selected(last, self._fields)


def _selected(value: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return the fields of an object that are named, each under its name; unknown ones not."""
    selected: dict[str, Any] = {}
    for path in paths:
        found: Any = value
        for name in path.split("/"):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            selected[path] = found
    return selected


def _probabilities(one: TokenLogprob) -> dict[str, Any]:
    """Return how likely a token was, and the likeliest in its place."""
    return {**_with_id(one), "top_logprobs": [_with_id(other) for other in one.likeliest]}


def _with_id(logprob: TokenLogprob) -> dict[str, Any]:
    return {"id": logprob.token, **entry(logprob)}


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + dump(value) + b"\n\n"
