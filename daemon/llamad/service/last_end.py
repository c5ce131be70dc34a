"""How the service ended the last time, as ExecStopPost= of its unit wrote it down.

A stored job is suspected of that (suspects.py) only where the service failed by itself: it crashed,
hung, ran out of memory or ended with an error. Who ends it by SIGKILL says nothing about a job, and
after a power cut there is no note.
"""

import contextlib
from pathlib import Path

from llamad.small_file import read_small

FILE = "last-end"  # in the state directory: $SERVICE_RESULT and $EXIT_STATUS, systemd.exec(5)
FAILURES = ("core-dump", "exit-code", "oom-kill", "watchdog")


def service_failed(directory: Path) -> bool:
    """Return whether the note says that the service failed by itself; the note is removed."""
    file = directory / FILE
    with contextlib.suppress(OSError):
        note = (read_small(file) or b"").decode("ascii", "replace").split()
        file.unlink(missing_ok=True)
        result, status = (*note, "", "")[:2]
        return result in FAILURES or (result == "signal" and status != "KILL")
    return False
