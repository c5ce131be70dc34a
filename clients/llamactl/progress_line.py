"""The one line on a terminal that says how far something is, and is replaced by the next.

Owns the line, on standard error; what it says is the business of ``answer.py`` and ``progress.py``.
"""

import shutil
import sys

from llamactl.output import printable
from llamactl.streams import control

_ERASE = "\r\x1b[K"


class ProgressLine:
    """A line that is there or not; where standard error is no terminal, it never is."""

    def __init__(self) -> None:
        self.visible = sys.stderr.isatty()
        self._shown = False

    def show(self, text: str) -> None:
        """Show the text in place of what was there, cut to the width of the terminal."""
        if self.visible:
            columns = shutil.get_terminal_size().columns - 1
            control(sys.stderr, _ERASE + printable(text)[:columns])
            self._shown = True

    def erase(self) -> None:
        """Remove the line, if there is one."""
        if self._shown:
            control(sys.stderr, _ERASE)
            self._shown = False
