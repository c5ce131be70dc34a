"""The service's state directory: who may use it, and whether it can be used at all.

Jobs (``jobs.sqlite``) and prefixes (``prefixes/``) are stored below it. Owns the file ``.lock``,
which one service holds while it lives, and ``version``, which says how the directory is laid out.
Where it cannot be used the service still serves, and stores nothing; ``fault`` says why. Nothing
here is removed or replaced: what a newer version wrote stays as it is.
"""

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from llamad.logs import fields
from llamad.small_file import read_small, replace_small

log = logging.getLogger(__name__)

VERSION = 1
LOCK, VERSION_FILE = ".lock", "version"
_TITLE = "llamad state "


class StateDirectory:
    """One service's hold of its state directory, from ``open`` to ``close``. Blocking."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is touched before ``open``."""
        self.path = path
        self.fault = f"{path} is not open yet"  # why nothing can be stored there; empty: it can
        self._lock: int | None = None

    @property
    def usable(self) -> bool:
        """Whether something may be stored."""
        return not self.fault

    def open(self) -> None:
        """Lock the directory and check what it is; what keeps it from being used is in ``fault``.

        A second service on the same directory stores nothing: it would write what the first reads.
        """
        self.fault = self._open()
        if self.fault:
            log.warning(fields("nothing is stored", message=self.fault))
            self.close()

    def close(self) -> None:
        """Let another service use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.fault = self.fault or f"{self.path} is closed"

    def _open(self) -> str:
        try:
            self._lock = os.open(
                self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except FileNotFoundError:
            return (
                f"state directory {self.path} does not exist: systemd makes it for its unit; for a"
                " service of your own make a folder, and name it as service.state_directory in the"
                " file of --config"
            )
        except OSError as error:
            return f"state directory {self.path} cannot be written: {error.strerror}"
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"state directory {self.path} is used by another service, {self._holder()}"
        except OSError as error:
            return f"state directory {self.path} cannot be locked: {error.strerror}"
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
            return self._check_version()
        except OSError as error:
            return f"state directory {self.path} cannot be written: {error.strerror}"

    def _holder(self) -> str:
        """Return the process that has the lock, as far as it said."""
        assert self._lock is not None
        with contextlib.suppress(OSError, ValueError):
            return f"process {int(os.pread(self._lock, 32, 0))}"
        return "of which no process is known"

    def _check_version(self) -> str:
        file = self.path / VERSION_FILE
        if not os.path.lexists(file):
            replace_small(file, f"{_TITLE}{VERSION}\n".encode())
            return ""
        title, _, number = (read_small(file) or b"").decode("ascii", "replace").rpartition(" ")
        if title + " " != _TITLE or not number.strip().isdecimal():
            return f"{file} is not a file of llamad: move it away, and what else lies beside it"
        if int(number) > VERSION:
            return (
                f"{self.path} was written by a newer llamad, version {int(number)}; this one knows"
                f" {VERSION}: install that one again, or set another service.state_directory"
            )
        return ""
