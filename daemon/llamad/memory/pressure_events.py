"""What the kernel tells about memory without being asked: pressure, limits met, limits written.

Descriptors that become readable, so that whoever watches sleeps until something happened:

- PSI (Documentation/accounting/psi.rst): processes waited for memory for 10 % of two seconds. The
  file that systemd names in MEMORY_PRESSURE_WATCH, else that of the nearest cgroup, else the
  machine's. Without CAP_SYS_RESOURCE the window is a multiple of two seconds, from Linux 6.4 on.
- memory.events of v2 cgroups: a limit was met, memory.high included.
- the limits themselves, by inotify: a write ends with IN_CLOSE_WRITE, also one that is refused.

What the kernel does not offer, or this process may not open, is left out: the service then hears
less. Reads no sizes (machine.py) and decides nothing (pressure.py).
"""

import base64
import ctypes
import os
import select
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from llamad.memory.machine import Machine

TRIGGER = b"some 200000 2000000"  # microseconds waited, of a window
_IN_CLOSE_WRITE = 0x8  # sys/inotify.h


class PressureEvents:
    """The open descriptors; wait for ``pressure`` and ``limits``, then read. One thread."""

    def __init__(self, machine: Machine, environment: Mapping[str, str] = os.environ) -> None:
        """Open what there is; nothing of it is needed."""
        self.pressure, self.limits = select.epoll(), select.epoll()
        self._files: list[int] = []
        self._inotify = _watch_writes(machine.limit_files())
        if self._inotify is not None:
            self.limits.register(self._inotify, select.EPOLLIN)
        for path, trigger in _triggers(machine, environment):
            if self._open(path, self.pressure, trigger):
                break
        for path in machine.event_files():
            self._open(path, self.limits)

    @property
    def sources(self) -> int:
        """Return how many descriptors are watched."""
        return len(self._files) + (self._inotify is not None)

    def read_pressure(self) -> None:
        """Take note of pressure. The wait itself has taken it from the kernel: nothing to ask."""
        self.pressure.poll(0)

    def read_limits(self) -> bool:
        """Take note of limits met or written; return whether one was written."""
        for fd, _ in self.limits.poll(0):
            if fd != self._inotify:  # memory.events: tells again after it was read
                os.lseek(fd, 0, os.SEEK_SET)
                os.read(fd, 4096)
        if self._inotify is None:
            return False
        try:
            return bool(os.read(self._inotify, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close them; PSI's triggers end with their descriptors."""
        self.pressure.close()
        self.limits.close()
        for fd in (*self._files, *(() if self._inotify is None else (self._inotify,))):
            os.close(fd)
        self._files, self._inotify = [], None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: Path, epoll: select.epoll, trigger: bytes | None = None) -> bool:
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if trigger is None else os.O_RDWR)
        try:
            fd = os.open(path, flags)
        except OSError:
            return False
        try:
            if trigger is not None:
                os.write(fd, trigger + b"\0")
            else:
                os.read(fd, 4096)
            epoll.register(fd, select.EPOLLPRI)
        except OSError:
            os.close(fd)
            return False
        self._files.append(fd)
        return True


def _triggers(machine: Machine, environment: Mapping[str, str]) -> list[tuple[Path, bytes]]:
    """Return where to ask for PSI and how, best first; none when systemd says not to."""
    named = environment.get("MEMORY_PRESSURE_WATCH")
    if named == os.devnull:
        return []
    files = [(path, TRIGGER) for path in machine.pressure_files()]
    if named:
        try:
            wish = base64.b64decode(environment.get("MEMORY_PRESSURE_WRITE", ""), validate=True)
        except ValueError:
            wish = b""
        files.insert(0, (Path(named), wish.rstrip(b"\0") or TRIGGER))
    return files


def _watch_writes(paths: list[Path]) -> int | None:
    """Return an inotify descriptor that tells when one of the files was written; None without."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return None
    watches = [libc.inotify_add_watch(fd, os.fsencode(path), _IN_CLOSE_WRITE) for path in paths]
    if not any(watch >= 0 for watch in watches):
        os.close(fd)
        return None
    return int(fd)
