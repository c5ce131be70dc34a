"""The life of the service: bind, load, serve, drain, stop.

Owns the order of these and the wiring of everything else. The socket is bound first, so that
clients hear "still loading" instead of nothing. A signal asks for a stop: running jobs get the
drain time, everything waiting is refused. A second signal ends the drain. SIGHUP reads the
configuration again and takes from it what needs no restart.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from llamad import __version__, systemd
from llamad.config import Config
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Timings
from llamad.jobs.job import JobSnapshot
from llamad.jobs.request import Sampling
from llamad.jobs.scheduler import Limits, Scheduler
from llamad.logs import fields
from llamad.models.loader import LoadedModel, load
from llamad.models.registry import ModelRegistry
from llamad.rpc.admin_service import AdminService
from llamad.rpc.convert import Rules
from llamad.rpc.server import RpcServer
from llamad.rpc.services import LlamadService
from llamad.rpc.state import ModelFacts, Phase, ServiceState, Serving

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 1.0  # for the last events to reach their clients, once no job is left


class Daemon:
    """One run of the service: ``run``, once, on an event loop in the main thread.

    It is also the scheduler's Observer.
    """

    def __init__(
        self, config: Config, *, model_required: bool, read_again: Callable[[], Config]
    ) -> None:
        """Wire the service; ``model_required`` ends the run when the model cannot be loaded.

        ``read_again`` returns the configuration as it is now, or raises INVALID_CONFIG.
        """
        self._config = config
        self._read_again = read_again
        self._model_required = model_required
        self._notifier = systemd.Notifier()
        self._state = ServiceState()
        self._service = LlamadService(self._state, _rules(config), bindings.engine_version())
        self._server = RpcServer(
            Path(config.service.socket),
            mode=config.service.socket_mode,
            group=config.service.socket_group,
            admin_group=config.service.admin_group,
            llamad=self._service,
            admin=AdminService(self._state, ModelRegistry(Path(config.model.directory))),
        )
        self._stop = asyncio.Event()  # a signal came
        self._hurry = asyncio.Event()  # a second one
        self._stop_loading = bindings.StopFlag()
        self._served = 0  # jobs that have ended

    async def run(self) -> None:
        """Serve until a signal. Raises the LlamadError of a socket or a required model."""
        with self._signals():
            await self._server.start()
            log.info(
                fields("service started", version=__version__, socket=self._config.service.socket)
            )
            try:
                await self._live()
            finally:
                await self._server.stop(0 if self._hurry.is_set() else STOP_GRACE_SECONDS)
                log.info(fields("service stopped", uptime_seconds=self._state.uptime_seconds))

    async def _live(self) -> None:
        """Load the model and serve it until a signal, or live without one."""
        watchdog = self._watchdog()
        try:
            model = await self._load()
            if model is not None:
                with contextlib.closing(model):
                    await self._serve(model)
            elif not self._stop.is_set():
                self._notifier.ready(self._state.detail)
                await self._stop.wait()
        finally:
            if watchdog is not None:
                watchdog.cancel()

    def _watchdog(self) -> asyncio.Task[None] | None:
        period = systemd.watchdog_seconds()
        if period is None:
            return None
        return asyncio.create_task(systemd.keep_alive(self._notifier, period))

    # ---- loading ---------------------------------------------------------------------------------

    async def _load(self) -> LoadedModel | None:
        """Load the configured model in a thread; None when there is none to serve."""
        loop = asyncio.get_running_loop()
        self._loading("loading the model")

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(self._loading, line)

        try:
            model = await asyncio.to_thread(load, self._config.model, self._stop_loading, progress)
        except LlamadError as error:
            if self._stop.is_set():
                return None
            if self._model_required:
                raise
            self._without_model(error)
            return None
        if self._stop.is_set():
            model.close()
            return None
        return model

    def _loading(self, line: str) -> None:
        self._state.loading(line)
        self._notifier.status(self._state.detail)

    def _without_model(self, error: LlamadError) -> None:
        """Say why there is no model: none was given, or the one given failed."""
        log.error(fields("model not loaded", reason=error.reason, message=error.message))
        model = self._config.model
        if error.reason == "MODEL_NOT_FOUND" and not model.path:
            self._state.no_model(
                f"put a .gguf file into {model.directory}, or name one as path in section [model]"
                " of the configuration, and restart the service"
            )
        else:
            self._state.failed(error)

    # ---- serving ---------------------------------------------------------------------------------

    async def _serve(self, model: LoadedModel) -> None:
        worker = EngineWorker(model.engine)
        scheduler = Scheduler(model, worker, _limits(self._config), observer=self)
        try:
            async with asyncio.TaskGroup() as tasks:
                steps = tasks.create_task(scheduler.run(), name="scheduler")
                self._ready(Serving(scheduler, model.tokenizer, _facts(model)))
                await self._stop.wait()
                await self._drain(scheduler)
                steps.cancel()
        finally:
            worker.close()

    def _ready(self, serving: Serving) -> None:
        model = serving.model
        self._state.ready(serving)
        self._server.health.set_serving(True)
        self._notifier.ready(self._state.detail)
        log.info(
            fields(
                "model loaded",
                model=model.name,
                architecture=model.architecture,
                file_bytes=model.file_bytes,
                locked_bytes=model.locked_bytes,
                kv_bytes=model.kv_bytes,
                kernel_set=model.kernel_set,
                threads=model.threads,
                load_seconds=model.load_seconds,
            )
        )

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Show in ``systemctl status`` that the service is alive; the history logs the job."""
        self._served += 1
        if self._state.phase is Phase.READY:
            self._notifier.status(f"{self._state.detail}: {self._served} requests served")

    def on_model_failed(self, error: LlamadError) -> None:
        """Live on without the model, and say so."""
        self._state.failed(error)
        self._server.health.set_serving(False)
        self._notifier.status(f"the model failed: {error.message}")

    # ---- reloading -------------------------------------------------------------------------------

    def _on_reload(self) -> None:
        """Take the log level, the sampling defaults and the limits of the file as it is now.

        No job notices. Every other section waits for a restart; a wrong file changes nothing.
        """
        announced = self._state.phase not in (Phase.LOADING, Phase.STOPPING)
        if announced:
            self._notifier.reloading()
        try:
            self._take(self._read_again())
        except LlamadError as error:
            log.error(
                fields("configuration not reloaded", reason=error.reason, message=error.message)
            )
        if announced:
            self._notifier.ready(self._state.detail)

    def _take(self, fresh: Config) -> None:
        self._config = dataclasses.replace(
            self._config, sampling=fresh.sampling, limits=fresh.limits, log=fresh.log
        )
        logging.getLogger().setLevel(fresh.log.level.upper())
        self._service.change_rules(_rules(fresh))
        if self._state.serving is not None:
            self._state.serving.scheduler.change_limits(_limits(self._config))
        waiting = [
            section.name
            for section in dataclasses.fields(Config)
            if getattr(fresh, section.name) != getattr(self._config, section.name)
        ]
        log.info(fields("configuration reloaded", needs_restart=",".join(waiting) or None))

    # ---- stopping --------------------------------------------------------------------------------

    async def _drain(self, scheduler: Scheduler) -> None:
        """Let running jobs end, until the deadline or the second signal."""
        drain = asyncio.create_task(scheduler.drain(self._config.limits.drain_seconds))
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
            if drain.done():
                drain.result()
        finally:
            drain.cancel()
            hurry.cancel()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle SIGTERM, SIGINT and SIGHUP while the service lives."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        try:
            yield
        finally:
            for number in (*signals, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        log.info(fields("signal", name=number.name, hurry=self._stop.is_set()))
        if self._stop.is_set():
            self._hurry.set()
            return
        self._stop.set()
        self._stop_loading.set()
        self._state.stopping()
        self._server.health.set_serving(False)
        self._notifier.stopping(self._state.detail)


def _rules(config: Config) -> Rules:
    return Rules(
        sampling=Sampling(**dataclasses.asdict(config.sampling)),
        max_prompt_bytes=config.limits.max_prompt_bytes,
    )


def _limits(config: Config) -> Limits:
    return Limits(
        queue_capacity=config.queue.capacity,
        prefill_chunk=config.queue.prefill_chunk,
        history=config.queue.history,
        stream_buffer_bytes=config.limits.stream_buffer_bytes,
        deadline_seconds=config.limits.default_deadline_seconds,
        speculation=config.model.speculation,
    )


def _facts(model: LoadedModel) -> ModelFacts:
    info, engine = model.info, model.engine_info
    return ModelFacts(
        name=model.name,
        path=os.fspath(model.path),
        architecture=info.architecture,
        file_bytes=info.file_bytes,
        locked_bytes=model.locked_bytes,
        n_ctx=model.n_ctx,
        n_ctx_train=info.n_ctx_train,
        vocab_size=info.vocab_size,
        load_seconds=model.load_seconds,
        kv_type=model.kv_type,
        kv_bytes=engine.kv_bytes,
        threads=engine.n_threads,
        kernel_set=engine.kernel_set,
    )


def serve(config: Config, *, model_required: bool, read_again: Callable[[], Config]) -> None:
    """Run the service until a signal. Raises the LlamadError that kept it from serving."""

    async def run() -> None:
        await Daemon(config, model_required=model_required, read_again=read_again).run()

    try:
        asyncio.run(run())
    except LlamadError:
        raise
    except Exception as error:
        log.exception("service failed")
        raise LlamadError(
            ErrorKind.INTERNAL, "INTERNAL", "the service failed, its log says why"
        ) from error
