"""A line of progress on a terminal: share done, rate, time left. Silent anywhere else.

Work is counted in bytes and shown in MB, unless the caller names another unit. ``begin`` shows what
takes long before the first of it is done.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from llamad.printable import printable

REDRAW_SECONDS = 0.2
MAX_LABEL = 40  # characters; a tensor's name may have 65535
UNIT = 1e6  # bytes of a MB
MEGABYTES = ("MB", UNIT)  # a unit: its name, and how much of the work it is
TOKENS = ("tokens", 1)


class Progress:
    """Progress through total of work; a context manager that clears its line at the end."""

    def __init__(
        self,
        total: int,
        *,
        unit: tuple[str, float] = MEGABYTES,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._visible = self._stream.isatty()
        self._clock = clock
        self._unit_name, self._unit = unit
        self._total = total
        self._done = 0
        self._started = clock()
        self._drawn = self._started
        self._width = 0

    def begin(self, label: str) -> Self:
        """Show at once what is worked on."""
        if self._visible:
            self._show(f"{printable(label[:MAX_LABEL])} ...")
        return self

    def advance(self, amount: int, label: str) -> None:
        """Count an amount of the work as done; label: what is worked on."""
        self._done += amount
        now = self._clock()
        if self._visible and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(label)

    @property
    def bytes_per_second(self) -> float:
        """The mean rate so far, of work that is counted in bytes."""
        return self._rate()

    def _rate(self) -> float:
        return self._done / max(self._clock() - self._started, 1e-9)

    def _draw(self, label: str) -> None:
        rate = self._rate()
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        share = 100 * self._done / max(self._total, 1)
        speed = f"{rate / self._unit:.0f} {self._unit_name}/s"
        self._show(
            f"{share:3.0f} %  {speed}  {_duration(left)} left  {printable(label[:MAX_LABEL])}"
        )

    def _show(self, line: str) -> None:
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
