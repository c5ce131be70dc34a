"""What this process may use of the machine: CPUs and memory.

Owns the reading of /proc and of both cgroup versions, and nothing that is decided from it. What
cannot be read counts as no limit: a missing controller is an ordinary machine.
"""

import math
import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CAP_IPC_LOCK = 14  # linux/capability.h
_V2_LIMITS, _V1_LIMITS = ("memory.max", "memory.high"), ("memory.limit_in_bytes",)
_NO_LIMIT = 1 << 62  # v1 says about 2^63 where v2 says "max"


@dataclass(frozen=True, slots=True)
class Machine:
    """The two trees the answers come from; tests bring their own."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")

    def cpus(self) -> int:
        """Return the CPUs this process may run on: its affinity, and its cgroups' quota."""
        cpus = len(os.sched_getaffinity(0))
        for folder in self._cgroups("cpu"):
            quota = _v2_quota(folder) or _v1_quota(folder)
            if quota is not None:
                cpus = min(cpus, max(1, math.ceil(quota)))
        return cpus

    def is_board(self) -> bool:
        """Whether this is a board that a device tree describes, such as a Raspberry Pi."""
        return (self.proc / "device-tree" / "model").exists()

    def available_bytes(self) -> int | None:
        """Return the bytes that can be allocated without swapping; None when nobody knows.

        The least of MemAvailable and the room in each cgroup above this process, where the page
        cache that a cgroup could drop counts as room.
        """
        return _least([self.system_room(), self.cgroup_room()])

    def budget_bytes(self, locked_bytes: int = 0) -> int | None:
        """Return what this process may have in all: what is available, and what it has already.

        locked_bytes: of mapped files; locked pages count as available nowhere. A cgroup may not be
        the one that they are charged to: it counts at most those that it has itself.
        """
        own, system = self._own_bytes(), self.system_room()
        rooms = [None if system is None else system + own + locked_bytes]
        for folder in self._cgroups("memory"):
            room = _cgroup_room(folder)
            if room is not None:
                rooms.append(room + own + min(locked_bytes, _cgroup_unevictable(folder)))
        return _least(rooms)

    def total_bytes(self) -> int | None:
        """Return the memory there is, used or not: the machine's, or less by a cgroup's limit."""
        return _least([_meminfo(self.proc / "meminfo", "MemTotal"), self.limit_bytes()])

    def limit_bytes(self) -> int | None:
        """Return the least memory limit of the cgroups above this process; None without one."""
        limits = (_number(path) for path in self.limit_files())
        return min((n for n in limits if n is not None and n < _NO_LIMIT), default=None)

    def limit_files(self) -> list[Path]:
        """Return the files that limit the memory of the cgroups above this process."""
        names = (*_V2_LIMITS, *_V1_LIMITS)
        return self._memory_files(*names)

    def event_files(self) -> list[Path]:
        """Return the files in which v2 cgroups count how often they reached a limit."""
        return self._memory_files("memory.events")

    def pressure_files(self) -> list[Path]:
        """Return where the kernel tells how long processes wait for memory (PSI), nearest first."""
        system = self.proc / "pressure" / "memory"
        return [*self._memory_files("memory.pressure")[:1], *([system] if system.exists() else [])]

    def _memory_files(self, *names: str) -> list[Path]:
        paths = (folder / name for folder in self._cgroups("memory") for name in names)
        return [path for path in paths if path.exists()]

    def lock_limit_bytes(self) -> int | None:
        """Return how much this process may lock; None: RLIMIT_MEMLOCK does not bound it."""
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        may_exceed = self._status("CapEff", 16) >> _CAP_IPC_LOCK & 1
        return None if may_exceed or soft == resource.RLIM_INFINITY else soft

    def disk_read_bytes(self) -> int:
        """Return what this process has read from disks since it began; 0 where nobody counts."""
        for line in _lines(self.proc / "self" / "io"):
            name, _, value = line.partition(":")
            if name == "read_bytes":
                return int(value)
        return 0

    def _own_bytes(self) -> int:
        """Return what this process and its children have; a plan counts the template's too."""
        tasks = (self.proc / "self" / "task").glob("*/children")
        children = (pid for path in tasks for line in _lines(path) for pid in line.split())
        return 1024 * sum(self._status("RssAnon", 10, pid) for pid in ("self", *children))

    def _status(self, key: str, base: int, process: str = "self") -> int:
        """Return the number behind a key of a process's status; 0 where it is not told."""
        for line in _lines(self.proc / process / "status"):
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0], base)
        return 0

    def system_room(self) -> int | None:
        """Return MemAvailable of the whole machine, in bytes."""
        return _meminfo(self.proc / "meminfo", "MemAvailable")

    def cgroup_room(self) -> int | None:
        """Return the bytes that the cgroups above this process leave; None without a limit."""
        return _least([_cgroup_room(folder) for folder in self._cgroups("memory")])

    def _cgroups(self, controller: str) -> Iterator[Path]:
        """Yield this process's folders under a controller, innermost first, v2 and v1 alike."""
        for line in _lines(self.proc / "self" / "cgroup"):
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root = self.cgroup
            elif controller in controllers.split(","):
                root = self.cgroup / controller
            else:
                continue
            folder = root / path.lstrip("/")
            while folder != root:
                yield folder
                folder = folder.parent
            yield root


def _least(rooms: Iterable[int | None]) -> int | None:
    return min((room for room in rooms if room is not None), default=None)


def _cgroup_room(folder: Path) -> int | None:
    """Return the bytes a memory cgroup can still take; None without a limit.

    Above memory.high nothing is refused, but everything is slowed down until it is useless.
    """
    v2 = (_V2_LIMITS, "memory.current", ("inactive_file", "active_file"))
    v1 = (
        _V1_LIMITS,
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    )
    for limit_files, usage_file, cache_keys in (v2, v1):
        limits = [_number(folder / name) for name in limit_files]
        limit = min((bytes_ for bytes_ in limits if bytes_ is not None), default=None)
        usage = _number(folder / usage_file)
        if limit is not None and usage is not None:
            stat = dict(line.split(None, 1) for line in _lines(folder / "memory.stat"))
            cache = sum(int(stat.get(key, "0")) for key in cache_keys)
            return max(0, limit - max(0, usage - cache))
    return None


def _cgroup_unevictable(folder: Path) -> int:
    """Return the bytes of a memory cgroup that are locked, those of the cgroups below included."""
    stat = dict(line.split(None, 1) for line in _lines(folder / "memory.stat"))
    return int(stat.get("total_unevictable", stat.get("unevictable", "0")))


def _v2_quota(folder: Path) -> float | None:
    """Return the CPUs that cpu.max ("QUOTA PERIOD", microseconds) allows."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _v1_quota(folder: Path) -> float | None:
    """Return the CPUs that cpu.cfs_quota_us allows; it is -1 without a quota."""
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _meminfo(path: Path, name: str) -> int | None:
    for line in _lines(path):
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _number(path: Path) -> int | None:
    """Return the number in a file; None when there is none, "max" and -1 included."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
