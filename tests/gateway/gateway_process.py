"""A gateway's process on a loopback port, before a service that somebody else runs."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from clients.running import environment
from unit.schedule.fakes import TIMEOUT_SECONDS

LIBRARIES = "GATEWAY_LIBRARIES"
"""Names a folder whose uvicorn and h11 the process takes instead of those of this one."""


class GatewayProcess:
    """A gateway in a process of its own. url: where it listens."""

    def __init__(
        self, folder: Path, socket: Path, config: str = "", program: str = "llamad_http"
    ) -> None:
        self.config = folder / f"{program}.toml"
        if program == "llamad_http" and "keys =" not in config:
            config = f'[server]\nkeys = "{folder}/keys"\n' + config
        self.config.write_text(config)
        self.lines: list[str] = []
        changes = {}
        if libraries := os.environ.get(LIBRARIES):
            changes["PYTHONPATH"] = libraries + os.pathsep + environment()["PYTHONPATH"]
        command = [sys.executable, "-m", program, "--config", str(self.config), "serve"]
        self.process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--socket", str(socket)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**changes),
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        found = re.search(r"listening on (\w+://\S+)", first)
        assert found, first + self.process.stderr.read()
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2])
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def stop(self) -> int:
        """Stop it as systemd does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_SECONDS)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def gateway_process(
    folder: Path, socket: Path, config: str = "", program: str = "llamad_http"
) -> Iterator[GatewayProcess]:
    """Run a gateway with this configuration."""
    gateway = GatewayProcess(folder, socket, config, program)
    try:
        yield gateway
    finally:
        gateway.close()
