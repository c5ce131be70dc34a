"""A model as large as the memory, on a whole emulated Pi 4 with swap: it streams, nothing swaps.

    PYTHONPATH=tests python3 -m e2e.pi_memory MODEL [--debs FOLDER]

MODEL is a file of llama's architecture with 3.5 GB or more; its text may be noise, for the bytes
count. While it answers, a command each second shows that the board can still be used. Needs root,
and half an hour: every instruction is emulated, so seconds per token mean nothing. A command has
2 s, or, on a computer too slow for that, twice what it takes beside programs that only compute.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from e2e.pi import KIB, MEMORY, ROOT
from e2e.pi_machine import PiMachine
from e2e.service import Service, packages_in
from e2e.steps import run_steps

CPU = "cortex-a72"
FOLDER = "/srv"
CONFIG = "/etc/llamad/llamad.toml"
OTHER_DISK_BYTES = 3 << 30  # root tree, packages, swap
SWAP = "512M"
TOKENS = 2
LOAD_SECONDS = 1800.0
ANSWER_SECONDS = 3600.0
COMMAND_SECONDS = 2.0  # for a command while the model answers
N_CPUS = 4
N_COMMANDS = 10  # beside programs that only compute
BUSY_UNIT = "e2e-busy"
TOLERANCE = 1.02  # of bytes counted by the kernel: whole pages, metadata of the file system
OTHER_READS = 16 << 20  # of a service that runs: libraries and modules first used later
ASK = "e2e-ask"


class MemoryRun:
    """The steps, in the order of ``steps``."""

    def __init__(self, machine: PiMachine, debs: list[str], model: Path) -> None:
        """Expect the packages and the model below FOLDER on the machine's disk."""
        self._machine = machine
        self._service = Service(machine)
        self._debs = debs
        self._model = model
        self._seconds_beside_computing = 0.0
        self.steps = (
            self.install,
            self.swap_on,
            self.compute,
            self.load,
            self.answer,
            self.nothing_swapped,
        )

    def install(self) -> None:
        """Apt installs the packages, and the unit starts without a model."""
        self._service.apt("install", *self._debs)
        self._service.add_users()
        self._service.until_active()

    def swap_on(self) -> None:
        """The board has swap, as Raspberry Pi OS has."""
        self._machine.run("fallocate", f"--length={SWAP}", "/swap")
        self._machine.run("chmod", "0600", "/swap")
        self._machine.run("mkswap", "/swap")
        self._machine.run("swapon", "/swap")

    def compute(self) -> None:
        """Measure a command beside a program a CPU that computes, with the unit's weight."""
        weight = ("--property=Nice=5", "--property=CPUWeight=50")
        units = [f"{BUSY_UNIT}-{i}" for i in range(N_CPUS)]
        for unit in units:
            loop = ("sh", "-c", "while :; do :; done")
            self._machine.run("systemd-run", f"--unit={unit}", *weight, *loop)
        self._seconds_beside_computing = max(self._command() for _ in range(N_COMMANDS))
        self._machine.run("systemctl", "stop", *units)

    def load(self) -> None:
        """The model does not fit: a part of it is locked, the rest will stream."""
        lines = ("[model]", f'path = "{FOLDER}/{self._model.name}"')
        text = "\\n".join(lines)
        self._machine.run("sh", "-c", f"printf '{text}\\n' >{CONFIG}")
        self._machine.run("systemctl", "restart", "llamad", seconds=LOAD_SECONDS)
        self._service.until_active()
        size = self._model.stat().st_size
        locked, streamed = self._field("locked_bytes"), self._field("streamed_bytes")
        print(f"    {size} bytes: {locked} locked, {streamed} streamed", flush=True)
        assert locked > size // 2, f"locked {locked} of {size}"
        assert 0 < streamed < size - locked + size // 50, f"streamed {streamed} of {size}"

    def answer(self) -> None:
        """A token reads what streams and no more; a command each second answers in time."""
        before, seconds = self._read_bytes(), list[float]()
        ask = ("llamactl", "ask", "--raw", "--temperature", "0", "-n", str(TOKENS), "a")
        self._machine.run("systemd-run", f"--unit={ASK}", "--remain-after-exit", *ask)
        end = time.monotonic() + ANSWER_SECONDS
        while not self._has_answered():
            assert time.monotonic() < end, "no answer"
            seconds.append(self._command())
        read = self._read_bytes() - before
        streamed = self._field("streamed_bytes")
        print(
            f"    {read / TOKENS:.0f} bytes read per token, {streamed} planned;"
            f" {len(seconds)} commands, the slowest {max(seconds):.2f} s,"
            f" {self._seconds_beside_computing:.2f} beside programs that compute",
            flush=True,
        )
        assert streamed * TOKENS <= TOLERANCE * read, "the model did not stream"
        assert read <= TOLERANCE * TOKENS * streamed + OTHER_READS
        most = max(COMMAND_SECONDS, 2 * self._seconds_beside_computing)
        assert max(seconds) <= most, seconds

    def nothing_swapped(self) -> None:
        """The service has nothing in swap, and the kernel wrote no page there."""
        fields = self._service.process_fields()
        counters = self._machine.run("cat", "/proc/vmstat").stdout
        out = next(line for line in counters.splitlines() if line.startswith("pswpout "))
        swaps = self._machine.run("cat", "/proc/swaps").stdout
        assert "/swap" in swaps, swaps
        print(f"    VmSwap {fields['VmSwap']}, {out}", flush=True)
        assert (fields["VmSwap"], out) == ("0 kB", "pswpout 0")

    def _command(self) -> float:
        """Return how many seconds a command takes, and wait for one."""
        began = time.monotonic()
        self._machine.run("ls", "/etc")
        seconds = time.monotonic() - began
        time.sleep(1)
        return seconds

    def _has_answered(self) -> bool:
        state = self._machine.run("systemctl", "show", ASK, "--property=SubState,Result", "--value")
        words = state.stdout.split()
        assert "failed" not in words, self._machine.run("journalctl", f"--unit={ASK}").stdout
        return "exited" in words

    def _field(self, name: str) -> int:
        return int(self._service.status_field(name))

    def _read_bytes(self) -> int:
        """Return what the service has read from the disk since it began."""
        text = self._machine.run("cat", f"/proc/{self._service.property('MainPID')}/io").stdout
        return next(int(s.split()[1]) for s in text.splitlines() if s.startswith("read_bytes:"))


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="A model as large as an emulated board's memory.")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--debs", type=Path, default=ROOT / "dist", metavar="FOLDER")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us: clean up first
    model = options.model.resolve()
    packages = {f"{FOLDER}/{deb.name}": deb for deb in packages_in(options.debs.resolve(), "arm64")}
    disk_bytes = OTHER_DISK_BYTES + model.stat().st_size // KIB * 1100
    began = time.monotonic()
    files = {**packages, f"{FOLDER}/{model.name}": model}
    with PiMachine(CPU, MEMORY, files, disk_bytes) as machine:
        print(f"{CPU}: boot: ok, {time.monotonic() - began:.1f} s", flush=True)
        run_steps(CPU, MemoryRun(machine, list(packages), model).steps, machine)
    print("e2e-pi memory: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
