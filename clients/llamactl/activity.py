"""What ``top`` shows: the service, and each request that runs or waits, as lines of text.

Owns the words and columns; the terminal is ``full_screen.py``'s.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from llamactl import summary
from llamactl.output import bytes_text, printable, table_lines
from llamactl.speeds import Speeds
from llamad_client import Client, ClientError, Job, Status

HEADER = ("ID", "USER", "CLASS", "STATE", "PROGRESS", "ANSWER", "TOKENS/S", "AGE")
_GENERATED = "generated"  # no job's id


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line; ``loud``: it shall be seen first."""

    text: str
    loud: bool = False


class Activity:
    """Asks the service, and remembers enough to tell speeds."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask this client; ``clock`` returns monotonic seconds."""
        self._client = client
        self._clock = clock
        self._speeds = Speeds()

    def as_json(self) -> dict[str, Any]:
        """Return what there is now as an object."""
        status, jobs = self._client.status(), self._client.jobs()
        return {
            "status": dataclasses.asdict(status),
            "jobs": [dataclasses.asdict(job) for job in jobs],
        }

    def lines(self) -> list[Line]:
        """Return what there is now. Raises ClientError."""
        status, jobs = self._client.status(), self._client.jobs()
        counts = {job.id: _count(job) for job in jobs} | {_GENERATED: status.generated_tokens}
        self._speeds.look(self._clock(), counts)
        return [*self._of_service(status, jobs), Line(""), *self._of_jobs(jobs)]

    def lines_or_error(self) -> list[Line]:
        """Return what there is now, or why the service cannot be asked."""
        try:
            return self.lines()
        except ClientError as error:
            return [Line(printable(error.message), loud=True), Line("Trying again every second.")]

    def _of_service(self, status: Status, jobs: list[Job]) -> Iterator[Line]:
        up = summary.duration(status.uptime_seconds)
        yield Line(printable(f"llamad: {status.state} ({status.detail}), up {up}"), loud=True)
        if status.model is not None:
            yield Line(f"requests: {summary.queue(status, jobs)}")
            yield Line(f"speed:    {self._speed(status)}")
            memory = f"{bytes_text(status.model.locked_bytes)} locked"
            plan = status.memory
            if plan is not None and plan.token_read_bytes:
                memory += f", {bytes_text(plan.token_read_bytes)} read from disk every step"
            yield Line(f"memory:   {memory}; KV cache {summary.kv_cache(status)}")
        if heat := summary.heat(status.board):
            yield Line(f"board:    {heat}")
        for text in summary.warnings(status.board):
            yield Line(f"warning:  {text}", loud=True)

    def _speed(self, status: Status) -> str:
        now = self._speeds.of(_GENERATED)
        texts = ["" if now is None else f"{now:.1f} tokens/s now", summary.speed(status)]
        return "; ".join(filter(None, texts)) or "not known yet"

    def _of_jobs(self, jobs: list[Job]) -> list[Line]:
        if not jobs:
            return [Line("No request runs or waits.")]
        header, *rows = table_lines(HEADER, map(self._row, jobs))
        return [Line(header, loud=True), *map(Line, rows)]

    def _row(self, job: Job) -> tuple[str, ...]:
        speed = self._speeds.of(job.id) if job.state != summary.QUEUED else None
        return (
            job.id,
            summary.owner(job),
            job.priority,
            job.state,
            _progress(job),
            str(job.completion_tokens),
            "" if speed is None else f"{speed:.1f}",
            summary.duration(job.age_seconds),
        )


def _count(job: Job) -> int:
    """Return what the job's speed is of: tokens of the prompt and of the answer."""
    return job.processed_prompt_tokens + job.completion_tokens


def _progress(job: Job) -> str:
    """Say how far a job is: its place in the queue, its prompt, its answer."""
    if job.state == summary.QUEUED:
        place = "" if job.queue_position is None else f"{job.queue_position} in front"
        wait = "" if job.wait_seconds is None else f"~{summary.duration(job.wait_seconds)}"
        return ", ".join(filter(None, (place, wait)))
    if job.processed_prompt_tokens < job.prompt_tokens:
        share = job.processed_prompt_tokens / job.prompt_tokens
        return f"prompt {100 * share:.0f} %"
    if not job.max_tokens:
        return ""
    return f"answer {100 * job.completion_tokens / job.max_tokens:.0f} %"
