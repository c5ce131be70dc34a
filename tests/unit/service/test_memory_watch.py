"""The watch over a loaded model: it sleeps undisturbed, obeys at once, and looks again."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pretend_machine
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan
from llamad.memory.pressure import LOOK_SECONDS, MIB, Grant
from llamad.memory.pressure_events import PressureEvents
from llamad.service.memory_watch import MemoryWatch
from rpc.serving import PLAN
from unit.schedule.fakes import FakeClock, asynchronous

LOADED, WANTED, FILE = 600 * MIB, 1000 * MIB, 640 * MIB


class FakeModel:
    """Obeys, and remembers what it was told."""

    def __init__(self) -> None:
        self.plan = replace(PLAN, budget_bytes=LOADED)
        self.locked_bytes = 0
        self.budgets: list[int] = []
        self.error: LlamadError | None = None

    def grant(self) -> Grant:
        return Grant(
            LOADED, wanted_bytes=WANTED, least_bytes=MIB, file_bytes=FILE, limit_bytes=LOADED
        )

    def plan_again(self, budget_bytes: int) -> MemoryPlan:
        self.budgets.append(budget_bytes)
        if self.error is not None:
            raise self.error
        self.plan = replace(self.plan, budget_bytes=budget_bytes)
        return self.plan


class Watched:
    """A watch over a fake model on a pretended machine, whose limit can be written."""

    def __init__(self, folder: Path) -> None:
        self.model = FakeModel()
        self.clock = FakeClock()
        self.machine = Machine(folder / "proc", folder / "cgroup")
        pretend_machine.machine(folder, available_kib=1 << 30, cgroup_max=str(LOADED))
        self.plans: list[MemoryPlan] = []
        self._planned = asyncio.Event()
        self.events = PressureEvents(self.machine, {})
        self.watch = MemoryWatch(
            self.model, self.machine, self.events, self.clock, changed=self._note
        )

    def _note(self, plan: MemoryPlan) -> None:
        self.plans.append(plan)
        self._planned.set()

    async def next_plan(self) -> MemoryPlan:
        await self._planned.wait()
        self._planned.clear()
        return self.plans[-1]

    def write_limit(self, n_bytes: int) -> None:
        (self.machine.cgroup / "a" / "memory.max").write_text(f"{n_bytes}\n")


@asynchronous
async def test_an_undisturbed_watch_has_no_timer(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.watch.look()
    assert watched.clock.pending() == 0
    assert watched.model.budgets == []


@asynchronous
async def test_a_limit_that_is_lowered_wakes_it_and_is_obeyed(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    running = asyncio.create_task(watched.watch.run())
    await asyncio.sleep(0)
    watched.write_limit(400 * MIB)
    plan = await watched.next_plan()
    assert watched.model.budgets == [400 * MIB]
    assert plan.budget_bytes == 400 * MIB
    assert watched.clock.pending() == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert watched.clock.pending() == 0


@asynchronous
async def test_it_looks_again_and_takes_what_has_become_free(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    running = asyncio.create_task(watched.watch.run())
    await asyncio.sleep(0)
    watched.write_limit(400 * MIB)
    await watched.next_plan()
    watched.write_limit(LOADED)
    await watched.next_plan()
    while watched.model.budgets[-1] < LOADED:
        watched.clock.advance(LOOK_SECONDS)
        await watched.next_plan()
    assert watched.model.budgets == sorted(watched.model.budgets)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@asynchronous
async def test_a_file_that_cannot_be_read_is_the_next_steps_error(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.model.error = LlamadError(ErrorKind.CORRUPT, "MODEL_FILE_LOST", "gone")
    watched.write_limit(400 * MIB)
    await watched.watch.look()
    assert watched.model.budgets == [400 * MIB]
    assert watched.plans == []


@asynchronous
async def test_a_nudge_looks_only_where_something_streams(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.model.plan = replace(watched.model.plan, streaming_bytes=0, streamed_bytes=0)
    running = asyncio.create_task(watched.watch.run())
    await asyncio.sleep(0)
    pretend_machine.machine(tmp_path, available_kib=1 << 30, cgroup_max=str(WANTED))
    watched.watch.nudge()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert watched.model.budgets == []
