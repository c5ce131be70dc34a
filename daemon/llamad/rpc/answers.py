"""Several answers of one prompt: a job for each, and their events side by side.

The jobs are like any others, so limits, shares and cancels count each of them. The prompt is read
once, because the second job finds its blocks computed, or waits for those that are. Vectors and
scores are such jobs, too, and half of one is none.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Event, EventStream, Finished, FinishReason
from llamad.jobs.request import GenerationRequest


def request_of_each(request: GenerationRequest) -> list[GenerationRequest]:
    """Return the request of each answer: number i has the seed of the first plus i."""
    first = request.sampling.seed
    seed = secrets.randbits(32) if first is None else first
    return [
        replace(
            request,
            n=1,
            sampling=replace(request.sampling, seed=(seed + i) % (1 << 64)),
            pin="" if i else request.pin,  # one keeps the prompt for all
        )
        for i in range(request.n)
    ]


async def side_by_side(
    streams: Sequence[EventStream],
) -> AsyncGenerator[tuple[int, Event], None]:
    """Yield the events of all streams as they come, each with the number of its stream.

    Raises the first error of one. The caller leaves the streams.
    """
    waiting = {_next(stream): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                event = task.result()
                if event is not None:
                    waiting[_next(streams[index])] = index
                    yield index, event
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def check_whole(event: Event) -> None:
    """Raise CANCELLED for the end of a job that somebody cancelled: what it computed is a part."""
    if isinstance(event, Finished) and event.reason is FinishReason.CANCELLED:
        raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", f"job {event.job_id} was cancelled")


def _next(stream: EventStream) -> "asyncio.Task[Event | None]":
    async def take() -> Event | None:
        return await anext(stream, None)

    return asyncio.create_task(take())
