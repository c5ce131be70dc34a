"""Three boards of one machine: network namespaces with llamad, llamad-http and HAProxy in each.

Has to run in a network namespace of its own: the front, with 192.168.1.10 on a bridge. A
board's namespace is held by one process that sleeps; with it namespace and interfaces end, so
nothing is left. Addresses are those of the files in packaging/haproxy.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from clients.running import environment

ROOT = Path(__file__).parents[2]
CERTIFICATE = ROOT / "tests" / "clients" / "localhost.pem"
FRONT = "192.168.1.10"
NAMES = ("pi1", "pi2", "pi3")
START_SECONDS = 120.0
_HTTP_TOML = '[server]\nkeys = "{keys}"\n'


def haproxy_config(name: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """Return a file of packaging/haproxy as the user's, with this folder and certificate in it."""
    text = (ROOT / "packaging" / "haproxy" / name).read_text()
    made_up = (
        ("    user haproxy\n    group haproxy\n", ""),  # as root: the folder is the test's
        ("    log /dev/log local0\n", ""),
        ("/run/haproxy/", f"{folder}/"),
        ("/etc/haproxy/llamad.pem", str(CERTIFICATE)),
        ("/etc/haproxy/llamad-ca.pem", str(CERTIFICATE)),
        ("verifyhost pis.local", "verifyhost localhost"),
    )
    for old, new in (*made_up, *changes):
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def run(*words: str) -> None:
    """Run a command. Raises CalledProcessError with what it said."""
    subprocess.run(words, check=True)


class Programs:
    """Processes that end with a with statement."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
        """Start one; what it says goes to the log."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment()
            )
        self.running.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self.running):
            if process.poll() is None:
                process.kill()
            process.wait()


class Board:
    """One board: its namespace, and the programs that run there."""

    def __init__(self, number: int, folder: Path, model: Path, keys: Path, ends: Programs) -> None:
        self.name = NAMES[number]
        self.address = f"192.168.1.{11 + number}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.socket = self.folder / "llamad.sock"
        self._model, self._ends = model, ends
        self._http_toml = self.folder / "http.toml"
        self._http_toml.write_text(_HTTP_TOML.format(keys=keys))
        self._programs: list[subprocess.Popen[bytes]] = []
        holder = ends.start(["unshare", "--net", "sleep", "infinity"], self.folder / "log")
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.02)
        self._inside = ["nsenter", "--target", str(holder.pid), "--net"]
        run(
            "ip", "link", "add", self.name, "type", "veth", "peer", "eth0", "netns", str(holder.pid)
        )
        run("ip", "link", "set", self.name, "master", "boards", "up")
        for words in (
            "link set lo up",
            "link set eth0 up",
            f"address add {self.address}/24 dev eth0",
        ):
            run(*self._inside, "ip", *words.split())

    def start(self) -> None:
        """Start the three programs of the board."""
        llamad = (sys.executable, "-m", "llamad", "serve", "--socket", str(self.socket))
        config = self.folder / "llamad.toml"
        config.write_text(f'[service]\nstate_directory = "{self.folder}/state"\n')
        (self.folder / "state").mkdir(exist_ok=True)
        self._start(*llamad, "--config", str(config), "--model", str(self._model), "--threads", "1")
        gateway = (sys.executable, "-m", "llamad_http", "--config", str(self._http_toml), "serve")
        self._start(*gateway, "--listen", f"{self.address}:8080", "--socket", str(self.socket))
        grpc = haproxy_config(
            "board-grpc.cfg", self.folder, ("/run/llamad/llamad.sock", str(self.socket))
        )
        self._start("haproxy", "-db", "-f", str(grpc))

    def _start(self, *words: str) -> None:
        self._programs.append(self._ends.start([*self._inside, *words], self.folder / "log"))

    def wait_until_ready(self) -> None:
        """Return once the model answers over HTTP."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                with socket.create_connection((self.address, 8080), timeout=2) as connection:
                    connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    if b" 200 " in connection.recv(100):
                        return
            except OSError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{self.name} does not serve: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """End all at once, as when the power goes."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop as systemd does: the gateway first, because it requires the service."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        for process in self._programs[::-1]:
            process.send_signal(number)
            if number == signal.SIGTERM:
                process.wait(START_SECONDS)
        for process in self._programs:
            process.wait(START_SECONDS)
        self._programs.clear()
