"""Standard output as prompt_toolkit and rich see it: a file that takes commands for a terminal.

Both put their own commands between texts, so what they write is not escaped here: the texts that
they get are.
"""

import io
import sys

from llamactl.streams import control


class TerminalFile(io.TextIOBase):
    """Writes to sys.stdout, wherever that leads, without escaping."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard output."""
        return sys.stdout.encoding

    def write(self, text: str, /) -> int:
        """Write at once."""
        control(sys.stdout, text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: everything is written at once."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return sys.stdout.fileno()

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return sys.stdout.isatty()
