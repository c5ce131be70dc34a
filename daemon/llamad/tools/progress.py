"""A line of progress on a terminal: share done, rate, time left. Silent anywhere else."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

REDRAW_SECONDS = 0.2
UNIT = 1e6  # bytes of a MB


class Progress:
    """Progress through total_bytes of input; a context manager that clears its line at the end."""

    def __init__(
        self,
        total_bytes: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._visible = self._stream.isatty()
        self._clock = clock
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._started = clock()
        self._drawn = self._started
        self._width = 0

    def advance(self, n_bytes: int, label: str) -> None:
        """Count n_bytes as done; label: what is worked on."""
        self._done_bytes += n_bytes
        now = self._clock()
        if self._visible and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(label)

    @property
    def bytes_per_second(self) -> float:
        """The mean rate so far."""
        return self._done_bytes / max(self._clock() - self._started, 1e-9)

    def _draw(self, label: str) -> None:
        rate = self.bytes_per_second
        left = (self._total_bytes - self._done_bytes) / rate if rate > 0 else 0.0
        share = 100 * self._done_bytes / max(self._total_bytes, 1)
        line = f"{share:3.0f} %  {rate / UNIT:.0f} MB/s  {_duration(left)} left  {label}"
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
