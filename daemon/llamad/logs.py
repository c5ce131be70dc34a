"""How the service logs: lines on stderr, the event first, then key=value.

Owns the line format and the journald level prefixes (``<N>``, sd-daemon(3)), which stand on every
line of a record, tracebacks included, so that journald keeps the level of all of them. Whatever a
value or an exception contains, a line is printable. Prompts and completions are never logged at
INFO.
"""

import json
import logging
import os
import sys
from typing import TextIO

from llamad.printable import printable

Value = str | int | float | bool | None

MAX_VALUE_CHARACTERS = 1000  # of a value; names and messages may come from a client
_SYSLOG_LEVELS = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def fields(event: str, **values: Value) -> str:
    """Return a log line: the event, then each value that is not None as key=value.

    >>> fields("job finished", job="j1", tokens=12, seconds=0.25)
    'job finished job=j1 tokens=12 seconds=0.250'
    """
    return " ".join([event, *(f"{k}={_value(v)}" for k, v in values.items() if v is not None)])


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        text = text[:MAX_VALUE_CHARACTERS] + "…"
    plain = text.isprintable() and not any(c in ' "=' for c in text)
    return text if text and plain else json.dumps(text)


class JournalFormatter(logging.Formatter):
    """Puts ``<N>`` in front of every line; journald adds the time and the unit by itself."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with the level's prefix on each of its lines."""
        level = next((n for floor, n in _SYSLOG_LEVELS if record.levelno >= floor), 7)
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{level}>{printable(line)}" for line in lines)


class TimedFormatter(logging.Formatter):
    """Puts time and level in front of a record, for whoever reads stderr itself."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, each of its lines printable."""
        return "\n".join(map(printable, super().format(record).splitlines()))


def under_journald(stream: TextIO) -> bool:
    """Return whether the stream goes to the journal: $JOURNAL_STREAM is its DEVICE:INODE."""
    try:
        device, inode = os.environ["JOURNAL_STREAM"].split(":")
        stat = os.fstat(stream.fileno())
        return (stat.st_dev, stat.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False


def configure(level: str, journald: bool | None = None, stream: TextIO | None = None) -> None:
    """Send every record of the process to stderr.

    level: debug, info, warning or error. journald: with or without prefixes; None looks at
    $JOURNAL_STREAM. Raises ValueError for an unknown level.
    """
    stream = stream or sys.stderr
    prefixed = under_journald(stream) if journald is None else journald
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter() if prefixed else TimedFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
