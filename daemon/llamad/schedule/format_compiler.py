"""Compiles the formats of answers on the thread for long texts, never on the event loop.

A format is compiled before its job is accepted, so that a wrong one is refused at once, and again
when the job starts and the compiled one was forgotten meanwhile (or the service was restarted):
then no step computes the job until it is there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.schedule.encoder import LONG_BYTES
from llamad.schedule.generation import Generation
from llamad.schedule.runtime import ModelRuntime

Encode = Callable[[Callable[[], Any], int], Awaitable[Any]]  # a function, for a text of this size


class FormatCompiler:
    """The formats that one model's jobs wait for."""

    def __init__(
        self,
        model: ModelRuntime,
        encode: Encode,
        *,
        wake: Callable[[], None],
        fail: Callable[[Job, Exception], None],
    ) -> None:
        """``wake``: is called when a job can go on; ``fail``: when it cannot."""
        self._model = model
        self._encode = encode
        self._wake = wake
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] = set()

    async def check(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> None:
        """Compile the format of a request that has one. Raises INVALID_SCHEMA, INVALID_GRAMMAR."""
        formats = self._model.formats
        if request.is_constrained and formats.find(request, prompt, is_chat=is_chat) is None:
            await self._compile(request, prompt, is_chat=is_chat)

    def compile_later(self, generation: Generation) -> None:
        """Compile the format of a job that has started without."""
        task = asyncio.create_task(self._compile_for(generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Compile nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _compile_for(self, generation: Generation) -> None:
        record = generation.job.record
        try:
            grammar = await self._compile(
                record.request, record.prompt_tokens, is_chat=record.is_chat
            )
            generation.format_is_here(self._model, grammar)
        except Exception as error:
            self._fail(generation.job, error)
        self._wake()

    async def _compile(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> Any:
        wanted, formats = request.response_format, self._model.formats
        n_bytes = sum(len(tool.parameters) for tool in request.tools)
        n_bytes += 0 if wanted is None else wanted.n_bytes
        return await self._encode(
            lambda: formats.compile(request, prompt, is_chat=is_chat),
            max(n_bytes, LONG_BYTES + 1),
        )
