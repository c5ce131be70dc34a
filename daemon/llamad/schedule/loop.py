"""The one scheduling loop: from accepted requests to finished jobs.

DESIGN. A request is tokenized, waits, starts as soon as a place and the KV blocks for its prompt
are free, and then takes part in steps until it ends. The loop composes a step, the engine thread
computes it, the loop reads the result: text, stop conditions, the next step. Everything here runs
on the event loop's thread, so between two awaits nothing changes under it; it sleeps on one event
and wakes for nothing else.

A job ends (book.py) at the moment it is cancelled, fails or finishes. Its blocks go back when the
loop is between two steps. A step goes on as long as one of its jobs lives: nobody's cancel costs
others what is computed for them. It is interrupted when all of its jobs have ended, when the loop
is stopped, and for an interactive job, as far as the others can spare it (interruption.py).

Does not own: what is accepted (intake.py), the end of a job (book.py), the order (policy.py), the
rows of a step (step.py), what a token means (outcome.py), C (engine/worker.py).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from llamad.clock import Clock, LoopClock
from llamad.engine.worker import EngineWorker, StepPlan
from llamad.errors import ErrorKind, LlamadError, shutting_down
from llamad.jobs.book import JobBook
from llamad.jobs.event import EventStream
from llamad.jobs.job import Job
from llamad.jobs.record import JobState
from llamad.jobs.request import GenerationRequest
from llamad.logs import fields
from llamad.schedule.blocks import BlockPool, pool_of
from llamad.schedule.cost import StepCost
from llamad.schedule.counts import Counts
from llamad.schedule.deadlines import Deadlines
from llamad.schedule.draft import Drafts
from llamad.schedule.draft_choice import planner_of
from llamad.schedule.encoder import Encoder
from llamad.schedule.estimate import Estimate
from llamad.schedule.format_compiler import FormatCompiler
from llamad.schedule.generation import Generation
from llamad.schedule.intake import Intake
from llamad.schedule.interruption import Interruptions
from llamad.schedule.limits import Limits
from llamad.schedule.outcome import Outcome
from llamad.schedule.places import Places
from llamad.schedule.policy import Policy
from llamad.schedule.prefix_reuse import PrefixReuse, SavedBlocks
from llamad.schedule.prompt import Prompt, adapter_of, encode_prompt, prompt_bytes
from llamad.schedule.queue_reports import QueueReports
from llamad.schedule.runtime import ModelRuntime
from llamad.schedule.shares import Shares
from llamad.schedule.speculation import Speculation
from llamad.schedule.states import StatePool
from llamad.schedule.step import Part, StepComposer

logger = logging.getLogger(__name__)

T = TypeVar("T")

MODEL_LOST = "MODEL_FILE_LOST"  # the engine's reason for a mapped file that lost pages


class Observer(Protocol):
    """Who wants to know what happened; called on the event loop's thread, must be quick."""

    def on_model_failed(self, error: LlamadError) -> None:
        """Take note that the model's file was lost: no job can run any more."""


class Scheduler:
    """Accept requests for one loaded model and run them together, step by step."""

    def __init__(
        self,
        model: ModelRuntime,
        worker: EngineWorker,
        book: JobBook,
        limits: Limits,
        *,
        clock: Clock | None = None,
        encoder: Encoder | None = None,
        observer: Observer | None = None,
        on_step: Callable[[int, float], None] = lambda n_rows, seconds: None,
        shares: Shares | None = None,
    ) -> None:
        """Schedule for one loaded model; ``clock`` None is the event loop's.

        ``on_step`` hears of every step that succeeded: its rows, and how long it took. ``shares``:
        what owners used before, on the same clock.
        """
        self._model = model
        self._worker = worker
        self._book = book
        self._limits = limits
        self._clock = LoopClock() if clock is None else clock
        self._observer = observer
        self._on_step = on_step
        block, interval = model.kv_block_tokens, model.state_interval
        states = StatePool(model.n_states, model.n_sequences, block, interval)
        self._pool = pool_of(model, states)
        self._reuse = PrefixReuse(self._pool)
        self._cost = StepCost()
        self._shares = Shares() if shares is None else shares
        self._estimate = Estimate(self._cost, model.n_sequences, model.n_batch)
        self._policy = Policy(self._shares, self._estimate.compute_seconds, limits.ageing_seconds)
        self._places = Places(self._pool, self._policy, self._estimate, model.n_sequences)
        encoder = Encoder() if encoder is None else encoder
        self._intake = Intake(model, self._places, book, limits, self._clock, encoder)
        self._reports = QueueReports()
        self._speculation = Speculation()
        self._composer = StepComposer(
            self._pool,
            self._reuse,
            self._cost,
            self._policy,
            self._speculation,
            n_batch=model.n_batch,
            guess_rows=model.guess_rows,
            whole_texts=model.is_encoder,
        )
        self._deadlines = Deadlines(book, self._clock)
        self._drafts = Drafts(
            planner_of(model, self._pool, self._speculation),
            worker,
            self._composer,
            self._cost,
            self._speculation,
            lambda rows, seconds: self._shares.charge(rows, seconds, self._clock.now()),
        )
        self._outcome = Outcome(book, model.tokenizer, self._estimate, limits.stream_buffer_bytes)
        self._formats = FormatCompiler(
            model,
            self._intake.encode,
            wake=self.wake,
            fail=lambda job, error: self._fail(job, _for_client(error, "compiling a format")),
        )
        self._in_flight: tuple[Job, ...] = ()  # jobs of the step the engine computes now
        self._interruptions = Interruptions()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def model(self) -> ModelRuntime:
        """The model whose jobs run here."""
        return self._model

    def attach(self, saved: SavedBlocks) -> BlockPool:
        """Tell of blocks that could be saved, and wait for those that come from elsewhere."""
        self._reuse.saved = saved
        return self._pool

    def wake(self) -> None:
        """Look again at what can be computed."""
        self._wake.set()

    def change_limits(self, limits: Limits) -> None:
        """Bound the requests from now on."""
        self._limits = self._intake.limits = limits
        self._policy.ageing_seconds = limits.ageing_seconds
        self._outcome.stream_buffer_bytes = limits.stream_buffer_bytes

    @property
    def failure(self) -> LlamadError | None:
        """Why the model is dead (its file was lost); None while it lives."""
        return self._intake.failure

    async def submit(self, request: GenerationRequest, stream: EventStream | None = None) -> Job:
        """Queue a request; its events come through ``job.stream``, a Queued first.

        ``stream``: takes the events instead of a subscription.

        The consumer must ``aclose`` the stream when it leaves early. Raises LlamadError:
        QUEUE_FULL, OWNER_QUEUE_FULL, PRIORITY_NOT_ALLOWED, MODEL_NOT_FOUND, PROMPT_TOO_LONG,
        INVALID_PROMPT, INVALID_SAMPLING_LOGIT_BIAS, INVALID_SCHEMA, INVALID_GRAMMAR,
        DEADLINE_EXCEEDED, QUEUE_TIMEOUT, the template's error, the failure of the model or what
        ``drain`` says.
        """
        record = await self._intake.record(request, self._formats)
        job = Job(
            record,
            load_seconds=self._model.load_seconds,
            max_unread_bytes=self._limits.stream_buffer_bytes,
            on_abandon=self._book.abandon,
            on_end=self._on_end,
            stream=stream,
        )
        self._add(job)
        return job

    async def render(self, request: GenerationRequest) -> Prompt:
        """Return what a request would give the model to read. Raises what ``tokenize`` raises."""
        return await self.tokenize(
            lambda: encode_prompt(self._model, request), prompt_bytes(request)
        )

    async def tokenize(self, function: Callable[[], T], n_bytes: int) -> T:
        """Run a tokenizer's work on a text of this size, off the event loop, in a bounded line.

        It takes no place of a job, and no job takes one of it. Raises QUEUE_FULL, and what
        ``submit`` raises when nothing new is accepted.
        """
        return await self._intake.tokenize(function, n_bytes)

    def counts(self) -> Counts:
        """Return the numbers of GetStatus."""
        return Counts(
            queued=len(self._places.queued),
            running=sum(not generation.job.ended for generation in self._places.running),
            queue_capacity=self._limits.queue_capacity,
            sequence_slots=self._model.n_sequences,
            kv_blocks_total=self._pool.n_blocks,
            kv_blocks_free=self._pool.n_free,
            kv_blocks_cached=self._pool.n_cached,
            prefix=replace(self._reuse.counts),
            seconds_per_token=sum(self._cost.line()),
            draft=self._drafts.counts(),
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
            refusal = self._intake.refusal = self._intake.refusal or shutting_down
            self._intake.close()
            self._formats.close()
            self._book.refuse(self._jobs(), refusal)
            self._idle.set()

    async def drain(
        self, deadline_seconds: float, refusal: Callable[[], LlamadError] = shutting_down
    ) -> None:
        """Refuse new and queued jobs, let running ones finish until the deadline, cancel the rest.

        ``refusal`` returns what those hear. Returns when no job is left. ``run`` must still be
        running.
        """
        self._intake.refusal = refusal
        self._intake.close()
        self._book.refuse(
            (job for job in self._jobs() if job.record.durable or job.record.started_at is None),
            refusal,
        )
        timer = self._clock.call_at(
            self._clock.now() + deadline_seconds,
            lambda: self._book.refuse(self._jobs(), refusal),
        )
        try:
            await self._idle.wait()
        finally:
            timer.cancel()

    # ---- jobs that come and end -------------------------------------------------------------

    def _jobs(self) -> list[Job]:
        return [generation.job for generation in (*self._places.waiting, *self._places.running)]

    def accept(self, job: Job) -> None:
        """Go on with a suspended job of this model.

        Raises DEADLINE_EXCEEDED, what is wrong with its adapter, the failure of the model or what
        ``drain`` says.
        """
        self._intake.check()
        adapter_of(self._model, job.record.request)
        job.resume(self._on_end, self._model.load_seconds)
        self._add(job)

    def _add(self, job: Job) -> None:
        """Let a job wait for its turn. Raises DEADLINE_EXCEEDED."""
        generation = Generation(job, self._model, speculation=self._limits.speculation)
        self._deadlines.set(job, self._limits.deadline_seconds)
        self._book.add(job)
        now = self._clock.now()
        self._places.add(generation, now)
        ordered, waits = self._places.expected(now)
        position = ordered.index(generation)
        self._reports.first(generation, position, waits[position] if waits else None, now)
        self._idle.clear()
        self._wake.set()
        if self._interruptions.take(generation, now):
            self._worker.cancel()

    def _on_end(self, job: Job) -> None:
        """Interrupt the step when it is computed for nobody any more."""
        if self._in_flight and all(other.ended for other in self._in_flight):
            self._worker.cancel()
        self._places.note_end()
        self._wake.set()

    # ---- the loop ---------------------------------------------------------------------------

    async def _turn(self) -> bool:
        """Free, start, compute one step, read its result; return False when there was none."""
        self._worker.cancel_clear()
        await self._drafts.prepare(self._places.running, self._limits.step_seconds)
        began = self._clock.now()
        self._places.free_ended(began)
        if not self._places.running and not self._places.waiting:
            self._idle.set()
        self._start_waiting(began)
        step = self._compose(began)
        if not step:
            return False
        try:
            result = await self._compute(step)
        except Exception as error:
            self._step_failed(step, _for_client(error, "step"))
            return True
        now = self._clock.now()
        self._speculation.observe(step, result, now - began)
        self._drafts.note_step(step, result)
        self._account(step, began, now)
        for (generation, chunk), drawn in zip(step, result, strict=True):
            try:
                self._outcome.apply(generation, chunk, drawn, now)
                self._policy.note_row(generation, now)
                self._reuse.share(generation)
            except Exception as error:
                self._fail(generation.job, _for_client(error, "reading a token"))
        return True

    async def _compute(self, step: Sequence[Part]) -> tuple[tuple[int, ...] | LlamadError, ...]:
        generations = [generation for generation, _ in step]
        self._in_flight = tuple(generation.job for generation in generations)
        repeatable = all(self._pool.states.can_repeat(g.sequence) for g in generations)
        self._interruptions.begin(generations, self._clock.now(), repeatable=repeatable)
        try:
            return await self._worker.step(StepPlan(tuple(chunk for _, chunk in step)))
        finally:
            self._in_flight = ()
            self._interruptions.end(self._clock.now())

    def _start_waiting(self, now: float) -> None:
        """Give places to jobs in their order, and tell those that go on waiting where they are."""
        while (generation := self._places.next(now)) is not None:
            try:
                generation.start(self._model)
            except Exception as error:
                self._fail(generation.job, _for_client(error, "starting a job"))
                self._places.free_ended(now)
                continue
            record = generation.job.record
            if record.started_at is None:
                generation.progress_at = record.started_at = now
            self._reuse.take(generation)
            generation.job.on_start()
            generation.job.move(JobState.PREFILL)
            self._composer.come(generation, self._places.running)
            if generation.format_coming:
                self._formats.compile_later(generation)
        if self._reports.due(now):
            self._reports.tell(*self._places.expected(now), now)

    def _compose(self, now: float) -> list[Part]:
        """Compose a step; those that gave their blocks back for it wait again."""
        self._cost.read_seconds = self._model.step_read_seconds
        running = [g for g in self._places.running if not (g.job.start_pending or g.format_coming)]
        step, preempted = self._composer.compose(running, self._limits.step_seconds, now)
        self._places.wait_again(preempted, now)
        self._estimate.note_step([g for g, _ in step], self._limits.step_seconds)
        return step

    def _account(self, step: Sequence[Part], began: float, now: float) -> None:
        """Charge a step to the owners of its rows, and learn from it what steps cost."""
        rows: Counter[str] = Counter()
        for generation, chunk in step:
            rows[generation.standing.owner] += len(chunk.tokens)
        self._cost.observe(rows.total(), now - began)
        self._shares.charge(rows, now - began, now)
        self._on_step(rows.total(), now - began)

    # ---- failing ----------------------------------------------------------------------------

    def _fail(self, job: Job, error: LlamadError) -> None:
        self._book.end(job, JobState.FAILED, error=error)

    def _step_failed(self, step: Sequence[Part], error: LlamadError) -> None:
        if error.kind is ErrorKind.CANCELLED:  # those that live compute it again
            for generation, _ in step:
                if not generation.job.ended:
                    self._pool.states.withdraw(generation.sequence)
            return
        jobs = [generation.job for generation, _ in step]
        if error.reason == MODEL_LOST:
            self._intake.failure = error.with_traceback(None)  # which has this step, and would stay
            jobs = self._jobs()
            logger.error(fields("model lost", model=self._model.name, error=error.message))
            if self._observer is not None:
                self._observer.on_model_failed(error)
        for job in jobs:
            if error.reason == MODEL_LOST and job.record.durable:
                job.suspend()
            else:
                self._fail(job, error)


def _for_client(error: Exception, doing: str) -> LlamadError:
    """Return the error a client may see; a bug goes to the log, with its traceback."""
    if isinstance(error, LlamadError):
        return error
    logger.error("%s failed", doing, exc_info=error)
    return LlamadError(
        ErrorKind.INTERNAL, "INTERNAL", "internal error; the journal has the details"
    )
