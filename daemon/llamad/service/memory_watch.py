"""Keeps the loaded model within the memory there is: waits for events, and lets it plan again.

Sleeps until the kernel tells of pressure or of a limit, or until ``memory/pressure.py`` wants to
look whether more has become free. Undisturbed it has no timer. The model obeys on another thread,
between two steps. Everything else on the event loop's thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from llamad.clock import Clock, Timer
from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan
from llamad.memory.pressure import Grant, Reading
from llamad.memory.pressure_events import PressureEvents
from llamad.sizes import compact_size

log = logging.getLogger(__name__)


class Adjustable(Protocol):
    """What of a loaded model can change while it serves."""

    plan: MemoryPlan

    @property
    def locked_bytes(self) -> int:
        """Bytes of the model file that are locked."""

    def grant(self) -> Grant:
        """Return what the model was loaded with, as the beginning of a grant."""

    def plan_again(self, budget_bytes: int) -> MemoryPlan:
        """Divide another budget and make it true; blocks until the running step has ended.

        Raises LlamadError when the file cannot be read.
        """


@contextlib.contextmanager
def watching(
    model: Adjustable, clock: Clock, changed: Callable[[MemoryPlan], None]
) -> Iterator["MemoryWatch"]:
    """Open what this machine tells of its memory for the time of the block."""
    machine = Machine()
    with PressureEvents(machine) as events:
        yield MemoryWatch(model, machine, events, clock, changed=changed)


class MemoryWatch:
    """The watch over one model: ``run`` until cancelled."""

    def __init__(
        self,
        model: Adjustable,
        machine: Machine,
        events: PressureEvents,
        clock: Clock,
        *,
        changed: Callable[[MemoryPlan], None],
    ) -> None:
        """Watch; ``changed`` hears of each new plan."""
        self._model = model
        self._machine = machine
        self._events = events
        self._clock = clock
        self._changed = changed
        self._grant = model.grant()
        self._in_force = self._grant.bytes
        self._wake = asyncio.Event()
        self._pressed = self._written = False
        self._timer: Timer | None = None

    async def run(self) -> None:
        """Look whenever something happened; lives as long as the model serves."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._events.pressure.fileno(), self._on_pressure)
        loop.add_reader(self._events.limits.fileno(), self._on_limits)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self.look()
        finally:
            self._set_timer(None)
            loop.remove_reader(self._events.pressure.fileno())
            loop.remove_reader(self._events.limits.fileno())

    def nudge(self) -> None:
        """Look whether more has become free, as at the end of a job."""
        if self._timer is None and not self._model.plan.model_fits:
            self._wake.set()

    def _on_pressure(self) -> None:
        self._events.read_pressure()
        self._pressed = True
        self._wake.set()

    def _on_limits(self) -> None:
        self._written |= self._events.read_limits()
        self._wake.set()

    async def look(self) -> None:
        """Read the machine once, and do what follows."""
        reading = Reading(
            self._machine.budget_bytes(self._model.locked_bytes),
            self._machine.limit_bytes(),
            pressed=self._pressed,
            limit_written=self._written,
        )
        self._pressed = self._written = False
        decision = self._grant.decide(self._clock.now(), reading)
        self._set_timer(decision.look_seconds)
        if decision.grant_bytes != self._in_force:
            await self._obey(decision.grant_bytes, reading)

    async def _obey(self, grant_bytes: int, reading: Reading) -> None:
        more = grant_bytes > self._in_force
        self._in_force = grant_bytes
        work = asyncio.ensure_future(asyncio.to_thread(self._model.plan_again, grant_bytes))
        try:
            plan = await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # the model is closed after this
            raise
        except LlamadError as error:  # the next step meets the same fault, and ends the model
            if error.kind is not ErrorKind.CANCELLED:
                log.error(fields("memory not planned again", message=error.message))
            return
        log.info(
            fields(
                "memory taken" if more else "memory given back",
                budget=compact_size(grant_bytes),
                limit=None if reading.limit_bytes is None else compact_size(reading.limit_bytes),
                pressed=reading.pressed or None,
                resident=compact_size(plan.resident_bytes),
                streamed=compact_size(plan.streamed_bytes),
            )
        )
        self._changed(plan)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = self._clock.call_at(self._clock.now() + seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake.set()
