"""What commands print besides answers: lines, JSON, tables and errors.

A name, a message or a reason may come from anybody: everything here is one line, and nothing in it
commands a terminal.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def printable(text: str) -> str:
    """Return the text in one line, what is not printable as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_line(text: str) -> None:
    """Print a line to standard output, at once."""
    print(printable(text), flush=True)


def print_note(text: str, *, as_json: bool = False) -> None:
    """Say something besides the output, on standard error."""
    note = _json({"type": "note", "message": text})
    print(note if as_json else f"llamactl: {printable(text)}", file=sys.stderr, flush=True)


def print_error(reason: str, message: str, *, as_json: bool) -> None:
    """Say why a command, or a message of a conversation, failed."""
    line = _json({"type": "error", "reason": reason, "message": message})
    print(line if as_json else f"llamactl: {printable(message)}", file=sys.stderr, flush=True)


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    print(_json(values), flush=True)


def _json(values: dict[str, Any]) -> str:
    """Return JSON in which everything printable stays as it is."""
    text = json.dumps(values, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns below a header; numbers are the caller's strings."""
    for line in table_lines(header, rows):
        print(line)


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a header and rows in aligned columns."""
    lines = [[printable(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def counted(n: int, noun: str) -> str:
    """Return how many things there are, of which the plural ends with s."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def bytes_text(count: int) -> str:
    """Return a size for people: 1.5 MB, in powers of 1000 as file sizes are sold."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
