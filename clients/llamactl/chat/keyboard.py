"""The terminal's settings while nobody is asked: what is typed is kept, and shown nowhere.

Owns the flags between two prompts. Without echo and without lines the kernel keeps what is typed
until the next prompt reads it; a paste stays marked as one. Ctrl-C is a signal, and takes nothing
of what was typed before it.
"""

import contextlib
import signal
import sys
import termios
from collections.abc import Iterator
from types import FrameType
from typing import Any

from llamactl.streams import control

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"  # bracketed paste, xterm's control sequences
_INPUT, _LOCAL, _CHARACTERS = 0, 3, 6  # of the list that tcgetattr returns


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let the terminal be silent until the end, also after a stop by Ctrl-Z."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def apply(_number: int = 0, _frame: FrameType | None = None) -> None:
        termios.tcsetattr(descriptor, termios.TCSANOW, _silent(termios.tcgetattr(descriptor)))

    resumed = signal.signal(signal.SIGCONT, apply)
    try:
        apply()
        yield
    finally:
        signal.signal(signal.SIGCONT, resumed)
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextlib.contextmanager
def paste_is_marked() -> Iterator[None]:
    """Let the terminal mark what is pasted, as a prompt does."""
    control(sys.stdout, PASTE_ON)
    try:
        yield
    finally:
        control(sys.stdout, PASTE_OFF)


def _silent(attributes: list[Any]) -> list[Any]:
    attributes[_INPUT] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
    attributes[_LOCAL] &= ~(termios.ECHO | termios.ICANON)
    attributes[_LOCAL] |= termios.ISIG | termios.NOFLSH
    attributes[_CHARACTERS][termios.VMIN] = 1
    attributes[_CHARACTERS][termios.VTIME] = 0
    return attributes
