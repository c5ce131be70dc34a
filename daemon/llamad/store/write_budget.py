"""How many bytes may still be written today: flash wears.

For what may as well stay unwritten, as saved prefixes. (What must be written in the end waits for
its time: service/write_pace.py.)
Owns the file that remembers it over restarts. It is written once for many small writes, ahead of
them, so a crash loses what was not used of the last advance, and never allows more. Blocking.
"""

import logging
import re
import time
from pathlib import Path

from llamad.logs import fields
from llamad.small_file import read_small, replace_small

log = logging.getLogger(__name__)

SECONDS_PER_DAY = 86_400
ADVANCE_BYTES = 16 << 20


class WriteBudget:
    """Bytes for each day (UTC) of the machine's clock."""

    def __init__(self, file: Path, bytes_per_day: int) -> None:
        self._file = file
        self._bytes_per_day = bytes_per_day
        self._day, self._reserved = self._read()
        self._used = self._reserved

    def take(self, n_bytes: int) -> bool:
        """Count bytes that will be written; False when the day's are used up. Raises OSError."""
        day = int(time.time()) // SECONDS_PER_DAY
        if day != self._day:
            self._day, self._used, self._reserved = day, 0, 0
        if self._used + n_bytes > self._bytes_per_day:
            return False
        if self._used + n_bytes > self._reserved:
            reserved = self._used + max(n_bytes, ADVANCE_BYTES)
            replace_small(self._file, b"day %d bytes %d\n" % (day, reserved))
            self._reserved = reserved
        self._used += n_bytes
        return True

    def _read(self) -> tuple[int, int]:
        data = read_small(self._file)
        if data is None:
            return 0, 0
        match = re.fullmatch(rb"day (\d{1,9}) bytes (\d{1,18})\n", data)
        if match is None:
            log.warning(fields("file ignored", file=str(self._file), fault="it cannot be read"))
            return 0, 0
        return int(match[1]), int(match[2])
