"""A step that hangs in the engine, in the whole service: what systemd and the journal get."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from llamad import daemon
from llamad.systemd import Notifier
from llamad_api.v1 import llamad_pb2 as pb
from rpc.living import Life, living_as
from unit.schedule.fakes import TIMEOUT_SECONDS, FakeClock

PERIOD = 60.0
PING, MARK = "WATCHDOG=1", "mark"


class WatchedLife(Life):
    """A service that systemd watches, on a clock that the test moves; its stderr is a file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.clock = FakeClock()
        self.stderr = (folder / "stderr").open("w")
        monkeypatch.setenv("WATCHDOG_USEC", str(int(PERIOD * 1e6)))
        monkeypatch.setattr(daemon, "LoopClock", lambda: self.clock)
        monkeypatch.setattr(sys, "stderr", self.stderr)
        self.may_load.set()

    def close(self) -> None:
        self.stderr.close()
        super().close()

    def stacks(self) -> str:
        return (self.folder / "stderr").read_text()

    async def pings_in_half_periods(self, n: int) -> int:
        """Let so many halves of the period pass; return how often systemd was told."""
        count = 0
        for _ in range(n):
            self.clock.advance(PERIOD / 2)
            Notifier().status(MARK)  # behind all that was sent
            while MARK not in (text := await self.heard("")):
                count += text == PING
        return count


@living_as(WatchedLife)
async def test_a_step_that_hangs_ends_the_pings_and_writes_the_stacks_once(
    life: WatchedLife,
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hanging_step() -> None:
        entered.set()
        assert go_on.wait(TIMEOUT_SECONDS)

    async with life.running(), life.stub() as stub:
        await life.heard("READY=1")
        assert await life.pings_in_half_periods(10) == 10  # no step, nothing to judge
        life.model.engine.before_step = hanging_step
        call = stub.Generate(pb.GenerateRequest(prompt="p"))
        try:
            assert await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)
            assert await life.pings_in_half_periods(1) == 1
            for _ in range(3):  # layers finish: slow, and no fault
                life.model.engine.progress += 1
                assert await life.pings_in_half_periods(1) == 1
            assert await life.pings_in_half_periods(1) == 1
            assert life.stacks() == ""
            assert await life.pings_in_half_periods(5) == 0
            assert life.stacks().count("in hanging_step") == 1
        finally:
            go_on.set()
        assert [message async for message in call][-1].finished.reason == pb.FINISH_REASON_STOP
        assert await life.pings_in_half_periods(2) == 2
