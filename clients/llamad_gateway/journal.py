"""The lines that a gateway writes for the journal."""

import logging
import os

_JOURNAL_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


class _Lines(logging.Formatter):
    """Lines with the priority that the journal reads from each line's beginning."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, or several of a traceback, each with its priority."""
        text = super().format(record)
        if "JOURNAL_STREAM" not in os.environ:
            return text
        level = _JOURNAL_LEVELS.get(record.levelno, 6)
        return "\n".join(f"<{level}>{line}" for line in text.splitlines())


def set_up_logs() -> None:
    """Write what is logged to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
