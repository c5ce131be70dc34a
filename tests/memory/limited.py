"""A control group with little memory and a slow disk, for one program and its children.

Works with cgroup v1 (memory, blkio) and with v2 (memory, io). Needs root. Also how much a process
has read from the disk, and files that are on the disk only.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
_ROOT = Path("/sys/fs/cgroup")
_V1 = (_ROOT / "memory" / "memory.limit_in_bytes").exists()


class Limited:
    """One group; it must be empty when it is closed."""

    def __init__(self, name: str, memory_bytes: int, disk: Path, bytes_per_second: int) -> None:
        """Limit memory, page cache included, and reads from the disk of a path (0: not)."""
        self._folders = [_ROOT / kind / name for kind in ("memory", "blkio")] if _V1 else []
        if not _V1:
            subtree = _ROOT / "cgroup.subtree_control"
            subtree.write_text("+memory")
            subtree.write_text("+io")
            self._folders = [_ROOT / name]
        for folder in self._folders:
            folder.mkdir()
        self._memory, self._io = self._folders[0], self._folders[-1]
        self.limit = memory_bytes
        if bytes_per_second:
            self.throttle(disk, bytes_per_second)

    @property
    def limit(self) -> int:
        """The memory limit in bytes."""
        return int((self._memory / self._limit_name).read_text())

    @limit.setter
    def limit(self, n_bytes: int) -> None:
        (self._memory / self._limit_name).write_text(str(n_bytes))

    @property
    def _limit_name(self) -> str:
        return "memory.limit_in_bytes" if _V1 else "memory.max"

    def try_limit(self, n_bytes: int) -> bool:
        """Set the limit; False when the kernel refuses because more is in use (v1)."""
        try:
            self.limit = n_bytes
        except OSError:
            return False
        return True

    def peak_bytes(self) -> int:
        """Return the most memory that was in use at once."""
        name = "memory.max_usage_in_bytes" if _V1 else "memory.peak"
        return int((self._memory / name).read_text())

    def kills(self) -> int:
        """Return how many processes were killed because memory was short."""
        name = "memory.oom_control" if _V1 else "memory.events"
        lines = (line.split() for line in (self._memory / name).read_text().splitlines())
        return next((int(n) for key, n in lines if key == "oom_kill"), 0)

    def throttle(self, disk: Path, bytes_per_second: int) -> None:
        """Let the group read so much from the disk of a path; 0: as fast as it can."""
        device = whole_disk(disk)
        if _V1:
            line = f"{device} {bytes_per_second}"
            (self._io / "blkio.throttle.read_bps_device").write_text(line)
        else:
            line = f"{device} rbps={bytes_per_second or 'max'}"
            (self._io / "io.max").write_text(line)

    def prefix(self) -> list[str]:
        """Return the beginning of a command line that runs in the group."""
        enter = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self._folders)
        return ["sh", "-c", enter + 'exec "$@"', "limited"]

    def close(self) -> None:
        """Remove the group."""
        for folder in self._folders:
            folder.rmdir()


@contextmanager
def limited(
    memory_bytes: int, disk: Path = Path("/"), bytes_per_second: int = 0
) -> Iterator[Limited]:
    """Make a group for the time of the block."""
    group = Limited(f"llamad-check-{os.getpid()}", memory_bytes, disk, bytes_per_second)
    try:
        yield group
    finally:
        group.close()


def whole_disk(path: Path) -> str:
    """Return "MAJOR:MINOR" of the disk that holds a path; limits name whole disks."""
    device = path.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    folder = (Path("/sys/dev/block") / name).resolve()
    if (folder / "partition").exists():
        return (folder.parent / "dev").read_text().strip()
    return name


def read_bytes(pid: int) -> int:
    """Return what a process has read from disks since it began, in bytes."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def make_cold(*paths: Path) -> None:
    """Leave nothing of these files in the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def run(command: Sequence[str], group: Limited | None = None, seconds: float = 600.0) -> str:
    """Run a command to its end and return what it printed; AssertionError when it fails."""
    prefix = [] if group is None else group.prefix()
    done = subprocess.run(
        [*prefix, *command], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}"
    return done.stdout
