"""From requests to the records of jobs: what is accepted, and its tokens.

Owns the two lines that wait for the tokenizer, that of prompts and that of other texts, and why
nothing new is accepted. How much may wait is admission.py's, what the tokens are is prompt.py's.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

from llamad.clock import Clock
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.record import JobRecord
from llamad.jobs.request import GenerationRequest, Priority
from llamad.schedule.admission import Admission, queue_full
from llamad.schedule.encoder import Encoder, Line
from llamad.schedule.format_compiler import FormatCompiler
from llamad.schedule.limits import Limits
from llamad.schedule.places import Places
from llamad.schedule.prompt import (
    Prompt,
    completion_limit,
    context_left,
    encode_prompt,
    for_model,
    prompt_bytes,
)
from llamad.schedule.runtime import ModelRuntime

T = TypeVar("T")

MAX_TEXTS = 16  # that wait for the tokenizer, beside prompts


class Intake:
    """What is asked of one loaded model, before it is a job."""

    def __init__(
        self,
        model: ModelRuntime,
        places: Places,
        book: JobBook,
        limits: Limits,
        clock: Clock,
        encoder: Encoder,
    ) -> None:
        self.limits = limits
        self.refusal: Callable[[], LlamadError] | None = None  # of everything new
        self.failure: LlamadError | None = None  # why the model is dead; None while it lives
        self._model = model
        self._book = book
        self._clock = clock
        self._encoder = encoder
        self._prompts, self._texts = Line(), Line()
        self._admission = Admission(places, self._prompts)

    async def record(self, request: GenerationRequest, formats: FormatCompiler) -> JobRecord:
        """Return a request as the record of a job. Raises what ``Scheduler.submit`` raises."""
        submitted_at = self._clock.now()
        self.check()
        request = for_model(self._model, request)
        owner = self.limits.of(request.owner)
        priority = owner.priority(request)
        self._admission.check(
            request.owner, self.limits.queue_capacity, owner, self._seconds_to_a_place()
        )
        n_bytes = prompt_bytes(request)
        most = self.limits.prompts_bytes
        if self._prompts.pending and self._prompts.pending_bytes + n_bytes > most:
            raise self._queue_full(f"{self._prompts.pending_bytes} bytes of prompts wait already")
        with self._admission.encoding(request.owner):
            prompt = await self.encode(lambda: encode_prompt(self._model, request), n_bytes)
            await formats.check(request, prompt.tokens, is_chat=prompt.is_chat)
        request = prompt.without_text(request, priority)  # what waits for its turn is tokens
        return self._new_record(request, prompt, submitted_at)

    async def encode(self, function: Callable[[], T], n_bytes: int) -> T:
        """Run what a job needs of a text of this size, off the event loop. Raises as ``check``."""
        return await self._run(function, n_bytes, self._prompts)

    async def tokenize(self, function: Callable[[], T], n_bytes: int) -> T:
        """Run a tokenizer's work for no job. Raises QUEUE_FULL, and what ``check`` raises."""
        self.check()
        if self._texts.pending >= MAX_TEXTS:
            raise self._queue_full(f"{MAX_TEXTS} texts wait for the tokenizer already")
        return await self._run(function, n_bytes, self._texts)

    def check(self) -> None:
        """Raise the failure of the model, or the refusal, where nothing new is accepted."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # raised often: let no traceback grow
        if self.refusal is not None:
            raise self.refusal()

    def close(self) -> None:
        """End what is encoded; who waits for it hears the refusal."""
        self._encoder.close()

    async def _run(self, function: Callable[[], T], n_bytes: int, line: Line) -> T:
        try:
            result = await self._encoder.run(function, n_bytes, line)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.check()  # the encoder was closed: say why
            raise
        self.check()  # that may have changed meanwhile
        return result

    def _new_record(
        self, request: GenerationRequest, prompt: Prompt, submitted_at: float
    ) -> JobRecord:
        seed = request.sampling.seed
        n_prompt = len(prompt.tokens)
        max_tokens = completion_limit(self._model, request, n_prompt)
        left = context_left(self._model, n_prompt)
        return JobRecord(
            request,
            prompt.tokens,
            model=self._model.name,
            max_tokens=max_tokens,
            fills_context=max_tokens == left and request.max_tokens != left,
            seed=secrets.randbits(32) if seed is None else seed,
            submitted_at=submitted_at,
            priority=request.priority or Priority.NORMAL,
            is_chat=prompt.is_chat,
            dropped_messages=prompt.dropped_messages,
            truncated_tokens=prompt.truncated_tokens,
            pinned_tokens=prompt.n_pinned,
        )

    def _seconds_to_a_place(self) -> float:
        """Return the time after which a place is likely: one mean job, 1..60 s."""
        mean_seconds = self._book.mean_run_seconds / self._model.n_sequences
        return min(60.0, max(1.0, mean_seconds))

    def _queue_full(self, why: str) -> LlamadError:
        return queue_full(why, self._seconds_to_a_place())
