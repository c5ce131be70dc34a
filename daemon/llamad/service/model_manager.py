"""The one model in memory: load it, serve it, let it go, load another.

Owns the order of these and what clients, systemd and the journal hear of it. At most one model is
in memory at a time: a board that holds one cannot hold two, so a model is closed before the next
is loaded, and loaded again when the next fails; what can be told of the next before, is. What runs
is given the drain time; whatever comes meanwhile is told to come back. Everything on the event
loop's thread, loading and closing on others.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from llamad.clock import LoopClock
from llamad.config import Config
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.errors import ErrorKind, LlamadError, shutting_down
from llamad.jobs.book import JobBook
from llamad.jobs.event import Timings
from llamad.jobs.record import JobSnapshot
from llamad.logs import fields
from llamad.memory.plan import MemoryPlan
from llamad.schedule.loop import Scheduler
from llamad.schedule.shares import Shares
from llamad.service.disk_meter import DiskMeter
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.service.memory_watch import watching
from llamad.service.model_check import check_model
from llamad.service.model_choice import ModelChoice
from llamad.service.model_facts import facts_of
from llamad.service.prefix_setup import prefixes_of
from llamad.service.queue_limits import limits_of
from llamad.service.settings import ctx_sizes
from llamad.service.state import ModelFacts, Phase, ServiceState, Serving
from llamad.service.state_directory import StateDirectory
from llamad.sizes import compact_size
from llamad.store.registry import ModelFile, ModelRegistry
from llamad.systemd import Notifier

log = logging.getLogger(__name__)

BUSY_RETRY_SECONDS = 2.0
NO_MODEL_YET = (
    'no model yet: "llamactl pull demo" fetches a small one, "llamactl models --catalogue" lists'
    " others"
)
UNLOADED = 'no model is loaded: "llamactl use NAME" loads one'
UNLOADING = 'running requests end before the model is unloaded: "llamactl use NAME" loads one'


@dataclass(slots=True)
class _Change:
    """What an administrator asked for: a model, or none. In force until it is answered."""

    file: ModelFile | None
    answer: "asyncio.Future[ModelFacts | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    error: LlamadError | None = None  # why it was not done


class ModelManager:
    """The life of the models of one run: ``run`` once; it is also the scheduler's Observer."""

    def __init__(
        self,
        config: Config,
        registry: ModelRegistry,
        state: ServiceState,
        notifier: Notifier,
        book: JobBook,
        directory: StateDirectory,
        *,
        set_serving: Callable[[bool], None],
        on_step: Callable[[int, float], None],
        model_required: bool,
    ) -> None:
        """Live in this state; prefixes are saved in ``directory``.

        ``set_serving`` tells the health service.

        ``on_step`` hears the rows and the seconds of every step.
        ``model_required`` ends the run when the first model cannot be loaded.
        """
        self._config = config
        self._choice = ModelChoice(config.model.path, registry)
        self._state = state
        self._notifier = notifier
        self._book = book
        self._directory = directory
        book.observers.append(self)
        self._on_step = on_step
        self._shares = Shares()  # of the engine; they outlive the model
        self._set_serving = set_serving
        self._model_required = model_required
        self._pending: _Change | None = None
        self._wake = asyncio.Event()  # a change or a stop
        self._stopping = False
        self._step_progress: Callable[[], int | None] = lambda: None
        self._nudge_watch: Callable[[], None] = lambda: None
        self._locked_bytes: Callable[[], int] = lambda: 0
        self._drain_ended = asyncio.Event()
        self._stop_loading = bindings.StopFlag()
        self._n_ended = 0  # jobs that have ended

    async def run(self) -> None:
        """Load the first model and make the changes that are asked for, until ``stop``.

        Raises the LlamadError of a required model.
        """
        try:
            model = await self._load_first()
            while True:
                before = None if model is None else model.file
                if model is None:
                    await self._wake.wait()
                else:
                    await self._serve(model)
                    model = None  # so that nothing of it stays in memory
                if self._stopping:
                    return
                model = await self._execute(before)
        finally:
            if self._pending is not None:
                self._pending.error = shutting_down()
            self._answer()

    # ---- asked from outside ----------------------------------------------------------------------

    async def use(self, name: str, accepted: Callable[[], None]) -> ModelFacts:
        """Serve a model of the directory, now and at every start; call accepted before it begins.

        One that is seen to be broken, or to have no room, leaves the one that serves alone. When it
        cannot be loaded the one before is, and the error raised: INVALID_NAME, MODEL_NOT_FOUND,
        MODEL_FIXED, BUSY_LOADING, or why it was not loaded. A caller that is cancelled does not
        stop it.
        """
        file = await asyncio.to_thread(self._choice.require, name)
        times = await asyncio.to_thread(self._choice.adapter_times)
        self._check_free()
        if self._serves_another(file):
            sizes, locked = ctx_sizes(self._config), self._locked_bytes()
            await asyncio.to_thread(check_model, self._config.model, file, sizes, locked)
        self._check_free()  # from here to the request nothing is awaited, so one change is pending
        accepted()
        serving = self._state.serving
        if (
            self._state.phase is Phase.READY
            and serving is not None
            and not self._serves_another(file)
            and serving.model.adapter_times == times  # else it is loaded again, with them
        ):
            await asyncio.to_thread(self._choice.remember, file)
            return serving.model
        facts = await self._request(_Change(file))
        assert facts is not None
        return facts

    async def unload(self, accepted: Callable[[], None]) -> None:
        """Free the memory of the model, until the next ``use`` or start. Raises BUSY_LOADING."""
        self._check_free()
        if self._state.phase is Phase.NO_MODEL:  # its detail says what to do, and is still true
            return
        accepted()
        await self._request(_Change(None))

    def in_use(self, name: str) -> bool:
        """Whether a model of the directory is loaded or about to be. Blocking; any thread."""
        return self._choice.in_use(name)

    def selected(self) -> Path | None:
        """Return the file that the next start would load. Blocking; any thread."""
        return self._choice.selected()

    def note_added(self, name: str) -> None:
        """Tell whoever asks that there is a model now, where none is loaded."""
        if self._state.phase is Phase.NO_MODEL and self._pending is None:
            self._state.no_model(f'no model is loaded: "llamactl use {name}" loads one')
            self._notifier.status(self._state.detail)

    def reload(self, config: Config) -> None:
        """Take over what a reload of the configuration changed: the limits."""
        self._config = config
        if self._state.serving is not None:
            self._state.serving.scheduler.change_limits(limits_of(config))

    def stop(self) -> None:
        """End: loading at once, serving when the running jobs have ended."""
        self._stopping = True
        self._stop_loading.set()
        self._set_serving(False)
        self._wake.set()

    def end_drain(self) -> None:
        """End what ``stop`` waits for."""
        self._drain_ended.set()

    def step_progress(self) -> int | None:
        """Return a number that the running step of the engine changes; None while none runs."""
        return self._step_progress()

    # ---- changes ---------------------------------------------------------------------------------

    def _serves_another(self, file: ModelFile) -> bool:
        """Whether requests are answered, and by another model than this."""
        serving = self._state.serving if self._state.phase is Phase.READY else None
        return serving is not None and serving.model.path != os.fspath(file.path)

    def _check_free(self) -> None:
        if self._stopping:
            raise shutting_down()
        if self._pending is not None or self._state.phase is Phase.LOADING:
            raise LlamadError(
                ErrorKind.STATE,
                "BUSY_LOADING",
                f"the service is busy with another change of its model: {self._state.detail}",
                retry_after_seconds=BUSY_RETRY_SECONDS,
            )

    async def _request(self, change: _Change) -> ModelFacts | None:
        self._pending = change
        self._choice.reserve_also(change.file)
        change.answer.add_done_callback(lambda answer: answer.exception())  # heard or not
        self._wake.set()
        return await asyncio.shield(change.answer)

    def _answer(self, facts: ModelFacts | None = None) -> None:
        """Tell whoever asked for the change, if one is pending, how it went."""
        change, self._pending = self._pending, None
        if change is None:
            return
        if change.error is not None:
            change.answer.set_exception(change.error)
        else:
            change.answer.set_result(facts)

    async def _execute(self, before: ModelFile | None) -> LoadedModel | None:
        """Make the pending change, with nothing loaded; return the model to serve, if any."""
        change = self._pending
        assert change is not None
        self._wake.clear()
        # A vocabulary's objects refer to each other; left to itself, Python keeps several of them.
        await asyncio.to_thread(gc.collect)
        self._choice.reserve(change.file, before)
        if change.file is None:
            self._choice.reserve()
            self._state.no_model(UNLOADED)
            self._notifier.status(self._state.detail)
            log.info(fields("model unloaded"))
            self._answer()
            return None
        model = await self._load_or_restore(change, change.file, before)
        if model is None:
            self._choice.reserve()
            self._answer()
        return model

    async def _load_or_restore(
        self, change: _Change, file: ModelFile, before: ModelFile | None
    ) -> LoadedModel | None:
        try:
            model = await self._load(file)
        except LlamadError as error:
            change.error = error
        else:
            try:
                await asyncio.to_thread(self._choice.remember, file)
            except LlamadError as error:
                change.error = error
            return model
        if self._stopping:
            change.error = shutting_down()
            return None
        log.error(fields("model not loaded", model=file.name, reason=change.error.reason))
        if before is None:
            self._failed(change.error)
            return None
        try:
            return await self._load(before)
        except LlamadError as error:
            self._failed(error)
            return None

    # ---- loading ---------------------------------------------------------------------------------

    async def _load_first(self) -> LoadedModel | None:
        """Load the model of this start; None when there is none to serve."""
        self._loading("loading the model")
        self._choice.reserve(await asyncio.to_thread(self._choice.first))
        try:
            model = await self._load(None)
        except LlamadError as error:
            self._choice.reserve()
            if self._stopping:
                return None
            if self._model_required:
                raise
            self._without_model(error)
            return None
        await asyncio.to_thread(self._choice.remember_only, model.file)
        return model

    async def _load(self, file: ModelFile | None) -> LoadedModel:
        """Load a file, or the model of this start, in a thread. Raises its LlamadError."""
        loop = asyncio.get_running_loop()
        config = self._config.model
        if file is not None:
            config = replace(config, path=os.fspath(file.path))
            self._loading(f"loading {file.name}")

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(self._loading, line)

        model = await asyncio.to_thread(
            load, config, self._stop_loading, progress, ctx_sizes(self._config)
        )
        if self._stopping:
            model.close()
            raise shutting_down()
        return model

    def _loading(self, line: str) -> None:
        self._state.loading(line)
        self._notifier.status(self._state.detail)

    def _without_model(self, error: LlamadError) -> None:
        """Say why there is no model at this start: none was given, or the one given failed."""
        given = self._config.model.path
        if not given and error.reason == "MODEL_NOT_FOUND":
            self._state.no_model(NO_MODEL_YET)
        elif not given and error.reason in ("MODEL_AMBIGUOUS", "MODEL_DIRECTORY_MISSING"):
            self._state.no_model(error.message)
        else:
            self._state.failed(error)
        level = logging.ERROR if self._state.phase is Phase.FAILED else logging.WARNING
        log.log(level, fields("model not loaded", reason=error.reason, message=error.message))
        self._notifier.ready(self._state.detail)

    def _failed(self, error: LlamadError) -> None:
        self._state.failed(error)
        self._notifier.status(f"the model failed: {error.message}")

    # ---- serving ---------------------------------------------------------------------------------

    async def _serve(self, model: LoadedModel) -> None:
        """Serve a model until a change or a stop, let the running jobs end, and close it."""
        worker = EngineWorker(model.engine)
        self._step_progress = lambda: model.progress if worker.busy else None
        scheduler = Scheduler(
            model,
            worker,
            self._book,
            limits_of(self._config),
            observer=self,
            on_step=self._on_step,
            shares=self._shares,
        )
        prefixes = prefixes_of(model, scheduler, worker, self._directory, self._config)
        meter = DiskMeter(model.residency)

        def planned_again(plan: MemoryPlan) -> None:
            meter.restart()
            self._state.planned_again(plan)

        try:
            with watching(model, LoopClock(), planned_again) as watch:
                self._nudge_watch = watch.nudge
                self._locked_bytes = lambda: model.locked_bytes
                async with asyncio.TaskGroup() as tasks:
                    steps = tasks.create_task(scheduler.run(), name="scheduler")
                    memory = tasks.create_task(watch.run(), name="memory")
                    await prefixes.open()
                    keeping = tasks.create_task(prefixes.run(), name="prefixes")
                    facts = facts_of(model)
                    self._ready(
                        Serving(scheduler, model.tokenizer, facts, meter.measured, prefixes),
                        model.disk_bytes_per_second,
                    )
                    await self._wake.wait()
                    self._close_door()
                    await self._drain(scheduler)
                    steps.cancel()
                    model.stop.set()
                    memory.cancel()
                    keeping.cancel()
        finally:
            self._step_progress = lambda: None
            self._nudge_watch = lambda: None
            self._locked_bytes = lambda: 0
            self._state.release()  # whoever asks while it is closed must not reach it
            worker.close()
            await asyncio.to_thread(model.close)

    def _ready(self, serving: Serving, disk_bytes_per_second: float | None) -> None:
        model = serving.model
        file = ModelFile(model.name, Path(model.path), model.file_bytes)
        draft = ModelFile(model.draft, Path(model.draft_path), 0) if model.draft_path else None
        self._choice.reserve(file, draft)
        self._state.ready(serving)
        self._set_serving(True)
        self._notifier.ready(self._state.detail)
        log.info(
            fields(
                "model loaded",
                model=model.name,
                architecture=model.architecture,
                size=compact_size(model.file_bytes),
                locked=compact_size(model.locked_bytes),
                streamed=compact_size(model.plan.streamed_bytes),
                disk_bytes_per_second=disk_bytes_per_second,
                kv=compact_size(model.kv_bytes),
                n_ctx=model.n_ctx,
                kernel_set=model.kernel_set,
                threads=model.threads,
                load_seconds=model.load_seconds,
            )
        )
        self._answer(model)

    def _close_door(self) -> None:
        """Accept no more requests, because of a change or a stop."""
        self._set_serving(False)
        if self._stopping or self._pending is None:
            return
        if self._pending.file is None:
            self._state.no_model(UNLOADING)
        else:
            self._state.loading(f"running requests end before {self._pending.file.name} is loaded")
        self._notifier.status(self._state.detail)

    async def _drain(self, scheduler: Scheduler) -> None:
        """Let running jobs end, until the deadline or ``end_drain``; others hear what goes on."""
        seconds = self._config.limits.drain_seconds
        drain = asyncio.create_task(scheduler.drain(seconds, self._state.refusal))
        ended = asyncio.create_task(self._drain_ended.wait())
        try:
            await asyncio.wait((drain, ended), return_when=asyncio.FIRST_COMPLETED)
            if drain.done():
                drain.result()
        finally:
            drain.cancel()
            ended.cancel()

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Show in ``systemctl status`` that the service is alive; the history logs the job."""
        self._n_ended += 1
        self._nudge_watch()
        if self._state.phase is Phase.READY:
            self._notifier.status(f"{self._state.detail}; requests served: {self._n_ended}")

    def on_model_failed(self, error: LlamadError) -> None:
        """Live on without the model, and say so."""
        self._failed(error)
        self._set_serving(False)
