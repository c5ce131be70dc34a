"""A ``llamad serve`` process on a private socket, for tests that need the whole service."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from clients.running import environment, llamactl_command
from unit.schedule.fakes import TIMEOUT_SECONDS


class Daemon:
    """A ``llamad serve`` process on a private socket."""

    def __init__(
        self, folder: Path, *flags: str, prefix: Sequence[str] = (), **changes: str
    ) -> None:
        self.socket = folder / "llamad.sock"
        self.log = folder / "log"
        serve = [sys.executable, "-m", "llamad", "serve", "--socket", str(self.socket), *flags]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *serve], stderr=log, stdin=subprocess.DEVNULL, env=environment(**changes)
            )

    def wait_until_ready(self) -> None:
        """Return once the model is served; llamactl health says so with its exit code."""
        while self.llamactl("health").returncode != 0:
            assert self.process.poll() is None, self.log.read_text()

    def llamactl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            llamactl_command("--socket", str(self.socket), *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=TIMEOUT_SECONDS,
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_SECONDS)


@contextlib.contextmanager
def daemon(
    folder: Path, *flags: str, prefix: Sequence[str] = (), **changes: str
) -> Iterator[Daemon]:
    """Run a service whose environment has these changes, started by the command in ``prefix``."""
    running = Daemon(folder, *flags, prefix=prefix, **changes)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(TIMEOUT_SECONDS)
