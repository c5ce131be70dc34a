"""What wakes the service when memory becomes scarce."""

import base64
import os
import select
from pathlib import Path

import pretend_machine
from llamad.memory.machine import Machine
from llamad.memory.pressure_events import PressureEvents


def _is_readable(events: PressureEvents) -> bool:
    return bool(select.select([events.limits, events.pressure], [], [], 0)[0])


def _machine(folder: Path) -> Machine:
    return pretend_machine.machine(folder, available_kib=1000, cgroup_max="1000")


def test_a_written_limit_wakes_and_is_told_once(tmp_path: Path) -> None:
    machine = _machine(tmp_path)
    with PressureEvents(machine, {}) as events:
        assert not _is_readable(events)
        (machine.cgroup / "a" / "memory.max").write_text("500\n")
        assert _is_readable(events)
        assert events.read_limits()
        assert not _is_readable(events)
        assert not events.read_limits()


def test_a_read_limit_does_not_wake(tmp_path: Path) -> None:
    machine = _machine(tmp_path)
    with PressureEvents(machine, {}) as events:
        assert machine.limit_bytes() == 1000
        assert not _is_readable(events)


def test_a_machine_that_tells_nothing_is_an_ordinary_machine(tmp_path: Path) -> None:
    with PressureEvents(Machine(tmp_path, tmp_path), {}) as events:
        assert events.sources == 0
        assert not _is_readable(events)
        assert not events.read_limits()


def test_systemd_names_the_file_and_what_to_write(tmp_path: Path) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    wish = base64.b64encode(b"some 1 2\0").decode()
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    environment = {"MEMORY_PRESSURE_WATCH": str(fifo), "MEMORY_PRESSURE_WRITE": wish}
    with PressureEvents(Machine(tmp_path, tmp_path), environment) as events:
        assert events.sources == 1
        assert os.read(reader, 100) == b"some 1 2\0"
    os.close(reader)


def test_systemd_may_forbid_to_watch(tmp_path: Path) -> None:
    machine = _machine(tmp_path)
    (machine.proc / "pressure").mkdir()
    (machine.proc / "pressure" / "memory").write_text("some avg10=0.00\n")
    with PressureEvents(machine, {"MEMORY_PRESSURE_WATCH": os.devnull}) as events:
        assert events.sources == 1  # the limits
