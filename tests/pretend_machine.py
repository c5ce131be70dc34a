"""The files of /proc and of a cgroup from which llamad reads how much memory a machine has."""

from pathlib import Path

from llamad.memory.machine import Machine


def machine(folder: Path, *, available_kib: int | None, cgroup_max: str = "max") -> Machine:
    """Write a machine's files, with this process in a v2 cgroup."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    (cgroup / "a").mkdir(parents=True, exist_ok=True)
    if available_kib is not None:
        (proc / "meminfo").write_text(f"MemAvailable: {available_kib} kB\n")
    (proc / "self" / "cgroup").write_text("0::/a\n")
    (cgroup / "a" / "memory.max").write_text(f"{cgroup_max}\n")
    (cgroup / "a" / "memory.current").write_text("0\n")
    return Machine(proc, cgroup)
