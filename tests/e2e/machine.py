"""A Debian machine with a real systemd as PID 1: systemd-nspawn on an overlay of a cached root.

Owns booting, running commands inside, rebooting and the removal of everything it made. What is
written inside is gone with the machine; the root tree below it (``tests/e2e/root``) never changes.
There is no network inside but the loopback. One machine runs at a time, since all of them get the
same control group; a second one waits. Needs root.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TERM=dumb")
BOOT_SECONDS = 120.0  # emulated machines take their time
HALT_SECONDS = 30.0
CONTROL_GROUPS = "/sys/fs/cgroup"  # its lock is that of every test of this kind on this computer

Result = subprocess.CompletedProcess[str]


class Machine:
    """One machine; a context manager that boots it and removes it."""

    def __init__(self, suite: str, architecture: str) -> None:
        """Make the root tree where it is missing; nothing runs yet."""
        command = [str(HERE / "root"), suite, architecture]
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        self._base = Path(made.stdout.split()[-1])
        self._folder = Path(tempfile.mkdtemp(prefix="e2e-", dir=self._base.parent))
        self.root = self._folder / "root"
        self._lock = os.open(CONTROL_GROUPS, os.O_RDONLY)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> "Machine":
        """Mount the overlay and boot."""
        for name in ("root", "upper", "work"):
            (self._folder / name).mkdir()
        layers = f"lowerdir={self._base},upperdir={self._folder}/upper,workdir={self._folder}/work"
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            _call("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
            self._boot()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Power off, and remove everything that was written."""
        try:
            self._halt()
        finally:
            self._remove()

    def run(
        self, *command: str, user: str = "root", check: bool = True, seconds: float = 300.0
    ) -> Result:
        """Run a command inside to its end; with ``check``, another exit code than 0 is a failure.

        Standard output and standard error come together, as a person would see them.
        """
        result = subprocess.run(
            [*self._inside(user), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {result.returncode}\n{result.stdout}")
        return result

    def start(self, *command: str, user: str) -> "subprocess.Popen[str]":
        """Start a command inside; its output is for the caller to read."""
        return subprocess.Popen(
            [*self._inside(user), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_beside(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program of this computer in the machine's network; the caller ends it.

        Its output goes nowhere.
        """
        enter = ("nsenter", "--net", f"--target={self._leader}", "--")
        nothing = subprocess.DEVNULL
        return subprocess.Popen([*enter, *command], stdin=nothing, stdout=nothing, stderr=nothing)

    def put(self, source: Path, target: str) -> None:
        """Copy a file into the machine."""
        path = self.root / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)

    def reboot(self) -> None:
        """Power off and boot again on what was written."""
        self._halt()
        self._boot()

    def _inside(self, user: str) -> Sequence[str]:
        enter = ["nsenter", "--all", f"--target={self._leader}", "--", "env", "-i", *ENVIRONMENT]
        if user == "root":
            return enter
        return [*enter, "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]

    def _boot(self) -> None:
        with (self._folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    "systemd-nspawn",
                    "--quiet",
                    f"--directory={self.root}",
                    f"--machine=e2e-{os.getpid()}",
                    "--boot",
                    "--private-network",
                    "--register=no",
                    "--keep-unit",
                    "--timezone=off",
                    "--console=pipe",
                    "--system-call-filter=@memlock",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        until(self._is_up, "the machine boots", BOOT_SECONDS)
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        assert state in ("running", "degraded"), state

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, (self._folder / "console.log").read_text()
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._leader = int(children[0]) if children else 0
        files = Path("/proc", str(self._leader), "root")  # as the machine sees them, proc(5)
        return (files / "run/systemd/private").is_socket()

    def _halt(self) -> None:
        if self._nspawn is None:
            return
        try:
            self.run("systemctl", "poweroff", check=False, seconds=HALT_SECONDS)
            self._nspawn.wait(HALT_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        self._nspawn = None

    def _kill(self) -> None:
        """End it at once. With its first process go all others; nspawn's end would spare them."""
        assert self._nspawn is not None
        if self._nspawn.poll() is None:
            os.kill(self._leader or self._nspawn.pid, signal.SIGKILL)
        self._nspawn.wait()

    def _remove(self) -> None:
        if self._nspawn is not None:
            self._kill()
        if os.path.ismount(self.root):
            _call("umount", "--lazy", str(self.root))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        os.close(self._lock)


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until a condition holds; AssertionError when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def _call(*command: str) -> None:
    subprocess.run(command, check=True)
