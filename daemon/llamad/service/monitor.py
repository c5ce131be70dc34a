"""Reads what there is to tell of the service and its board, for the status and the metrics.

Owns the joint between those who count and those who write: the numbers are copied on the event
loop's thread, and what takes time (the sensors, the text) is done on others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from llamad import __version__
from llamad.board import Files, Heat
from llamad.jobs.book import JobBook
from llamad.jobs.record import JobState
from llamad.service.measures import Measures
from llamad.service.reading import Reading
from llamad.service.state import ServiceState


class Monitor:
    """Asked on the event loop's thread."""

    def __init__(
        self,
        state: ServiceState,
        book: JobBook,
        measures: Measures,
        engine_version: str,
        *,
        n_stored: Callable[[], int] = lambda: 0,
        files: Files | None = None,
    ) -> None:
        """Read these; ``n_stored`` counts durable jobs, ``files`` None are the machine's own."""
        self._n_stored = n_stored
        self._state = state
        self._book = book
        self._measures = measures
        self._engine_version = engine_version
        self._files = files or Files()
        self._writing = asyncio.Lock()  # one text at a time is made

    async def heat(self) -> Heat:
        """Read how hot the board is, and whether that slows it down."""
        return await asyncio.to_thread(self._files.heat)

    async def metrics(self) -> str:
        """Return the numbers in the text format of Prometheus."""
        async with self._writing:
            heat = await self.heat()
            return await asyncio.to_thread(_text, self._reading(heat))

    def _reading(self, heat: Heat) -> Reading:
        serving, totals = self._state.serving, self._book.totals
        jobs = self._book.list()
        queued = Counter(job.priority for job in jobs if job.state is JobState.QUEUED)
        running = Counter(job.priority for job in jobs if job.state is not JobState.QUEUED)
        return Reading(
            version=__version__,
            engine_version=self._engine_version,
            uptime_seconds=self._state.uptime_seconds,
            phase=self._state.phase,
            queued=queued,
            running=running,
            stored=self._n_stored(),
            prompt_tokens=totals.prompt_tokens,
            generated_tokens=totals.generated_tokens,
            measures=self._measures.copy(),
            heat=heat,
            model=None if serving is None else serving.model,
            counts=None if serving is None else serving.scheduler.counts(),
            measured=None if serving is None else serving.measured(),
            prefix_bytes={} if serving is None else serving.prefixes.disk_bytes(),
        )


def _text(reading: Reading) -> str:
    from llamad.service import metrics  # what it imports is loaded by the first who asks

    return metrics.text(reading)
