"""What was typed in earlier conversations, for the arrow keys.

Owns the file ``$XDG_STATE_HOME/llamactl/chat_history``: one JSON text a line, oldest first,
readable by its user only. A file that cannot be read or written costs the history, nothing else.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History

from llamactl.chat.kept import state_folder

MAX_FILE_BYTES = 4 << 20  # above it, the older half goes at the next start
MAX_ENTRIES = 2000  # that the arrow keys reach


def history_path() -> Path:
    """Return where the history is kept."""
    return state_folder() / "chat_history"


class StoredHistory(History):
    """The history of all conversations of a user; two at once append to the same file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._shorten()

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, newest first."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return []
        entries = []
        for line in reversed(lines[-MAX_ENTRIES:]):
            with contextlib.suppress(ValueError, RecursionError):  # a line that was cut
                entry = json.loads(line)
                if isinstance(entry, str):
                    entries.append(entry)
        return entries

    def store_string(self, string: str) -> None:
        """Append an entry."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            number = os.open(self._path, flags, 0o600)
            with os.fdopen(number, "wb", buffering=0) as file:
                os.fchmod(number, 0o600)
                file.write(json.dumps(string).encode() + b"\n")  # one write: entries never mix

    def _shorten(self) -> None:
        """Keep the newer half of a file that has grown too long."""
        if not self._path.exists() or self._path.stat().st_size <= MAX_FILE_BYTES:
            return
        data = self._path.read_bytes()[-MAX_FILE_BYTES // 2 :]
        part = self._path.with_name(self._path.name + ".part")
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(data[data.find(b"\n") + 1 :])
        part.replace(self._path)
