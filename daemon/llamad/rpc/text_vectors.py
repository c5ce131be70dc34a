"""The vectors of the texts of one call, a job each: a few of them wait or are computed at once.

Owns how many, and the line in the journal, which is one for all.
"""

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Embedded, Finished
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.logs import fields
from llamad.rpc.answers import check_whole
from llamad.schedule.loop import Scheduler
from llamad.users import user_name

log = logging.getLogger(__name__)

MOST_AHEAD = 8  # texts that share steps, and those of the next step


async def text_vectors(
    scheduler: Scheduler, requests: list[GenerationRequest]
) -> AsyncGenerator[tuple[Embedded, Finished], None]:
    """Yield the vector or the scores of each text, in their order.

    No job outlives the iteration. Raises what ``Scheduler.submit`` raises; but where the queue has
    room for some of the texts, the others come when these have ended.
    """
    ahead: deque[Job] = deque()
    texts, n_tokens, began = deque(requests), 0, time.monotonic()
    try:
        while texts or ahead:
            await _submit(scheduler, texts, ahead)
            job = ahead[0]
            events = [e async for e in job.stream if isinstance(e, Embedded | Finished)]
            ahead.popleft()
            check_whole(events[-1])
            embedded, finished = events
            assert isinstance(embedded, Embedded)
            assert isinstance(finished, Finished)
            n_tokens += finished.prompt_tokens
            yield embedded, finished
        _log(requests, n_tokens, time.monotonic() - began)
    finally:
        for job in ahead:
            await job.stream.aclose()


async def _submit(scheduler: Scheduler, texts: deque[GenerationRequest], ahead: deque[Job]) -> None:
    while texts and len(ahead) < MOST_AHEAD:
        try:
            ahead.append(await scheduler.submit(texts[0]))
        except LlamadError as error:
            if ahead and error.kind is ErrorKind.EXHAUSTED:
                return
            raise
        texts.popleft()


def _log(requests: list[GenerationRequest], n_tokens: int, seconds: float) -> None:
    first = requests[0]
    log.info(
        fields(
            "texts finished",
            request=first.request_id or None,
            user=None if first.owner_uid is None else user_name(first.owner_uid),
            on_behalf_of=first.on_behalf_of or None,
            texts=len(requests),
            tokens=n_tokens,
            seconds=seconds,
        )
    )
