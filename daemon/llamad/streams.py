"""Standard output and error of the process, whatever its parent made of them: closed or full.

What standard error cannot take is lost, standard output raises ``OutputFailed``. llamactl has a
module of the same name with more to do; neither program imports the other.
"""

import io
import os
import select
import sys
from typing import Any


class OutputFailed(Exception):  # noqa: N818 - says what happened
    """Standard output takes nothing more: it is closed, or the disk behind it is full."""


def open_streams() -> bool:
    """Replace sys.stdout and sys.stderr; return whether standard output was open."""
    was_open = sys.stdout is not None
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    encoding = getattr(sys.stdout, "encoding", "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(_Output(number)),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        for number in (1, 2)
    )
    return was_open


class _Output(io.FileIO):
    """Descriptor 1 or 2; writing waits where the descriptor does not."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._lost = False  # it failed once, and whoever needs to know was told

    def write(self, data: Any, /) -> int:
        if self._lost:
            return len(data)
        try:
            while (n_bytes := super().write(data)) is None:
                poll = select.poll()
                poll.register(self.fileno(), select.POLLOUT)
                poll.poll()
        except OSError as error:
            self._lost = True
            if self.fileno() != 1:
                return len(data)
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputFailed(f"standard output: {error.strerror}") from None
        return n_bytes
