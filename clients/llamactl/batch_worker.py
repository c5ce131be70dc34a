"""One service that answers rows of a batch: as many in its queue as wanted, the oldest read first.

Owns the jobs of its rows. Each has a key that is made of the row, so a service that went away and
came back goes on with them. Where another service has a row by then, its job here is cancelled.
"""

import hashlib
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamactl.batch_file import Row
from llamactl.batch_queue import RowQueue
from llamactl.readiness import wait_until_ready
from llamad_client import (
    Client,
    ClientError,
    Completion,
    Failed,
    Refused,
    ServiceUnreachable,
    SubmittedJob,
    TextDelta,
    ToolCallDelta,
)

_USAGE = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens")
# Refusals of a service that is not what it was when the command began: it takes no part.
_NOT_OF_THE_ROW = frozenset({"NOT_DURABLE", "MODEL_NOT_FOUND", "NO_MODEL", "UNIMPLEMENTED"})
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A row with its answer, as the output has it; ``refusal`` where it failed."""

    row: Row
    answer: dict[str, Any]
    refusal: ClientError | None = None


@dataclass(frozen=True, slots=True)
class Away:
    """A service that is waited for."""

    worker: int
    error: ClientError


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that takes no more rows; ``error`` is why, None where all are done."""

    worker: int
    error: BaseException | None


Outcome = Answered | Away | Ended


class _Stopped(Exception):  # noqa: N818 - nothing is wrong
    """All rows have their answer while this service was waited for."""


class Worker:
    """A thread of its own. It tells what happens by ``tell``, which must not wait."""

    def __init__(
        self,
        number: int,
        client: Client,
        rows: RowQueue,
        tell: Callable[[Outcome], object],
        *,
        n_queued: int,
        batch: str,
    ) -> None:
        """n_queued: rows in the service's queue at a time; batch: what the keys begin with."""
        self._number = number
        self._client = client
        self._rows = rows
        self._tell = tell
        self._n_queued = n_queued
        self._batch = batch
        self._model = ""
        self._jobs: deque[tuple[Row, str]] = deque()  # with the id of its job
        self._left: list[tuple[Row, str]] = []  # jobs of rows that were given back

    def start(self) -> None:
        """Begin; ``Ended`` tells of the end. The thread does not keep the process."""
        threading.Thread(target=self._run, name=f"batch-{self._number}", daemon=True).start()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._wait_until_ready()
            while self._fill():
                try:
                    self._read(*self._jobs[0])
                except ServiceUnreachable as gone:
                    self._wait_for_return(gone)
        except _Stopped:
            pass
        except BaseException as raised:  # the main thread raises or tells it
            error = raised
        if error is not None:
            self._give_back()
        self._tell(Ended(self._number, error))

    def _fill(self) -> bool:
        """Submit rows as long as there are some and the queue has room; False when all are done."""
        while len(self._jobs) < self._n_queued:
            row = self._rows.take(self._number, wait=not self._jobs)
            if row is None:
                break
            try:
                self._submit(row)
            except ServiceUnreachable as gone:
                self._rows.give_back([row])
                self._wait_for_return(gone)
            except Refused as error:
                if error.reason in _NOT_OF_THE_ROW:
                    self._rows.give_back([row])
                    raise
                if error.retry_after_seconds is None:
                    self._end(row, error)
                    continue
                self._rows.give_back([row])
                if self._jobs:
                    break
                self._sleep(min(error.retry_after_seconds, _LONGEST_PAUSE_SECONDS))
            except ClientError as error:
                self._end(row, error)
        return bool(self._jobs)

    def _submit(self, row: Row) -> None:
        """Queue a row, or find the job that an earlier run or an earlier connection queued."""
        for attempt in itertools.count():
            submitted: SubmittedJob = self._client.submit(
                row.prompt, idempotency_key=self._key(row, attempt), **row.options
            )
            if not (submitted.existing and submitted.job.state == "cancelled"):
                self._jobs.append((row, submitted.job.id))
                return

    def _read(self, row: Row, job_id: str) -> None:
        """Wait for the answer of the oldest row. Raises ServiceUnreachable; the row stays."""
        try:
            completion = self._client.resume(job_id)
            answer = _answer_of(completion)
            result = completion.result
            if result is None:
                raise Failed("STREAM_ENDED", "the answer ended without its last event")
            if result.finish_reason == "cancelled":
                raise Failed("CANCELLED", f"job {job_id} was cancelled")
        except ServiceUnreachable:
            raise
        except ClientError as error:
            self._jobs.popleft()
            self._end(row, error)
            return
        self._jobs.popleft()
        self._rows.end(row)
        usage = {name: getattr(result, name) for name in _USAGE}
        answer |= {"finish_reason": result.finish_reason, "usage": usage}
        self._tell(Answered(row, answer))

    def _end(self, row: Row, error: ClientError) -> None:
        """Give a row the error that it got in place of an answer."""
        self._rows.end(row)
        answer = {"error": {"reason": error.reason, "message": error.message}}
        self._tell(Answered(row, answer, error))

    def _give_back(self) -> None:
        """Let others have the rows of this service."""
        self._rows.give_back(row for row, _ in self._jobs)
        self._left += self._jobs
        self._jobs.clear()

    def _wait_for_return(self, error: ServiceUnreachable) -> None:
        """Give the rows to others, and wait for a service that went away."""
        self._tell(Away(self._number, error))
        self._give_back()
        self._wait_until_ready(told=True)
        for row, job_id in self._left:
            if self._rows.belongs_to_another(row, self._number):
                self._cancel(job_id)
        self._left.clear()

    def _wait_until_ready(self, *, told: bool = False) -> None:
        """Wait; ``told``: that it is waited for is known. Raises what makes waiting useless."""

        def tell(text: str) -> None:
            nonlocal told
            if not told:
                problem = ServiceUnreachable("WAITING", text.removeprefix("waiting: "))
                self._tell(Away(self._number, problem))
            told = True

        while True:
            try:
                wait_until_ready(self._client.status, tell, sleep=self._sleep)
                model = self._client.status().model
            except ServiceUnreachable:
                if not self._rows.another_works(self._number):
                    raise
            else:
                self._model = "" if model is None else model.name
                return

    def _sleep(self, seconds: float) -> None:
        if self._rows.is_done:
            raise _Stopped
        time.sleep(seconds)

    def _cancel(self, job_id: str) -> None:
        """Do not let the service compute what another has. A job it forgot is no harm."""
        try:
            self._client.cancel(job_id)
        except ClientError:
            return

    def _key(self, row: Row, attempt: int) -> str:
        """Return the key of a row: the same for the same row on its way to the same file.

        attempt: 0; more where the job of the key before was cancelled.
        """
        asked = json.dumps(
            [self._batch, self._model, row.number, row.prompt, row.options], sort_keys=True
        )
        again = f"-{attempt}" if attempt else ""
        return f"batch-{hashlib.sha256(asked.encode()).hexdigest()[:40]}{again}"


def _answer_of(completion: Completion) -> dict[str, Any]:
    """Read an answer to its end; return its text, and the calls of tools where it has some."""
    text: list[str] = []
    calls: dict[int, dict[str, str]] = {}
    for event in completion.events():
        if isinstance(event, TextDelta):
            text.append(event.text)
        elif isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += event.id
            call["name"] += event.name
            call["arguments"] += event.arguments
    answer: dict[str, Any] = {"text": "".join(text)}
    if calls:
        answer["tool_calls"] = [
            {**call, "arguments": json.loads(call["arguments"])} for call in calls.values()
        ]
    return answer
