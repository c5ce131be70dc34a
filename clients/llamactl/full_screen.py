"""A terminal that shows some lines anew every second, until q is typed.

Owns curses. What does not fit is cut, at the right and below; nothing is asked more often than once
a period, whatever is typed and however often the window changes its size.
"""

import contextlib
import curses
import locale
import os
import sys
import time
from collections.abc import Callable, Sequence

from llamactl.activity import Line

HINT = "q leaves"
QUIT = frozenset(map(ord, "qQ"))
_LOST = 50  # times that reading a key returned at once: there is no terminal any more


def is_possible() -> bool:
    """Whether there is a terminal that curses knows."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        curses.setupterm(os.environ.get("TERM") or "unknown", sys.stdout.fileno())
    except curses.error:
        return False
    return bool(curses.tigetstr("cup"))  # it can move the cursor


def show(lines: Callable[[], Sequence[Line]], period_seconds: float = 1.0) -> None:
    """Show what ``lines`` returns, again and again, until q is typed."""
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "")  # else curses knows no letter beyond ASCII
    curses.wrapper(_run, lines, period_seconds)


def _run(
    window: "curses.window", lines: Callable[[], Sequence[Line]], period_seconds: float
) -> None:
    with contextlib.suppress(curses.error):
        curses.curs_set(0)
    shown: Sequence[Line] = ()
    due, n_early = 0.0, 0
    while n_early < _LOST:
        if (left := due - time.monotonic()) <= 0:
            shown, due, n_early = lines(), time.monotonic() + period_seconds, 0
            left = period_seconds
        _follow_size()
        _draw(window, shown)
        window.timeout(int(left * 1000) + 1)
        key = window.getch()
        if key in QUIT:
            return
        n_early += key == curses.ERR and time.monotonic() < due


def _follow_size() -> None:
    """Take the size that the terminal has.

    Linux sends SIGWINCH before it changes the size of a pty (drivers/tty/pty.c, pty_resize), so
    curses, which asks once for each signal, may hear the old one.
    """
    with contextlib.suppress(OSError, curses.error):
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        if rows and columns and curses.is_term_resized(rows, columns):
            curses.resizeterm(rows, columns)


def _draw(window: "curses.window", lines: Sequence[Line]) -> None:
    rows, columns = window.getmaxyx()
    shown = list(lines[: rows - 1])
    if len(lines) > len(shown):
        shown[-1:] = [Line(f"... {len(lines) - len(shown) + 1} more")]
    window.erase()
    for row, line in enumerate(shown):
        _write(window, row, line.text, columns, curses.A_BOLD if line.loud else curses.A_NORMAL)
    _write(window, rows - 1, HINT, columns, curses.A_DIM)
    window.refresh()


def _write(window: "curses.window", row: int, text: str, columns: int, looks: int) -> None:
    """Write a line, cut at the right; the last column stays free, where a terminal would wrap."""
    known = text.encode(window.encoding, "replace").decode(window.encoding)
    with contextlib.suppress(curses.error):  # a window of one row, or wide letters at its end
        window.addnstr(row, 0, known, max(0, columns - 1), looks)
