"""What a conversation on a terminal writes: answers, notes and errors, each text in its style.

Owns the looks. Every text is escaped before it is styled, so that nothing but our own commands
reaches the terminal.
"""

import os
import re
from collections.abc import Iterable
from typing import TextIO, cast

from rich.console import Console
from rich.syntax import Syntax

from llamactl.chat.layout import Layout
from llamactl.chat.markdown import Code, MarkdownReader, Piece, Span
from llamactl.chat.terminal_file import TerminalFile
from llamactl.output import printable
from llamactl.streams import escaped

_STYLES = {
    "": None,
    "bold": "bold",
    "italic": "italic",
    "code": "cyan",
    "heading": "bold underline",
    "quote": "dim",
    "thought": "dim italic",
}
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,30}")
MIN_COLUMNS = 20


class Screen:
    """The part of the terminal above the prompt."""

    def __init__(self, file: TextIO | None = None) -> None:
        """Write to a file in place of the terminal, for tests."""
        self._file = file or cast(TextIO, TerminalFile())
        self._console = Console(file=self._file, force_terminal=True, highlight=False)

    def width(self) -> int:
        """Return the columns of the terminal, as it is now."""
        try:
            return max(MIN_COLUMNS, os.get_terminal_size(self._file.fileno()).columns)
        except OSError:
            return 80

    def note(self, text: str) -> None:
        """Say something that is no answer."""
        for line in text.split("\n"):
            self.write(printable(line), "quote")
            self.write("\n")

    def error(self, text: str) -> None:
        """Say why something was not done."""
        self._console.out(f"llamactl: {printable(text)}", style="red", highlight=False)

    def write(self, text: str, style: str = "") -> None:
        """Write harmless text, without an end of line; style: that of a Span."""
        looks = " ".join(filter(None, (_STYLES[word] for word in style.split())))
        self._console.out(text, style=looks or None, end="", highlight=False)

    def code(self, line: Code) -> None:
        """Write a line of a fenced block."""
        if line.is_fence or not _LANGUAGE.fullmatch(line.language):
            self.write(line.text, "quote" if line.is_fence else "code")
            return
        syntax = Syntax("", line.language, theme="ansi_dark", background_color="default")
        text = syntax.highlight(line.text)
        text.rstrip()
        spaces = line.text[len(line.text.rstrip()) :]
        self._console.print(text, end=spaces, soft_wrap=True, highlight=False)

    def answer(self) -> "AnswerView":
        """Return the view of one answer."""
        return AnswerView(self)


class AnswerView:
    """An answer while it arrives."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._reader = MarkdownReader()
        self._layout = Layout(screen.width)
        self._carriage_return = ""  # a line feed may follow it
        self._thinks = False

    def add(self, text: str, *, thought: bool = False) -> None:
        """Show the next piece of the text, or of the thoughts before it."""
        if thought != self._thinks:
            self.end()
            self._reader, self._layout = MarkdownReader(), Layout(self._screen.width)
            self._thinks = thought
        text = self._carriage_return + text
        self._carriage_return = "\r" if text.endswith("\r") else ""
        text = escaped(text.removesuffix("\r")).replace("\r\n", "\n")
        self._put(self._pieces(text))

    def _pieces(self, text: str) -> list[Piece]:
        pieces = self._reader.feed(text)
        if self._thinks:
            return [
                Span(p.text, f"thought {p.style}".strip()) if isinstance(p, Span) else p
                for p in pieces
            ]
        return pieces

    def end(self) -> None:
        """Show what was held back, and end the line."""
        self._put(self._pieces(escaped(self._carriage_return)))
        self._carriage_return = ""
        self._put(self._reader.end())
        for span in self._layout.end():
            self._screen.write(span.text, span.style)
        if not self._layout.at_line_start:
            self._screen.write("\n")

    def _put(self, pieces: Iterable[Piece]) -> None:
        for part in self._layout.feed(pieces):
            if isinstance(part, Code):
                self._screen.code(part)
            else:
                self._screen.write(part.text, part.style)
