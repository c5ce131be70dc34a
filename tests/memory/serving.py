"""A service in a limited group, and what its status and /proc say of it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clients.daemon_process import Daemon, daemon
from memory.limited import Limited, read_bytes


class Served:
    """A running service, seen as a client and as /proc see it."""

    def __init__(self, service: Daemon) -> None:
        self._service = service
        self.pid = service.process.pid

    def status(self) -> dict[str, Any]:
        """Return what llamactl says as JSON."""
        answer = self._service.llamactl("--json", "status")
        assert answer.returncode == 0, answer.stderr
        return dict(json.loads(answer.stdout))

    def model(self) -> dict[str, Any]:
        """Return the loaded model's part of the status."""
        return dict(self.status()["model"])

    def ask(self, *arguments: str) -> str:
        """Return the answer to a prompt, without a chat template and with the likeliest tokens."""
        return self.answer("--raw", *arguments)

    def answer(self, *arguments: str) -> str:
        """Return the answer of ``llamactl ask`` with the likeliest tokens."""
        answer = self.llamactl("ask", "--temperature", "0", *arguments)
        assert answer[0] == 0, answer
        return answer[1]

    def llamactl(self, *arguments: str) -> tuple[int, str, str]:
        """Run llamactl; return its exit code, output and errors."""
        done = self._service.llamactl(*arguments)
        return done.returncode, done.stdout, done.stderr

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of llamactl, to run beside."""
        return ["--socket", str(self._service.socket), *arguments]

    def read_bytes(self) -> int:
        """Return what the service has read from disks since it began."""
        return read_bytes(self.pid)

    def own_bytes(self) -> int:
        """Return the memory that the service has and that is no file's."""
        return self._status_bytes("RssAnon")

    def swapped_bytes(self) -> int:
        """Return what of the service was swapped out."""
        return self._status_bytes("VmSwap")

    def _status_bytes(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))

    @property
    def log(self) -> str:
        """What the service has logged."""
        return self._service.log.read_text()

    @property
    def lives(self) -> bool:
        """Whether its process runs."""
        return self._service.process.poll() is None

    def stop(self) -> int:
        """End it; return its exit code."""
        return self._service.stop()


@contextlib.contextmanager
def served(
    folder: Path,
    flags: Sequence[str],
    group: Limited | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Served]:
    """Run a service, in a group if there is one, with these variables; it is ready."""
    folder.mkdir(exist_ok=True)
    prefix = [] if group is None else group.prefix()
    with daemon(folder, *flags, prefix=prefix, **dict(environment)) as service:
        service.wait_until_ready()
        yield Served(service)
        if service.process.poll() is None:
            service.stop()
