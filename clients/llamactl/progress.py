"""How far a transfer is: one line on a terminal, a line for every tenth in a log, JSON lines.

The line on a terminal and notes go to stderr, progress as JSON goes to stdout.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from llamactl.output import bytes_text, print_json, print_note
from llamactl.progress_line import ProgressLine

SHOW_EVERY_SECONDS = 0.2
RATE_OVER_SECONDS = 10.0
UNSIZED_STEP_BYTES = 100_000_000  # between two lines when the size is not known


class Progress:
    """The progress of one transfer. ``done_bytes`` counts those kept from before too."""

    def __init__(self, *, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.done_bytes = 0
        self._as_json = as_json
        self._line = ProgressLine()
        self._clock = clock
        self._total: int | None = None
        self._shown_at = 0.0
        self._step = 0
        self._recent: deque[tuple[float, int]] = deque()  # when, and how many bytes were done

    def watch(self, offset: int, total: int | None, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a file from an offset on and show how far they are."""
        self.done_bytes, self._total = offset, total
        self._step = self._current_step()
        self._recent.clear()
        self._count(0)
        for piece in pieces:
            yield piece
            self._count(len(piece))

    def note(self, text: str) -> None:
        """Say something besides, where errors are said and in their form."""
        self.erase()
        print_note(text, as_json=self._as_json)

    def erase(self) -> None:
        """Remove the line from the terminal."""
        self._line.erase()

    def _count(self, n_bytes: int) -> None:
        self.done_bytes += n_bytes
        now = self._clock()
        self._recent.append((now, self.done_bytes))
        while now - self._recent[0][0] > RATE_OVER_SECONDS and len(self._recent) > 2:
            self._recent.popleft()
        if self._line.visible and not self._as_json:
            if now - self._shown_at >= SHOW_EVERY_SECONDS:
                self._shown_at = now
                self._line.show(self._text())
        elif self._current_step() > self._step:
            self._step = self._current_step()
            if self._as_json:
                total = self._total
                print_json({"type": "progress", "bytes": self.done_bytes, "file_bytes": total})
            else:
                print(self._text(), file=sys.stderr, flush=True)

    def _current_step(self) -> int:
        if self._total is None:
            return self.done_bytes // UNSIZED_STEP_BYTES
        return 10 * self.done_bytes // self._total if self._total else 0

    def _text(self) -> str:
        """Return what is done: `45 % of 98.1 MB, 3.2 MB/s, 17 s left`."""
        (begun, first), (now, last) = self._recent[0], self._recent[-1]
        rate = (last - first) / (now - begun) if now > begun else 0.0
        if self._total is None:
            parts = [bytes_text(self.done_bytes)]
        else:
            percent = 100 * self.done_bytes // max(1, self._total)
            parts = [f"{percent} % of {bytes_text(self._total)}"]
        if rate:
            parts.append(f"{bytes_text(int(rate))}/s")
            if self._total is not None and self.done_bytes < self._total:
                parts.append(f"{_duration((self._total - self.done_bytes) / rate)} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
