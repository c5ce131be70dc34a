"""A terminal that a test types into and reads the screen of: a private tmux server.

Owns the server, which ends with the test. Nothing sleeps: what is waited for is the screen.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from unit.schedule.fakes import TIMEOUT_SECONDS


class TerminalScreen:
    """One program in one window of a private tmux server."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux.sock"

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        """Start the program; what was on the screen of an earlier one is gone."""
        size = ("-x", str(columns), "-y", str(rows))
        subprocess.run(
            [
                "tmux",
                "-S",
                str(self._socket),
                "-u",
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                *size,
                "--",
                *command,
            ],
            env=dict(environment),
            check=True,
        )

    def _tmux(self, *arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-u", *arguments],
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
        return done.stdout.decode()

    def type(self, text: str) -> None:
        """Type characters."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, C-c, Up."""
        self._tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste, marked as a paste where the program asked for marks."""
        self._tmux("load-buffer", "-", stdin=text.encode())
        self._tmux("paste-buffer", "-p", "-d")

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal; tmux tells the program in its own time."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))
        terminal = os.open(self._tmux("display", "-p", "#{pane_tty}").strip(), os.O_NOCTTY)
        try:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while os.get_terminal_size(terminal) != (columns, rows):
                assert time.monotonic() < deadline, f"it stays {os.get_terminal_size(terminal)}"
        finally:
            os.close(terminal)

    def text(self) -> str:
        """Return what was shown, scrolled lines included, without trailing spaces."""
        return self._tmux("capture-pane", "-p", "-S", "-").rstrip()

    def wait(self, seen: Callable[[str], bool]) -> str:
        """Return the screen once it is as expected."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not seen(text := self.text()):
            assert time.monotonic() < deadline, f"the screen stays:\n{text}"
        return text

    def wait_for(self, text: str) -> str:
        """Return the screen once it shows this text."""
        return self.wait(lambda shown: text in shown)

    def wait_for_end(self) -> None:
        """Wait until the program has ended."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._tmux("list-sessions"):
            assert time.monotonic() < deadline, f"it goes on:\n{self.text()}"

    def stop(self) -> None:
        """End the server and the program."""
        self._tmux("kill-server")


@contextlib.contextmanager
def terminal_screen(folder: Path) -> Iterator[TerminalScreen]:
    """Give a terminal to a test."""
    screen = TerminalScreen(folder)
    try:
        yield screen
    finally:
        screen.stop()
