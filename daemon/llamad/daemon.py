"""The life of the service: bind, let models live, stop.

Owns the wiring of everything else and the signals. The socket is bound first, so that clients hear
"still loading" instead of nothing. A signal asks for a stop: running jobs get the drain time,
everything waiting is refused. A second signal ends the drain. SIGHUP reads the configuration again
and takes from it what needs no restart. What is in memory is ``model_manager.py``'s.
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from llamad import __version__, systemd
from llamad.clock import LoopClock
from llamad.config import Config
from llamad.engine import bindings
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.request import ContextFull
from llamad.logs import fields
from llamad.memory.demand import capacity_of
from llamad.rpc.admin_service import AdminService
from llamad.rpc.from_proto import Rules
from llamad.rpc.llamad_service import LlamadService
from llamad.rpc.server import RpcServer
from llamad.service import stacks
from llamad.service.durable_jobs import DurableJobs
from llamad.service.measures import Measures
from llamad.service.model_details import KnownModels
from llamad.service.model_manager import ModelManager
from llamad.service.monitor import Monitor
from llamad.service.state import Phase, ServiceState
from llamad.service.state_directory import StateDirectory
from llamad.service.textfile import Textfile
from llamad.service.watchdog import Watchdog
from llamad.signals import RELOAD, STOP, let_through
from llamad.store.registry import ModelRegistry
from llamad.store.transfers import Transfers

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001  # the loop and the engine wait as long, at most, for a thread that encodes
STOP_GRACE_SECONDS = 1.0  # for the last events to reach their clients, once no job is left


class Daemon:
    """One run of the service: ``run``, once, on an event loop in the main thread."""

    def __init__(
        self, config: Config, *, model_required: bool, read_again: Callable[[], Config]
    ) -> None:
        """Wire the service; ``model_required`` ends the run when the model cannot be loaded.

        ``read_again`` returns the configuration as it is now, or raises INVALID_CONFIG.
        """
        self._config = config
        self._read_again = read_again
        self._notifier = systemd.Notifier()
        self._state = ServiceState()
        self._state_directory = StateDirectory(Path(config.service.state_directory))
        measures = Measures()
        book = JobBook(config.queue.history, observers=[measures])
        self._jobs = DurableJobs(self._state_directory, self._state, book, config.jobs)
        self._monitor = Monitor(
            self._state,
            book,
            measures,
            bindings.engine_version(),
            n_stored=lambda: self._jobs.n_stored,
        )
        self._registry = registry = ModelRegistry(Path(config.model.directory))
        self._service = LlamadService(
            self._state,
            book,
            self._jobs,
            rules_of(config),
            bindings.engine_version(),
            KnownModels(config, registry),
            self._monitor,
        )
        self._model_manager = ModelManager(
            config,
            registry,
            self._state,
            self._notifier,
            book,
            self._state_directory,
            set_serving=self._set_serving,
            on_step=measures.on_step,
            model_required=model_required,
        )
        self._transfers = Transfers(
            registry, max_bytes=config.limits.max_model_bytes, in_use=self._model_manager.in_use
        )
        self._server = RpcServer(
            Path(config.service.socket),
            mode=config.service.socket_mode,
            group=config.service.socket_group,
            admin_group=config.service.admin_group,
            gateway_group=config.service.gateway_group,
            llamad=self._service,
            admin=AdminService(
                self._state, registry, self._transfers, self._model_manager, self._service.rules_now
            ),
            capacity=capacity_of(config.model),
            on_call_failed=measures.on_call_failed,
        )
        self._signals_received = 0  # that ask for a stop

    async def run(self) -> None:
        """Serve until a signal. Raises the LlamadError of a socket or a required model."""
        sys.setswitchinterval(SWITCH_SECONDS)
        with self._signals():
            await asyncio.to_thread(self._state_directory.open)
            await self._server.start()
            log.info(
                fields("service started", version=__version__, socket=self._config.service.socket)
            )
            try:
                await self._live()
            finally:
                await self._server.stop(0 if self._signals_received > 1 else STOP_GRACE_SECONDS)
                self._state_directory.close()
                log.info(fields("service stopped", uptime_seconds=self._state.uptime_seconds))

    async def _live(self) -> None:
        """Let the models live, and keep systemd's watchdog quiet meanwhile."""
        period = systemd.watchdog_seconds()
        watchdog = (
            None
            if period is None
            else Watchdog(
                self._notifier.watchdog, period, self._model_manager.step_progress, LoopClock()
            )
        )
        if watchdog is not None:
            stacks.write_at_end()
            watchdog.start()
        opening = asyncio.create_task(self._jobs.open())
        storing = asyncio.create_task(self._jobs.run())
        cleaning = asyncio.create_task(self._transfers.remove_old_partial_files())
        stopped = False
        try:
            async with self._textfile():
                await self._model_manager.run()
            stopped = True
            await cleaning
        finally:
            cleaning.cancel()
            await opening
            storing.cancel()
            await self._jobs.close(clean=stopped)
            if watchdog is not None:
                watchdog.stop()
                stacks.forget_end()

    @contextlib.asynccontextmanager
    async def _textfile(self) -> AsyncIterator[None]:
        """Write the metrics into the configured file for the time of the block."""
        config = self._config.metrics
        if not config.textfile:
            yield
            return
        file = Textfile(Path(config.textfile), config.period_seconds, self._monitor.metrics)
        writing = asyncio.create_task(file.run())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    def _set_serving(self, serving: bool) -> None:
        """Tell whoever asks for health, and let the stored jobs of a loaded model go on."""
        self._server.health.set_serving(serving)
        if serving and self._state.serving is not None:
            self._jobs.model_loaded(self._state.serving)

    # ---- reloading -------------------------------------------------------------------------------

    def _on_reload(self) -> None:
        """Take the log level, the limits and what requests get by default, as the file has it now.

        No job notices. Every other section waits for a restart; a wrong file changes nothing.
        """
        announced = self._state.phase not in (Phase.LOADING, Phase.STOPPING)
        if announced:
            self._notifier.reloading()
        try:
            self._reload(self._read_again())
        except LlamadError as error:
            log.error(
                fields("configuration not reloaded", reason=error.reason, message=error.message)
            )
        if announced:
            self._notifier.ready(self._state.detail)

    def _reload(self, fresh: Config) -> None:
        self._config = dataclasses.replace(
            self._config,
            sampling=fresh.sampling,
            limits=fresh.limits,
            log=fresh.log,
            models=fresh.models,
            owners=fresh.owners,
            written=fresh.written,
        )
        logging.getLogger().setLevel(fresh.log.level.upper())
        known = KnownModels(self._config, self._registry)
        self._service.change_rules(rules_of(self._config), known)
        self._model_manager.reload(self._config)
        self._transfers.change_limit(fresh.limits.max_model_bytes)
        waiting = [
            section.name
            for section in dataclasses.fields(Config)
            if getattr(fresh, section.name) != getattr(self._config, section.name)
        ]
        log.info(fields("configuration reloaded", needs_restart=",".join(waiting) or None))

    # ---- stopping --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle the signals of the service while it lives; those that were held come at once."""
        loop = asyncio.get_running_loop()
        for number in STOP:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(RELOAD, self._on_reload)
        let_through()
        try:
            yield
        finally:
            for number in (*STOP, RELOAD):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals_received += 1
        log.info(fields("signal", name=number.name, second=self._signals_received > 1))
        if self._signals_received > 1:
            self._model_manager.end_drain()
            return
        self._state.stopping()
        self._model_manager.stop()
        self._notifier.stopping(self._state.detail)


def rules_of(config: Config) -> Rules:
    """Return what a configuration says about requests, with the texts that memory has room for."""
    text_bytes = capacity_of(config.model).text_bytes
    return Rules(
        sampling=config.sampling,
        loop_guard=config.sampling.loop_guard,
        max_prompt_bytes=min(config.limits.max_prompt_bytes, text_bytes),
        max_text_bytes=text_bytes,
        context_full=ContextFull(config.model.context_full),
        gateway_group=config.service.gateway_group,
    )


def serve(config: Config, *, model_required: bool, read_again: Callable[[], Config]) -> None:
    """Run the service until a signal. Raises the LlamadError that kept it from serving."""

    async def run() -> None:
        await Daemon(config, model_required=model_required, read_again=read_again).run()

    try:
        asyncio.run(run())
    except LlamadError:
        raise
    except OSError as error:  # the world's fault: one line
        log.debug("service failed", exc_info=True)
        raise LlamadError(
            ErrorKind.UNAVAILABLE, "SERVICE_FAILED", f"the service failed: {error}"
        ) from error
    except Exception as error:
        log.exception("service failed")
        raise LlamadError(
            ErrorKind.INTERNAL, "INTERNAL", "the service failed, its log says why"
        ) from error
