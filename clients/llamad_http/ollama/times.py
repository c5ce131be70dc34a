"""Times and durations as Ollama writes them: RFC 3339 in UTC, and whole nanoseconds."""

import time
from datetime import UTC, datetime


def rfc3339(seconds: float | None = None) -> str:
    """Return a time, now by default. seconds: since 1970."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """Return a duration."""
    return round(seconds * 1e9)
