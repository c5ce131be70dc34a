"""How long the service takes to start, and what it costs while nobody asks.

    PYTHONPATH=daemon:clients:protos python3 tests/bench/start.py MODEL.gguf

Starts ``llamad serve`` as systemd would, with a notify socket and the unit's watchdog, and prints
the time to READY=1, the part of it that imports take, and then the CPU time and the wake-ups of
every thread over an idle while. It reports and asserts nothing about time: the machine is shared.
The model should be in the page cache; the first run reads it in.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "systemd" / "llamad.service"
START_SECONDS = 120.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Start:
    """One start. Seconds since the process was executed."""

    imported: float  # the first status line: all modules are there, the configuration is read
    ready: float
    cpu: float  # user and system time of the process until then


@dataclass(frozen=True, slots=True)
class Thread:
    """What the kernel counted for one thread."""

    name: str
    ticks: int  # user and system
    switches: int  # voluntary: each is a wait that ended later in a wake-up


class Service:
    """A running service of ours with its notify socket."""

    def __init__(self, model: Path, folder: Path) -> None:
        """Bind the notify socket and execute the service."""
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(START_SECONDS)
        match = re.search(r"^WatchdogSec=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
        assert match is not None
        self.watchdog_seconds = int(match[1])
        environment = os.environ | {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(self.watchdog_seconds * 1_000_000),
        }
        command = [sys.executable, "-m", "llamad", "serve", f"--model={model}"]
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*command, f"--socket={folder / 'socket'}"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )

    def until_ready(self) -> Start:
        """Wait for READY=1. Raises TimeoutError, also for a service that ended."""
        imported = 0.0
        while b"READY=1" not in (said := self._notify.recv(4096)):
            if said.startswith(b"STATUS=") and not imported:
                imported = time.monotonic() - self._began
        ready = time.monotonic() - self._began
        ticks = sum(thread.ticks for thread in self.threads().values())
        return Start(imported, ready, ticks / TICKS_PER_SECOND)

    def threads(self) -> dict[int, Thread]:
        """Return the threads by their ids."""
        tasks = Path(f"/proc/{self._process.pid}/task")
        return {int(folder.name): _thread(folder) for folder in tasks.iterdir()}

    def end(self) -> None:
        """Stop it as systemd would."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._notify.close()


def _thread(folder: Path) -> Thread:
    name, fields = (folder / "stat").read_text().rsplit(")", 1)
    user, system = fields.split()[11:13]  # proc(5): fields 14 and 15, the third follows the name
    status = (folder / "status").read_text()
    match = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
    assert match is not None
    return Thread(name.partition("(")[2], int(user) + int(system), int(match[1]))


@contextlib.contextmanager
def service(model: Path) -> Iterator[Service]:
    """Run a service for the length of a block."""
    with tempfile.TemporaryDirectory() as folder:
        running = Service(model, Path(folder))
        try:
            yield running
        finally:
            running.end()


def report_starts(model: Path, runs: int) -> None:
    """Start the service some times and print the least and the median of each figure."""
    starts = []
    for _ in range(runs):
        with service(model) as running:
            starts.append(running.until_ready())
    print(f"start, {runs} runs                   least   median")
    for title, values in (
        ("executed to imported, seconds", [start.imported for start in starts]),
        ("executed to READY=1, seconds", [start.ready for start in starts]),
        ("CPU time until then, seconds", [start.cpu for start in starts]),
    ):
        print(f"  {title:30} {min(values):6.2f}   {statistics.median(values):6.2f}")


def report_idle(model: Path, seconds: float) -> None:
    """Leave a service alone for a while and print what its threads did meanwhile."""
    with service(model) as running:
        running.until_ready()
        time.sleep(2.0)  # what a start leaves behind is no part of idling
        before, began = running.threads(), time.monotonic()
        time.sleep(seconds)
        after, lasted = running.threads(), time.monotonic() - began
        print(
            f"idle for {lasted:.0f} s, half the watchdog's period is {running.watchdog_seconds / 2}"
        )
    ticks = sum(now.ticks - before[task].ticks for task, now in after.items())
    print(f"  CPU {100 * ticks / TICKS_PER_SECOND / lasted:.3f} %")
    for task, now in sorted(after.items()):
        print(f"  thread {now.name:16} {now.switches - before[task].switches:6} wake-ups")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure the start and the idling of the service.")
    parser.add_argument("model", type=Path, help="a .gguf file")
    parser.add_argument("--runs", type=int, default=5, help="starts to measure")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    report_starts(options.model, options.runs)
    if options.idle > 0:
        report_idle(options.model, options.idle)


if __name__ == "__main__":
    main()
