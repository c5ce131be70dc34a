"""Jobs that outlive their client, their model, and the service.

A submitted job is in the book like any other, and its transcript is stored as it grows. When its
model goes it is suspended; when the same file is loaded again, its scheduler goes on with it, after
a restart too. An attached request that is resumable has a transcript as well, which nobody stores.
Owns which jobs these are, when they are stored, and who may read them. The file is jobs/store.py's,
the ending of a job is book.py's. Everything on the event loop's thread.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from llamad.clock import Clock, LoopClock
from llamad.config import JobsConfig
from llamad.errors import ErrorKind, LlamadError, shutting_down
from llamad.jobs.book import JobBook
from llamad.jobs.job import Job
from llamad.jobs.record import JobSnapshot, JobState
from llamad.jobs.request import GenerationRequest
from llamad.jobs.store import JobStore, not_durable
from llamad.jobs.stored_job import (
    Ended,
    Living,
    StoredJob,
)
from llamad.jobs.transcript import Reader, Transcript
from llamad.logs import fields
from llamad.service.durable_job import DurableJob
from llamad.service.last_end import service_failed
from llamad.service.resumable_jobs import ResumableJobs
from llamad.service.state import ServiceState, Serving
from llamad.service.state_directory import StateDirectory
from llamad.service.suspects import MOST_STARTS, TRIAL_SECONDS, Suspects, given_up
from llamad.service.write_pace import WritePace

log = logging.getLogger(__name__)

SAVE_SECONDS = 1.0  # between two transactions, at least
RETRY_SECONDS = 10.0  # after one that failed
MOST_WRITE_DEBT_SECONDS = 3600.0  # of the budget; behind that no job is taken


class DurableJobs:
    """The stored jobs of one service: ``open``, ``run`` meanwhile, ``close``."""

    def __init__(
        self,
        directory: StateDirectory,
        state: ServiceState,
        book: JobBook,
        config: JobsConfig,
        *,
        clock: Clock | None = None,
        wall_clock: Callable[[], float] = time.time,
        service_failed: Callable[[Path], bool] = service_failed,
    ) -> None:
        """Store in the directory, once it is open; service_failed: see last_end.py."""
        self._directory = directory
        self._state = state
        self._book = book
        self._config = config
        self._clock = LoopClock() if clock is None else clock
        self._wall_clock = wall_clock
        self._service_failed = service_failed
        self._store: JobStore | None = None
        self._pace: WritePace | None = None
        self.resumable = ResumableJobs(book, self._clock)
        self._entries: dict[str, DurableJob] = {}
        self._changed: set[str] = set()  # jobs whose transcript has grown or ended
        self._wake = asyncio.Event()
        self._suspects = Suspects()
        self._suspended: set[str] = set()  # jobs that are computed no more, and stored as if
        self._starting: set[asyncio.Task[None]] = set()
        self._lines: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._told = ""  # the fault that the journal knows of
        self._n_spent = 0  # of the store's bytes_written
        self._opened = asyncio.Event()

    @property
    def fault(self) -> str:
        """Why nothing is stored; empty: it is."""
        if self._directory.fault:
            return self._directory.fault
        return "the stored jobs are not open" if self._store is None else self._store.fault

    @property
    def n_stored(self) -> int:
        """Jobs that are stored and have not ended."""
        return sum(not entry.transcript.ended for entry in self._entries.values())

    # ---- the life of the service -----------------------------------------------------------------

    async def open(self) -> None:
        """Read what is stored; the jobs wait for their model."""
        self._pace = WritePace(self._config.write_bytes_per_day, self._clock.now())
        try:
            if self._directory.usable:
                await self._open()
        finally:
            self._opened.set()
        if self._state.serving is not None:
            self.model_loaded(self._state.serving)

    async def _open(self) -> None:
        path = Path(self._directory.path)
        failed = await asyncio.to_thread(self._service_failed, path)
        self._store = JobStore(
            path,
            max_bytes=self._config.max_bytes,
            keep_seconds=self._config.keep_days * 86400,
            wall_clock=self._wall_clock,
        )
        for living in await self._store.open():
            self._restore(living, suspects=failed)
        if self._entries:
            log.info(fields("stored jobs go on", jobs=self.n_stored))
        if self._suspects:
            log.warning(
                fields(
                    "the service failed: jobs that it computed go on one at a time",
                    jobs=len(self._suspects),
                )
            )

    async def run(self) -> None:
        """Store what changes, until cancelled."""
        while True:
            await self._wake.wait()
            assert self._pace is not None
            wait = self._pace.wait_seconds(self._clock.now())
            await asyncio.sleep(max(0.0 if self._suspects.on_trial else SAVE_SECONDS, wait))
            self._wake.clear()
            try:
                saved = await self._save()
            except Exception:
                log.exception("storing the progress of jobs failed")
                saved = False
            if not saved:
                self._wake.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self, *, clean: bool = True) -> None:
        """Store the last changes and end all readers; the jobs go on at the next start.

        ``clean``: the service was stopped; none of them is why it ends.
        """
        await asyncio.gather(*self._starting)
        await self._save()
        for entry in self._entries.values():
            entry.transcript.close(shutting_down())
        if self._store is not None:
            store, self._store = self._store, None
            await store.close(clean=clean)

    def model_loaded(self, serving: Serving) -> None:
        """Go on with the jobs of a model. One whose file was replaced ends them."""
        model = serving.model
        for entry in sorted(self._entries.values(), key=lambda e: self._suspects.rank(e.job)):
            job = entry.job
            if not job.suspended or job.state.ended or job.record.model != model.name:
                continue
            if not self._suspects.may_go_on(job.id):
                continue
            try:
                entry.check_model(model.digest, model.vocab_size)
                serving.scheduler.accept(job)
            except LlamadError as error:
                self._suspects.remove(job.id)
                self._book.end(job, JobState.FAILED, error=error)

    # ---- starts that are counted (suspects.py) ---------------------------------------------------

    def _on_start(self, entry: DurableJob) -> None:
        """Count a start before the job's first step; one that was only paused has been counted."""
        if entry.started:
            return
        entry.started = True
        self._suspended.discard(entry.job.id)
        starts = self._suspects.count(entry.job.id)
        if starts is not None:
            entry.job.start_pending = True
            task = asyncio.create_task(self._store_start(entry, starts))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _store_start(self, entry: DurableJob, starts: int) -> None:
        """Let the job be computed once its start is on the disk, or cannot be stored."""
        try:
            if self._store is not None:
                await self._store.start(entry.job.id, starts)
        except LlamadError as error:
            self._tell(error)
        finally:
            self._spend()
            entry.job.start_pending = False
            if self._state.serving is not None:
                self._state.serving.scheduler.wake()

    def _on_suspend(self, entry: DurableJob) -> None:
        """Suspect no job whose model goes while the service lives."""
        entry.started = False
        self._suspects.remove(entry.job.id)
        self._suspended.add(entry.job.id)
        self._wake.set()

    def _clear(self, job_id: str) -> None:
        """Suspect a job no more, and let the next one go on."""
        if self._suspects.remove(job_id) and self._state.serving is not None:
            self.model_loaded(self._state.serving)

    # ---- submitting ------------------------------------------------------------------------------

    async def submit(
        self, request: GenerationRequest, *, key: str, request_digest: str
    ) -> tuple[JobSnapshot, bool]:
        """Queue a job that is on the disk when this returns; and whether it was there, by its key.

        Raises NOT_DURABLE, JOBS_FULL, WRITE_BUDGET, IDEMPOTENCY_KEY_REUSED, and what
        ``Scheduler.submit`` and a service without a model raise.
        """
        await self._opened.wait()
        if self._store is None or not self._store.usable:
            raise not_durable(self.fault)
        owner = request.owner
        # A key's second submission waits until the first is stored, or was refused.
        line = self._lines.setdefault((owner, key), asyncio.Lock()) if key else asyncio.Lock()
        async with line:
            known = await self._store.by_key(owner, key) if key else None
            if known is not None:
                job_id, digest = known
                if digest != request_digest:
                    raise LlamadError(
                        ErrorKind.STATE,
                        "IDEMPOTENCY_KEY_REUSED",
                        f"idempotency_key {key!r} belongs to job {job_id}, which asked for"
                        " something else: take another key",
                    )
                return await self.find(job_id), True
            self._check_room()
            entry, stored = await self._begin(request, key, request_digest)
            await asyncio.shield(asyncio.create_task(self._keep(entry, stored)))
            return entry.job.record.snapshot(self._clock.now()), False

    def _check_room(self) -> None:
        """Refuse a job beyond the bounds. Raises JOBS_FULL, WRITE_BUDGET."""
        if self.n_stored >= self._config.capacity:
            raise LlamadError(
                ErrorKind.EXHAUSTED,
                "JOBS_FULL",
                f"{self.n_stored} submitted jobs have not ended, jobs.capacity allows no more",
                retry_after_seconds=60.0,
            )
        assert self._pace is not None
        wait = self._pace.wait_seconds(self._clock.now())
        if wait > MOST_WRITE_DEBT_SECONDS:
            raise LlamadError(
                ErrorKind.EXHAUSTED,
                "WRITE_BUDGET",
                f"jobs.write_bytes_per_day, {self._config.write_bytes_per_day}, is used up",
                retry_after_seconds=wait,
            )

    async def _begin(
        self, request: GenerationRequest, key: str, request_digest: str
    ) -> tuple[DurableJob, StoredJob]:
        """Queue a job, and return what there is to store of it."""
        serving = self._state.require()
        transcript = Transcript()
        job = await serving.scheduler.submit(request, transcript)
        record = job.record
        record.durable, record.idempotency_key = True, key
        record.submitted_unix = self._wall_clock()
        entry = DurableJob(job, transcript, serving.model.digest)
        self._hear(entry)
        return entry, StoredJob.of(record, serving.model.digest, request_digest)

    async def _keep(self, entry: DurableJob, stored: StoredJob) -> None:
        """Store a new job; one that cannot be stored is cancelled. Raises NOT_DURABLE."""
        assert self._store is not None
        try:
            await self._store.add(stored)
        except LlamadError:
            del self._entries[entry.job.id]
            self._book.abandon(entry.job)
            raise
        finally:
            self._spend()
        entry.stored = True
        self._note(entry)

    def _hear(self, entry: DurableJob) -> None:
        self._entries[entry.job.id] = entry
        entry.transcript.on_change = lambda: self._note(entry)
        entry.job.on_start = lambda: self._on_start(entry)
        entry.job.on_suspend = lambda: self._on_suspend(entry)

    def _restore(self, living: Living, *, suspects: bool) -> None:
        """Enter a stored job in the book; it waits for its model."""
        record = living.record(self._clock.now(), self._wall_clock())
        transcript = Transcript(living.deltas)
        job = Job(
            record,
            load_seconds=0.0,
            max_unread_bytes=0,
            on_abandon=self._book.abandon,
            on_end=lambda job: None,
            stream=transcript,
        )
        job.tokens = [*record.prompt_tokens, *living.tokens]
        job.suspended = True
        self._book.add(job)
        n_tokens, n_deltas = len(living.tokens), len(living.deltas)
        digest = living.job.model_digest
        self._hear(DurableJob(job, transcript, digest, n_tokens, n_deltas, stored=True))
        if living.starts is None or not suspects:
            return
        if living.starts < MOST_STARTS:
            self._suspects.add(job.id, living.starts)
            return
        error = given_up(job.id, living.starts)
        log.error(fields("stored job is given up", job=job.id, message=error.message))
        self._book.end(job, JobState.FAILED, error=error)

    # ---- storing ---------------------------------------------------------------------------------

    def _note(self, entry: DurableJob) -> None:
        self._changed.add(entry.job.id)
        self._wake.set()

    async def _save(self) -> bool:
        """Store what has changed in one transaction; return False when that failed."""
        entries = [self._entries[i] for i in self._changed if i in self._entries]
        entries = [entry for entry in entries if entry.stored]
        progress = [p for entry in entries if (p := entry.progress()) is not None]
        now, unix = self._clock.now(), self._wall_clock()
        ended = [entry.ended(now, unix) for entry in entries if entry.transcript.ended]
        suspended = list(self._suspended)
        if not progress and not ended and not suspended:
            self._changed.clear()
            return True
        assert self._store is not None
        try:
            await self._store.save(progress, ended, suspended)
        except LlamadError as error:
            self._tell(error)
            return False
        finally:
            self._spend()
        self._told = ""
        self._suspended.difference_update(suspended)
        self._changed.difference_update(entry.job.id for entry in entries)
        for part in progress:
            entry = self._entries[part.id]
            if entry.note_stored(part):
                self._note(entry)  # it grew meanwhile
            if self._suspects.progressed(part.id):
                when = self._clock.now() + TRIAL_SECONDS
                self._clock.call_at(when, partial(self._clear, part.id))
        for end in ended:
            del self._entries[end.id]
            self._clear(end.id)
        return True

    def _tell(self, error: LlamadError) -> None:
        """Write into the journal why something is not stored, once."""
        if error.message != self._told:
            self._told = error.message
            log.error(fields("progress of jobs not stored", message=error.message))

    def _spend(self) -> None:
        if self._store is not None and self._pace is not None:
            self._pace.spend(self._store.bytes_written - self._n_spent, self._clock.now())
            self._n_spent = self._store.bytes_written

    # ---- asking ----------------------------------------------------------------------------------

    async def find(self, job_id: str) -> JobSnapshot:
        """Return a job, in the book or stored. Raises JOB_NOT_FOUND."""
        try:
            return self._book.get(job_id)
        except LlamadError:
            ended = await self._stored(job_id)
            if ended is None:
                raise
            return self._aged(ended.outcome.snapshot)

    async def list(self, *, include_ended: bool) -> list[JobSnapshot]:
        """Return the jobs, oldest first; the ended ones with those that are only stored."""
        known = self._book.list(include_ended)
        if not include_ended or self._store is None or not self._store.usable:
            return known
        ids = {job.id for job in known}
        stored = [self._aged(outcome.snapshot) for _, outcome in await self._store.outcomes()]
        jobs = [*(job for job in stored if job.id not in ids), *known]
        return sorted(jobs, key=lambda job: job.submitted_at)

    async def resume(
        self, job_id: str, from_token: int, *, wait: bool, allow: Callable[[JobSnapshot], None]
    ) -> Reader:
        """Return a reader of a job's events; ``aclose`` it. ``allow`` raises for a stranger.

        Raises JOB_NOT_FOUND, NOT_RESUMABLE, and what ``allow`` raises.
        """
        snapshot = await self.find(job_id)
        allow(snapshot)
        reader = self.resumable.read(job_id, from_token, wait=wait)
        if reader is not None:
            return reader
        entry = self._entries.get(job_id)
        if entry is not None:
            return entry.transcript.read(from_token, wait=wait)
        ended = await self._stored(job_id)
        if ended is None:
            raise LlamadError(
                ErrorKind.STATE,
                "NOT_RESUMABLE",
                f"job {job_id} was neither submitted nor resumable: its text is not kept",
            )
        transcript = Transcript(ended.deltas)
        if ended.outcome.finished is not None:
            transcript.put(ended.outcome.finished)
        error = ended.outcome.error
        transcript.end(None if error is None else error.error())
        return transcript.read(from_token)

    async def _stored(self, job_id: str) -> Ended | None:
        await self._opened.wait()
        if self._store is None or not self._store.usable:
            return None
        return await self._store.ended(job_id)

    def _aged(self, snapshot: JobSnapshot) -> JobSnapshot:
        """Return the snapshot of a stored job with its times as they are now."""
        age = max(0.0, self._wall_clock() - (snapshot.submitted_unix or 0.0))
        submitted_at = self._clock.now() - age
        return dataclasses.replace(snapshot, age_seconds=age, submitted_at=submitted_at)
