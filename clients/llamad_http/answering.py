"""The answer to a request for text, while its jobs run: their events, side by side, to the client.

Owns what ends it: the jobs, a client that leaves, the end of the gateway. It keeps silent streams
alive, and knows no API: an ``AnswerWriter`` says what is sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from llamad_client import (
    AsyncCompletion,
    ClientError,
    Event,
    Queued,
    Result,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from llamad_http.completion import Answer, Asked
from llamad_http.errors import HttpError, from_client_error
from llamad_http.exchange import ClientGoneError, Exchange


class Answering:
    """The jobs of one request, read side by side."""

    def __init__(
        self,
        exchange: Exchange,
        asked: Asked,
        model: str,
        completions: Sequence[AsyncCompletion],
        *,
        on_running: Callable[[], None],
        stopping: asyncio.Event,
        ping_seconds: float,
    ) -> None:
        """Answer with the name ``model``.

        on_running: hears that no job waits in the queue. stopping: streams end then. ping_seconds:
        of silence.
        """
        self._on_running = on_running
        self._stopping = stopping
        self._ping_seconds = ping_seconds
        self._exchange = exchange
        self._asked = asked
        self._writer = asked.writer
        self._model = model
        self._answers = [Answer() for _ in completions]
        self._events = [completion.events() for completion in completions]

    async def stream(self) -> None:
        """Send a stream. What goes wrong before each job has told an event is raised, as a status.

        So one that the service refuses refuses the request, which its client may then send again.
        """
        begun = False
        held: list[tuple[int, Event | None]] = []
        unheard = set(range(len(self._answers)))
        try:
            async for index, event in self._read():
                held.append((index, event))
                unheard.discard(index)
                if unheard and event is not None and not begun:
                    continue
                if not begun:
                    await self._exchange.begin_stream(self._writer.stream_type)
                    await self._exchange.write(self._writer.begin(self._model))
                    begun = True
                for one, told in held:
                    await self._exchange.write(
                        self._writer.idle() if told is None else self._writer.event(one, told)
                    )
                held.clear()
            await self._exchange.write(self._writer.end(self._answers))
        except HttpError as error:
            if not begun:
                raise
            self._exchange.remark = error.reason
            await self._exchange.write(self._writer.failure(error))
        await self._exchange.end_stream()

    async def whole(self) -> None:
        """Answer when all is there."""
        async for index, event in self._read():
            if isinstance(event, TextDelta):
                self._answers[index].text += event.text
                if event.logprob is not None:
                    self._answers[index].logprobs.append(event.logprob)
            elif isinstance(event, ThinkingDelta):
                self._answers[index].thinking += event.text
            elif isinstance(event, ToolCallDelta):
                self._answers[index].calls.add(event)
        await self._exchange.respond_json(self._writer.whole(self._model, self._answers))

    async def _read(self) -> AsyncIterator[tuple[int, Event | None]]:
        """Iterate over the events of all jobs as they come; None after each silence.

        Raises HttpError, and ClientGoneError.
        """
        gone = asyncio.ensure_future(self._exchange.until_gone())
        stopping = asyncio.ensure_future(self._stopping.wait())
        waiting = {_next(events): index for index, events in enumerate(self._events)}
        queued = set(waiting.values())
        heard = False
        try:
            while waiting:
                seconds = self._ping_seconds if heard else None
                done, _ = await asyncio.wait(
                    {gone, stopping, *waiting},
                    timeout=seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone in done and self._unfinished():
                    raise ClientGoneError
                if stopping in done:
                    message = "the gateway is stopping"
                    raise HttpError(503, "STOPPING", message, retry_after_seconds=2)
                if not done:
                    yield 0, None
                for task in [task for task in waiting if task in done]:
                    index = waiting.pop(task)
                    event = _result(task)
                    if not isinstance(event, Queued):
                        queued.discard(index)
                        if not queued:
                            self._on_running()
                    if event is None:
                        self._check_end(index)
                        continue
                    heard = True
                    waiting[_next(self._events[index])] = index
                    if isinstance(event, Result):
                        self._answers[index].result = event
                        self._exchange.remark = f"tokens={event.completion_tokens}"
                        self._check_end(index)
                    yield index, event
        finally:
            for future in (gone, stopping, *waiting):
                future.cancel()
            await asyncio.gather(gone, stopping, *waiting, return_exceptions=True)

    def _unfinished(self) -> bool:
        """Whether a text is not whole: some clients close as soon as they have what they need."""
        return any(answer.result is None for answer in self._answers)

    def _check_end(self, index: int) -> None:
        result = self._answers[index].result
        if result is None or result.finish_reason == "cancelled":
            raise HttpError(503, "CANCELLED", "the job was cancelled")


def _next(events: AsyncIterator[Event]) -> "asyncio.Task[Event | None]":
    async def take() -> Event | None:
        return await anext(events, None)

    return asyncio.create_task(take())


def _result(task: "asyncio.Task[Event | None]") -> Event | None:
    try:
        return task.result()
    except ClientError as error:
        raise from_client_error(error) from None
