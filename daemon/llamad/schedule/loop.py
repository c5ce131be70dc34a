"""The one scheduling loop: from accepted requests to finished jobs.

DESIGN. A request is tokenized, queued, started as soon as a sequence and its KV blocks are free
(first in, first out), and then takes part in every step until it ends. The loop composes a step,
the engine thread computes it, the loop reads the result: text, stop conditions, the next step.
Everything here runs on the event loop's thread, so between two awaits nothing changes under it; it
sleeps on one event and wakes for nothing else.

A job ends at the moment it is cancelled, fails or finishes: its stream closes, its place in the
queue is free. Only its sequence may live on, until the loop is back from a step that still holds
it; that step is interrupted, leaves the KV cache as it was, and is composed anew without the job.
No sampler has drawn then, so the other jobs' results are what they would have been.

Does not own: the order of the queue (queue.py), the rows of a step (batch.py), what is known of
ended jobs (history.py), C (engine/worker.py).
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamad.clock import Clock, LoopClock
from llamad.engine.worker import Chunk, Drawn, EngineWorker, StepPlan, StepResult
from llamad.errors import ErrorKind, LlamadError, shutting_down
from llamad.jobs.book import JobHistory
from llamad.jobs.event import Delta, Finished, FinishReason, PrefillProgress, Queued, Timings
from llamad.jobs.record import Job, JobSnapshot, JobState
from llamad.jobs.request import GenerationRequest
from llamad.jobs.subscription import JobStream
from llamad.logs import fields
from llamad.schedule.completion import Running, start
from llamad.schedule.prompt import check_model, completion_limit, encode_prompt
from llamad.schedule.queue import JobQueue
from llamad.schedule.runtime import ModelRuntime
from llamad.schedule.slots import SequenceSlots
from llamad.schedule.step import compose

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_SECONDS = 0.25
MODEL_LOST = "MODEL_FILE_LOST"  # the engine's reason for a mapped file that lost pages


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured bounds. Jobs, rows, bytes, seconds."""

    queue_capacity: int = 64
    prefill_chunk: int = 128  # prompt rows in a step while other sequences decode
    history: int = 100  # ended jobs that are remembered
    stream_buffer_bytes: int = 1 << 20  # unread text of one client
    deadline_seconds: float = 0.0  # of a request that names none; 0 is none
    speculation: bool = False  # of a request that does not say


@dataclass(frozen=True, slots=True)
class Counts:
    """What GetStatus tells about jobs and cache; the last three are totals since the start."""

    queued: int
    running: int
    queue_capacity: int
    sequence_slots: int
    kv_blocks_total: int
    kv_blocks_free: int
    requests_finished: int
    prompt_tokens: int
    generated_tokens: int


class Observer(Protocol):
    """Who wants to know what happened; called on the event loop's thread, must be quick."""

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Take note of a job that finished, failed or was cancelled."""

    def on_model_failed(self, error: LlamadError) -> None:
        """Take note that the model's file was lost: no job can run any more."""


class Scheduler:
    """Accept requests, run them in FIFO order with continuous batching, remember the ended ones."""

    def __init__(
        self,
        model: ModelRuntime,
        worker: EngineWorker,
        limits: Limits,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Schedule for one loaded model; ``clock`` None is the event loop's."""
        self._model = model
        self._worker = worker
        self._limits = limits
        self._clock = LoopClock() if clock is None else clock
        self._observer = observer
        self._queue = JobQueue(limits.queue_capacity)
        self._slots = SequenceSlots(
            n_sequences=model.n_sequences,
            n_blocks=model.kv_blocks_total,
            block_tokens=model.kv_block_tokens,
        )
        self._jobs: dict[str, Job] = {}  # queued and running, oldest first
        self._running: list[Running] = []  # with a sequence, oldest first; some may have ended
        self._in_flight: frozenset[str] = frozenset()  # jobs of the step the engine computes now
        self._history = JobHistory(limits.history)
        self._encoding = asyncio.Lock()  # prompts are tokenized one at a time, in arrival order
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: Callable[[], LlamadError] | None = None  # of everything new
        self._failure: LlamadError | None = None
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def change_limits(self, limits: Limits) -> None:
        """Bound the requests from now on; the sizes of the queue and of the history stay."""
        self._limits = limits

    @property
    def failure(self) -> LlamadError | None:
        """Why the model is dead (its file was lost); None while it lives."""
        return self._failure

    async def submit(self, request: GenerationRequest) -> Job:
        """Queue a request; its events come through ``job.stream``, a Queued first.

        The consumer must ``aclose`` the stream when it leaves early. Raises LlamadError:
        QUEUE_FULL, MODEL_NOT_FOUND, PROMPT_TOO_LONG, INVALID_PROMPT, INVALID_SAMPLING_LOGIT_BIAS,
        DEADLINE_EXCEEDED, the template's error, the failure of the model or what ``drain`` says.
        """
        submitted_at = self._clock.now()
        self._check_accepting()
        check_model(self._model, request)
        self._queue.reserve(self._retry_after_seconds())
        try:
            async with self._encoding:
                tokens = await asyncio.to_thread(encode_prompt, self._model, request)
            self._check_accepting()  # that may have changed meanwhile
            return self._enqueue(request, tokens, submitted_at)
        finally:
            self._queue.release()

    def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job; one that has ended is no error. Raises JOB_NOT_FOUND.

        The stream ends with ``Finished(reason=CANCELLED)``.
        """
        job = self._jobs.get(job_id)
        if job is None:
            return self.get(job_id)
        self._cancel(job)
        return job.snapshot(self._clock.now())

    def get(self, job_id: str) -> JobSnapshot:
        """Return one job, running or remembered. Raises JOB_NOT_FOUND."""
        now = self._clock.now()
        job = self._jobs.get(job_id)
        if job is not None:
            return job.snapshot(now)
        ended = self._history.get(job_id, now)
        if ended is None:
            raise LlamadError(ErrorKind.NOT_FOUND, "JOB_NOT_FOUND", f"no job {job_id!r}")
        return ended

    def list(self, include_ended: bool = False) -> list[JobSnapshot]:
        """Return the jobs, newest last."""
        ids = [*self._history.ids(), *self._jobs] if include_ended else self._jobs
        return sorted((self.get(job_id) for job_id in ids), key=lambda job: job.submitted_at)

    def watch(self, job_id: str) -> AsyncIterator[JobSnapshot]:
        """Iterate over the job now and after each change, skipping what the reader missed.

        Ends after the snapshot of the ended job. Raises JOB_NOT_FOUND at once.
        """
        return self._changes(self._jobs.get(job_id), self.get(job_id))

    def counts(self) -> Counts:
        """Return the numbers of GetStatus."""
        return Counts(
            queued=len(self._queue),
            running=len(self._jobs) - len(self._queue),
            queue_capacity=self._queue.capacity,
            sequence_slots=self._slots.n_sequences,
            kv_blocks_total=self._slots.n_blocks,
            kv_blocks_free=self._slots.free_blocks,
            requests_finished=self._history.n_finished,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
        )

    async def run(self) -> None:
        """Run steps until cancelled; lives in the daemon's TaskGroup."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while await self._turn():
                    pass
        finally:
            self._refusal = self._refusal or shutting_down
            self._refuse([*self._jobs.values()], self._refusal)
            self._idle.set()

    async def drain(
        self, deadline_seconds: float, refusal: Callable[[], LlamadError] = shutting_down
    ) -> None:
        """Refuse new and queued jobs, let running ones finish until the deadline, cancel the rest.

        ``refusal`` returns what those hear. Returns when no job is left. ``run`` must still be
        running.
        """
        self._refusal = refusal
        self._refuse(self._queue.jobs(), refusal)
        timer = self._clock.call_at(
            self._clock.now() + deadline_seconds,
            lambda: self._refuse([*self._jobs.values()], refusal),
        )
        try:
            await self._idle.wait()
        finally:
            timer.cancel()

    # ---- accepting --------------------------------------------------------------------------

    def _check_accepting(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # raised often: let no traceback grow
        if self._refusal is not None:
            raise self._refusal()

    def _retry_after_seconds(self) -> float:
        """Return when a place is likely to be free: after one mean job, in 1..60 seconds."""
        return min(60.0, max(1.0, self._history.mean_run_seconds / self._slots.n_sequences))

    def _enqueue(
        self, request: GenerationRequest, tokens: tuple[int, ...], submitted_at: float
    ) -> Job:
        seed = request.sampling.seed
        job = Job(
            request,
            tokens,
            model=self._model.name,
            max_tokens=completion_limit(self._model, request, len(tokens)),
            seed=secrets.randbits(32) if seed is None else seed,
            submitted_at=submitted_at,
            stream=JobStream(
                max_bytes=self._limits.stream_buffer_bytes, on_abandon=lambda: self._cancel(job)
            ),
        )
        seconds = request.deadline_seconds or self._limits.deadline_seconds
        if seconds:
            if self._clock.now() >= submitted_at + seconds:
                raise _deadline_exceeded(seconds)
            job.deadline = self._clock.call_at(
                submitted_at + seconds,
                lambda: self._end(job, JobState.FAILED, error=_deadline_exceeded(seconds)),
            )
        self._jobs[job.id] = job
        position = self._queue.append(job)
        job.stream.put(Queued(job.id, position, len(tokens)))
        self._idle.clear()
        self._wake.set()
        return job

    # ---- ending -----------------------------------------------------------------------------

    def _cancel(self, job: Job) -> None:
        self._end(job, JobState.CANCELLED, reason=FinishReason.CANCELLED)

    def _refuse(self, jobs: Iterable[Job], refusal: Callable[[], LlamadError]) -> None:
        for job in jobs:
            self._end(job, JobState.CANCELLED, error=refusal())

    def _end(
        self,
        job: Job,
        state: JobState,
        *,
        reason: FinishReason | None = None,
        error: LlamadError | None = None,
    ) -> None:
        """End a job now, with a Finished event or an error; one that has ended stays as it is."""
        if job.state.ended:
            return
        now = self._clock.now()
        job.ended_at = now
        job.finish_reason = reason
        job.error = error
        job.move(state)
        timings = job.timings(now, self._model.load_seconds)
        if reason is not None:
            job.stream.put(self._finished(job, reason, timings))
        job.stream.end(error)
        if job.deadline is not None:
            job.deadline.cancel()
        self._queue.remove(job.id)
        del self._jobs[job.id]
        if job.id in self._in_flight:
            self._worker.cancel()
        self._wake.set()
        snapshot = job.snapshot(now)
        self._history.add(snapshot, timings)
        if self._observer is not None:
            self._observer.on_ended(snapshot, timings)

    def _finished(self, job: Job, reason: FinishReason, timings: Timings) -> Finished:
        return Finished(
            job_id=job.id,
            model=job.model,
            reason=reason,
            prompt_tokens=len(job.prompt_tokens),
            completion_tokens=job.completion_tokens,
            cached_prompt_tokens=0,
            timings=timings,
            seed=job.seed,
            stop_string=job.stop_string,
        )

    # ---- the loop ---------------------------------------------------------------------------

    async def _turn(self) -> bool:
        """Free, start, compute one step, read its result; return False when there was none."""
        self._worker.cancel_clear()
        await self._free_ended()
        self._start_queued()
        step = compose(
            self._running,
            n_batch=self._model.n_batch,
            prefill_chunk=self._limits.prefill_chunk,
            guess_rows=self._model.guess_rows,
        )
        if not step:
            return False
        jobs = [entry.job for entry, _ in step]
        try:
            result = await self._compute(jobs, StepPlan(tuple(chunk for _, chunk in step)))
        except Exception as error:
            self._step_failed(jobs, _for_client(error, "step"))
        else:
            for (entry, chunk), drawn in zip(step, result, strict=True):
                self._read(entry, chunk, drawn)
        return True

    async def _compute(self, jobs: Sequence[Job], plan: StepPlan) -> StepResult:
        self._in_flight = frozenset(job.id for job in jobs)
        try:
            return await self._worker.step(plan)
        finally:
            self._in_flight = frozenset()

    async def _free_ended(self) -> None:
        """Free the sequences of ended jobs, those too that end while another one is freed."""
        while ended := [entry for entry in self._running if entry.job.state.ended]:
            entry = ended[0]
            await self._worker.release(entry.slot.sequence)
            self._slots.give_back(entry.slot)
            self._running.remove(entry)
        if not self._jobs and not self._running:
            self._idle.set()

    def _start_queued(self) -> None:
        while (job := self._queue.head()) is not None:
            slot = self._slots.take(len(job.prompt_tokens) + job.max_tokens)
            if slot is None:
                return
            try:
                entry = start(job, slot, self._model, speculation=self._limits.speculation)
            except Exception as error:
                self._slots.give_back(slot)
                self._end(job, JobState.FAILED, error=_for_client(error, "starting a job"))
                continue
            self._queue.remove(job.id)
            entry.progress_at = job.started_at = self._clock.now()
            job.move(JobState.PREFILL)
            self._running.append(entry)

    def _step_failed(self, jobs: Sequence[Job], error: LlamadError) -> None:
        if error.kind is ErrorKind.CANCELLED:
            return  # a job of the step has ended; the next turn goes on without it
        if error.reason == MODEL_LOST:
            self._failure = error
            jobs = [*self._jobs.values()]
            logger.error(fields("model lost", model=self._model.name, error=error.message))
            if self._observer is not None:
                self._observer.on_model_failed(error)
        for job in jobs:
            self._end(job, JobState.FAILED, error=error)

    # ---- reading a step's result ------------------------------------------------------------

    def _read(self, entry: Running, chunk: Chunk, drawn: Drawn) -> None:
        job = entry.job
        if job.state.ended:
            return
        if isinstance(drawn, LlamadError):
            self._end(job, JobState.FAILED, error=drawn)
            return
        entry.n_cached += len(chunk.tokens) - chunk.n_drafts + max(0, len(drawn) - 1)
        if job.state is JobState.PREFILL:
            self._read_prompt_rows(entry, len(chunk.tokens))
        if entry.lookup is not None and chunk.n_drafts:
            entry.lookup.judge(chunk.n_drafts, len(drawn) - 1)
        try:
            for token in drawn:
                if not job.state.ended:
                    self._read_token(entry, token)
        except Exception as error:
            self._end(job, JobState.FAILED, error=_for_client(error, "reading a token"))

    def _read_prompt_rows(self, entry: Running, n_rows: int) -> None:
        """Count prompt rows; tell of progress in a prompt that takes more than one step."""
        job, now = entry.job, self._clock.now()
        job.processed_prompt_tokens += n_rows
        self._prompt_tokens += n_rows
        complete = job.processed_prompt_tokens == len(job.prompt_tokens)
        due = now - entry.progress_at >= PROGRESS_INTERVAL_SECONDS
        if due or (complete and n_rows < len(job.prompt_tokens)):
            entry.progress_at = now
            job.stream.put(PrefillProgress(job.processed_prompt_tokens, len(job.prompt_tokens)))
        job.touch()

    def _read_token(self, entry: Running, token: int) -> None:
        """Turn a drawn token into text and decide whether the completion ends with it."""
        job = entry.job
        job.last_token_at = self._clock.now()
        if job.first_token_at is None:
            job.first_token_at = job.last_token_at
            job.move(JobState.DECODE)
        entry.last_token = token
        if entry.lookup is not None:
            entry.lookup.append(token)
        job.completion_tokens += 1
        self._generated_tokens += 1
        text, stop_string, reason = "", None, None
        if self._model.tokenizer.is_end_of_generation(token):
            reason = FinishReason.STOP
        else:
            text, stop_string = entry.text.push(token)
            if job.completion_tokens >= job.max_tokens:
                reason = FinishReason.LENGTH
        if reason is not None and stop_string is None:
            rest, stop_string = entry.text.flush()
            text += rest
        if stop_string is not None:
            job.stop_string, reason = stop_string, FinishReason.STOP_STRING
        if text and not job.stream.put(Delta(text, job.completion_tokens)):
            self._end(job, JobState.CANCELLED, error=_slow_client(self._limits.stream_buffer_bytes))
        elif reason is not None:
            self._end(job, JobState.FINISHED, reason=reason)
        else:
            job.touch()

    async def _changes(self, job: Job | None, ended: JobSnapshot) -> AsyncIterator[JobSnapshot]:
        if job is None:
            yield ended
            return
        while True:
            changed = job.changed
            snapshot = job.snapshot(self._clock.now())
            yield snapshot
            if snapshot.state.ended:
                return
            await changed.wait()


def _deadline_exceeded(seconds: float) -> LlamadError:
    return LlamadError(
        ErrorKind.DEADLINE, "DEADLINE_EXCEEDED", f"the deadline of {seconds:g} seconds has passed"
    )


def _slow_client(max_bytes: int) -> LlamadError:
    return LlamadError(
        ErrorKind.CANCELLED,
        "SLOW_CLIENT",
        f"the client left {max_bytes} bytes of text unread, so the job was cancelled",
    )


def _for_client(error: Exception, doing: str) -> LlamadError:
    """Return the error a client may see; a bug goes to the log, with its traceback."""
    if isinstance(error, LlamadError):
        return error
    logger.error("%s failed", doing, exc_info=error)
    return LlamadError(
        ErrorKind.INTERNAL, "INTERNAL", "internal error; the journal has the details"
    )
