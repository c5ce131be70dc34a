"""What this machine has for a model, and the mix that ``auto`` chooses for it."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError
from llamad.memory.machine import Machine
from llamad_tools.advice.recommendation import fit
from llamad_tools.advice.shape import ModelShape
from llamad_tools.quantize.mixes import MIXES, Mix

AS_IT_IS = "as it is"  # what auto chooses for a file that had better stay
AUTO = "auto"  # as a type of quantize and convert: what fits this machine


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a budget comes from. Bytes; None: no such limit, or not asked."""

    budget: int
    machine: int | None = None  # --memory: the whole memory of another machine
    available: int | None = None  # MemAvailable
    cgroup: int | None = None  # what the memory cgroups leave
    lockable: int | None = (
        None  # RLIMIT_MEMLOCK of this process; the unit of the service has its own
    )


def memory_here(machine: Machine) -> Memory:
    """Return this machine's budget. Raises LlamadError when nothing about its memory is known."""
    budget = machine.budget_bytes()
    if budget is None:
        raise LlamadError(
            ErrorKind.STATE,
            "MEMORY_UNKNOWN",
            "neither /proc/meminfo nor a cgroup says how much memory there is: give --memory",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Memory(
        budget,
        available=machine.system_room(),
        cgroup=machine.cgroup_room(),
        lockable=None if soft == resource.RLIM_INFINITY else soft,
    )


def advised_mix(path: Path, shape: ModelShape) -> Mix | None:
    """Return the mix for this machine, None: keep the types; say which, and why, on standard error.

    Raises LlamadError OUT_OF_MEMORY when nothing fits.
    """
    advice = fit(shape, memory_here(Machine()).budget).recommendation
    if advice.action == "none":
        raise LlamadError(ErrorKind.EXHAUSTED, "OUT_OF_MEMORY", f"{path}: {advice.reason}")
    print(f"llamad: {AUTO}: {advice.mix or AS_IT_IS}: {advice.reason}", file=sys.stderr)
    return None if advice.mix is None else MIXES[advice.mix]
