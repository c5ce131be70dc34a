"""The standard streams of the process, whatever its parent made of them: closed or full.

Owns what a terminal gets: text, whoever wrote it, and no command but ours (``control``). A pipe or
a file gets every byte as it is. What is closed reads as empty; what standard error cannot take is
lost, because the answer does not need it; standard output raises ``OutputFailed``.
"""

import errno
import io
import os
import re
import select
import sys
from typing import Any, TextIO

# C0 but tab and line feed, DEL, C1; what turns the direction of text over (Unicode TR 36, 3.2). A
# carriage return is harmless in front of a line feed; alone it would overwrite what was shown.
_COMMANDS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


class OutputFailed(Exception):  # noqa: N818 - says what happened, as in llamad_client.errors
    """Standard output takes nothing more: it is closed, or the disk behind it is full."""


def escaped(text: str) -> str:
    """Return text of several lines for a terminal: what would command it is shown, not obeyed."""
    return _COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)


def control(stream: TextIO, sequence: str) -> None:
    """Write a command of ours to a terminal, at once."""
    write = stream.control if isinstance(stream, _Terminal) else stream.write
    write(sequence)
    stream.flush()


def reserve_descriptors() -> None:
    """Put /dev/null where 0, 1 or 2 is closed, before a socket gets the number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one


def open_streams() -> None:
    """Replace sys.stdin, stdout and stderr."""
    encodings = [getattr(stream, "encoding", "utf-8") for stream in (sys.stdin, sys.stdout)]
    closed = sys.stdout is None
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(_Input(0, closefd=False)), encoding=encodings[0], errors="surrogateescape"
    )
    sys.stdout = _text(_Output(1, required=True, closed=closed), encodings[1])
    sys.stderr = _text(_Output(2, required=False), encodings[1])


def output_is_closed() -> bool:
    """Whether nobody can see what is printed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Output) and raw.was_closed


class _Terminal(io.TextIOWrapper):
    """A terminal's text: everything that is written is escaped."""

    def write(self, text: str, /) -> int:
        return super().write(escaped(text))

    def control(self, sequence: str) -> int:
        """Write without escaping."""
        return super().write(sequence)


def _text(raw: "_Output", encoding: str) -> io.TextIOWrapper:
    kind = _Terminal if raw.isatty() else io.TextIOWrapper
    line_buffering = raw.isatty() or raw.fileno() == 2
    return kind(
        io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=line_buffering
    )


class _Input(io.FileIO):
    """Descriptor 0; reading waits where the descriptor does not."""

    def readinto(self, buffer: Any, /) -> int:
        try:
            while (n_bytes := super().readinto(buffer)) is None:
                _wait(self.fileno(), select.POLLIN)
        except OSError as error:
            if error.errno != errno.EBADF:  # open for writing only: nobody meant it to be read
                raise
            return 0
        return n_bytes


class _Output(io.FileIO):
    """Descriptor 1 or 2; writing waits where the descriptor does not."""

    def __init__(self, number: int, *, required: bool, closed: bool = False) -> None:
        super().__init__(number, "w", closefd=False)
        self.was_closed = closed
        self._required = required
        self._lost = False  # it failed once, and whoever needs to know was told

    def write(self, data: Any, /) -> int:
        if self._lost:
            return len(data)
        try:
            while (n_bytes := super().write(data)) is None:
                _wait(self.fileno(), select.POLLOUT)
        except OSError as error:
            self._lost = True
            if not self._required:
                return len(data)
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputFailed(f"standard output: {error.strerror}") from None
        return n_bytes


def _wait(number: int, events: int) -> None:
    poll = select.poll()
    poll.register(number, events)
    poll.poll()
