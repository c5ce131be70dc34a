"""``/v1/completions``: the request, and the writer of its answer."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llamad_client import Event, Result, TextDelta, TokenLogprob
from llamad_http.adapters import read_lora
from llamad_http.completion import MAX_TEXTS, Answer, Asked, CompletionRequest
from llamad_http.errors import HttpError, not_supported
from llamad_http.exchange import dump
from llamad_http.fields import Fields
from llamad_http.logprobs import MAX_LIKELIEST, columns, of_answer
from llamad_http.openai.chat import DONE, FINGERPRINT, finish_reason, read_format
from llamad_http.openai.echo import Echo
from llamad_http.openai.errors import error_body
from llamad_http.openai.options import options_of_each, read_n, read_options
from llamad_http.openai.usage import usage_of
from llamad_http.sampling import refuse
from llamad_http.sse import comment
from llamad_http.timings import timings

DEFAULT_MAX_TOKENS = 16  # as OpenAI's reference says of this address, and of no other


def read_completion(body: Fields) -> "tuple[Asked, CompletionWriter]":
    """Return what a request asks for, and the writer of its answer. Raises HttpError."""
    refuse(body, "suffix")
    if (body.integer("best_of", 1) or 1) > 1:
        raise not_supported("best_of")
    echo = body.flag("echo") or False
    options = read_options(body, may_be_none=echo)
    wants_none = echo and 0 in (body.integer("max_tokens"), body.integer("max_completion_tokens"))
    if wants_none:
        options["max_tokens"] = 1  # the fewest of the service; the writer leaves it out
    options.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if body.get("logprobs") is not False:
        n_likeliest = body.integer("logprobs", 0, MAX_LIKELIEST)
        if n_likeliest is not None:
            options["logprobs"] = n_likeliest
    if (wanted := read_format(body)) is not None:
        options["response_format"] = wanted
    model = body.text("model") or ""
    prompts = read_prompts(body)
    n = read_n(body)
    if n * len(prompts) > MAX_TEXTS:
        raise body.wrong("prompt", f"{n * len(prompts)} texts, at most {MAX_TEXTS} in one request")
    requests = [
        CompletionRequest(model, own, prompt=prompt, parse_special=True)
        for prompt in prompts
        for own in options_of_each(options, n)
    ]
    usage = body.object("stream_options").flag("include_usage") or False
    writer = CompletionWriter(
        with_usage=usage,
        texts_of_a_prompt=n,
        n_likeliest=options.get("logprobs", 0),
        wants_echo=echo,
        wants_none=wants_none,
    )
    return Asked(requests, body.flag("stream") or False, writer, read_lora(body)), writer


def read_prompts(body: Fields) -> Sequence[str | list[int]]:
    """Return the texts to continue, or their tokens. Raises HttpError."""
    value = body.get("prompt")
    prompts: Sequence[str | list[int]]
    match value:
        case [int(), *_]:
            prompts = [body.tokens("prompt")]
        case [[*_], *_]:
            entries = Fields({f"prompt[{n}]": tokens for n, tokens in enumerate(value)})
            prompts = [entries.tokens(name) for name in entries.values]
        case _:
            prompts = body.texts("prompt")
    if not prompts or not all(prompts):
        raise body.wrong(
            "prompt", "must be a text or a list of tokens, not empty, or a list of such"
        )
    return prompts


class CompletionWriter:
    """Writes chunks of a stream, or one answer."""

    stream_type = "text/event-stream"

    def __init__(
        self,
        *,
        with_usage: bool,
        texts_of_a_prompt: int,
        n_likeliest: int,
        wants_echo: bool,
        wants_none: bool,
    ) -> None:
        """wants_echo: ``echoes`` are set before it writes. wants_none: only those are told."""
        self.wants_echo = wants_echo
        self.echoes: Sequence[Echo] = ()  # of each text
        self._wants_none = wants_none
        self._with_usage = with_usage
        self._n_likeliest = n_likeliest
        self._characters: Counter[int] = Counter()  # of each text, that were sent
        self._texts_of_a_prompt = texts_of_a_prompt
        self._created = int(time.time())
        self._id = f"cmpl-{time.time_ns():x}"
        self._model = ""

    def begin(self, model: str) -> bytes:
        """Remember the model; return the prompts, where they are wanted."""
        self._model = model
        chunks = b""
        for index, echo in enumerate(self.echoes):
            told = self._columns(echo.told, 0) if echo.told else None
            chunks += self._chunk(index, echo.text, None, told)
            self._characters[index] = len(echo.text)
        return chunks

    def event(self, index: int, event: Event) -> bytes:
        """Return the chunk of an event."""
        match event:
            case TextDelta() if not self._wants_none:
                told = None
                if event.logprob is not None and (event.logprob.piece or self.echoes):
                    told = self._columns([event.logprob], self._characters[index])
                    self._characters[index] += len(event.logprob.piece.decode(errors="replace"))
                if event.text or told:
                    return self._chunk(index, event.text, None, told)
            case Result():
                return self._chunk(index, "", finish_reason(event))
        return comment(event)

    def idle(self) -> bytes:
        """Return a comment, which every reader of such streams skips."""
        return comment()

    def failure(self, error: HttpError) -> bytes:
        """Return the error as an event."""
        return b"data: " + dump(error_body(error)) + b"\n\n"

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return the usage, if it was asked for, and the end."""
        if not self._with_usage:
            return DONE
        last = {**self._head(), "choices": [], "usage": self._usage(answers)}
        return b"data: " + dump(last) + b"\n\n" + DONE

    def whole(self, model: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return the answer that does not stream."""
        self._model = model
        choices = [
            _choice(index, *self._text_of(index, answer)) for index, answer in enumerate(answers)
        ]
        usage = self._usage(answers)
        speeds = timings(answers[0].end)
        return {**self._head(), "choices": choices, "usage": usage, "timings": speeds}

    def _text_of(self, index: int, answer: Answer) -> tuple[str, str, Mapping[str, Any] | None]:
        """Return the text of a whole answer, why it ended, and what is told of its tokens."""
        text = "" if self._wants_none else answer.text
        told = of_answer(answer)
        if self.echoes:  # programs count the tokens, so one that ends the answer is told too
            echo = self.echoes[index]
            text = echo.text + text
            told = [*echo.told, *([] if self._wants_none else answer.logprobs)]
        logprobs = self._columns(told, 0) if answer.logprobs else None
        return text, finish_reason(answer.end), logprobs

    def _columns(self, told: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        return columns(told, offset, n_likeliest=self._n_likeliest)

    def _usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        usage = usage_of(answers, texts_of_a_prompt=self._texts_of_a_prompt)
        if self._wants_none:
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return usage

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }

    def _chunk(
        self,
        index: int,
        text: str,
        finish: str | None,
        logprobs: Mapping[str, Any] | None = None,
    ) -> bytes:
        choices = [_choice(index, text, finish, logprobs)]
        return b"data: " + dump({**self._head(), "choices": choices}) + b"\n\n"


def _choice(
    index: int, text: str, finish: str | None, logprobs: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
