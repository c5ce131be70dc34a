"""The packages on a whole emulated Pi: its kernel, cgroups, seccomp, four cores, a slow card.

    PYTHONPATH=tests python3 -m e2e.pi [--model FILE] [--debs FOLDER] [CPU...]

What a container cannot show: the engine picks the kernels of the processor, the weights are locked,
the memory limit of the unit is real, the system call filter is active. CPUs: cortex-a72 (Pi 4) and
cortex-a76 (Pi 5). Needs root, and minutes: every instruction is emulated.
"""

import argparse
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from e2e.pi_machine import PiMachine
from e2e.service import STATE, Service, packages_in
from e2e.steps import run_steps

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
KERNELS: Mapping[str, str] = {"cortex-a72": "neon", "cortex-a76": "dotprod"}
MEMORY = "4G"
MEMORY_HIGH = 0.92  # of all memory, as the unit says
KIB = 1024
METADATA_BYTES = 4 << 20  # of the model, at most: its vocabulary


class PiRun:
    """The steps on one emulated machine, in the order of ``steps``."""

    def __init__(self, machine: PiMachine, debs: list[str], model: Path, kernels: str) -> None:
        """Expect the packages and /srv/MODEL on the machine's disk."""
        self._machine = machine
        self._service = Service(machine)
        self._debs = debs
        self._model = model
        self._kernels = kernels
        self.steps = (
            self.install,
            self.answer,
            self.use_the_kernels_of_the_processor,
            self.lock_the_weights,
            self.limit_the_memory,
            self.filter_system_calls,
        )

    def install(self) -> None:
        """Apt installs the packages, and the unit starts without a model."""
        self._service.apt("install", *self._debs)
        self._service.add_users()
        self._service.until_active()

    def answer(self) -> None:
        """With a model in its folder the service answers a member of its group."""
        self._machine.run("cp", f"/srv/{self._model.name}", str(STATE))
        self._machine.run("systemctl", "restart", "llamad")
        self._service.until_active()
        self._service.ask()

    def use_the_kernels_of_the_processor(self) -> None:
        """The journal names the kernels: vdotq_s32 only where the processor has it."""
        assert f"kernel_set={self._kernels}" in self._loaded()

    def lock_the_weights(self) -> None:
        """All weights are locked, as the kernel counts it: the file but for its metadata."""
        size = self._model.stat().st_size
        told = int(self._service.status_field("locked_bytes"))
        assert told >= size - METADATA_BYTES, f"{told} of {size} bytes"
        locked = int(self._service.process_fields()["VmLck"].removesuffix(" kB")) * KIB
        assert locked >= told, f"{locked} of {told} bytes"
        limits = self._machine.run("cat", f"/proc/{self._service.property('MainPID')}/limits")
        assert re.search(r"Max locked memory +unlimited +unlimited", limits.stdout), limits.stdout

    def limit_the_memory(self) -> None:
        """MemoryHigh is in force in the unit's control group."""
        group = self._service.property("ControlGroup")
        high = self._machine.run("cat", f"/sys/fs/cgroup{group}/memory.high").stdout.strip()
        memory = self._machine.run("cat", "/proc/meminfo").stdout
        total = re.search(r"MemTotal: +(\d+) kB", memory)
        assert total is not None, memory
        share = int(high) / (int(total[1]) * KIB)
        assert abs(share - MEMORY_HIGH) < 0.01, f"memory.high is {high}, {share:.3f} of all"

    def filter_system_calls(self) -> None:
        """The sandbox is real: a seccomp filter, no new privileges, no capability."""
        fields = self._service.process_fields()
        assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1"), fields
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, fields

    def _loaded(self) -> str:
        """Return the last line about a loaded model."""
        lines = [line for line in self._service.journal().splitlines() if "model loaded" in line]
        assert lines, self._service.journal()
        return lines[-1]


def test_cpu(cpu: str, debs: Path, model: Path) -> None:
    """Run every step on one processor."""
    packages = {f"/srv/{deb.name}": deb for deb in packages_in(debs, "arm64")}
    began = time.monotonic()
    files = {**packages, f"/srv/{model.name}": model.resolve()}
    with PiMachine(cpu, MEMORY, files) as machine:
        print(f"{cpu}: boot: ok, {time.monotonic() - began:.1f} s", flush=True)
        run = PiRun(machine, list(packages), model, KERNELS[cpu])
        run_steps(cpu, run.steps, machine)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Test the packages on emulated boards.")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="FILE")
    parser.add_argument("--debs", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("cpus", nargs="*", metavar="CPU", help=" or ".join(KERNELS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us: clean up first
    cpus = options.cpus or list(KERNELS)
    for cpu in cpus:
        test_cpu(cpu, options.debs.resolve(), options.model)
    print(f"e2e-pi: passed on {', '.join(cpus)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
