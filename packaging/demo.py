"""Show the whole service at work: start ``llamad`` on a private socket, ask it, stop it.

    python packaging/demo.py MODEL [QUESTION]

Uses the programs beside the running Python (``.venv/bin``). Touches nothing outside a temporary
folder: no configuration of the machine, no root, no systemd; it only speaks systemd's notify
protocol (sd_notify(3)) to learn when the service is ready.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
QUESTION = "What is the capital of France, and what is it known for?"
SEED = "1"  # gives this answer on every machine; greedy, the small model says one word for ever
NEXT = (
    'next: your own questions from here (docs/programs.md, "Without installing"),'
    ' or install it (README.md, "Install")'
)
LOAD_SECONDS = 120.0  # longest wait for a notification
STOP_SECONDS = 20.0


def wait_until_ready(notify: socket.socket, service: "subprocess.Popen[bytes]") -> bool:
    """Read notifications until READY=1; False when the service ends or falls silent first."""
    end = os.pidfd_open(service.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(notify, selectors.EVENT_READ)
            selector.register(end, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(LOAD_SECONDS)]
                if notify not in ready:
                    return False
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return True
    finally:
        os.close(end)


def stop(service: "subprocess.Popen[bytes]") -> None:
    """Stop the service as systemd would: SIGTERM, and SIGKILL when it does not end."""
    service.terminate()
    try:
        service.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


@contextmanager
def running_service(folder: Path, config: str, *flags: str) -> Iterator[Path]:
    """Run ``llamad serve`` in ``folder`` until the end of the block; yield its socket.

    config: the text of its configuration, so that nothing of this machine's /etc counts. Raises
    RuntimeError with its log when it does not become ready.
    """
    address, log, config_path = (folder / f"llamad.{end}" for end in ("sock", "log", "toml"))
    config_path.write_text(config)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        log.open("wb") as log_file,
    ):
        notify.bind(str(folder / "notify"))
        command = [str(PROGRAMS / "llamad"), "serve", "--config", str(config_path)]
        service = subprocess.Popen(
            [*command, "--socket", str(address), *flags],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            stdin=subprocess.DEVNULL,
            stderr=log_file,
        )
        try:
            if not wait_until_ready(notify, service):
                text = log.read_text(errors="replace")
                raise RuntimeError(f"llamad did not become ready; its log:\n{text}")
            yield address
        finally:
            stop(service)


def demonstrate(model: Path, question: str, folder: Path) -> int:
    """Run the service in ``folder`` and one question against it; return an exit code."""
    try:
        with running_service(folder, "", "--model", str(model)) as address:
            print(f"$ llamactl ask {question!r}", flush=True)
            ask = [str(PROGRAMS / "llamactl"), "--socket", str(address), "ask", "--stats"]
            answer = [*ask, "--seed", SEED, "--max-tokens", "120", question]
            code = subprocess.run(answer, stdin=subprocess.DEVNULL).returncode
            if code == 0:
                print(NEXT)
            return code
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def main() -> int:
    """Run the command line; return the exit code."""
    if len(sys.argv) not in (2, 3):
        print("usage: demo.py MODEL [QUESTION]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the service is stopped
    question = sys.argv[2] if len(sys.argv) == 3 else QUESTION
    with tempfile.TemporaryDirectory(prefix="llamad-demo-") as name:
        return demonstrate(Path(sys.argv[1]).resolve(), question, Path(name))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
