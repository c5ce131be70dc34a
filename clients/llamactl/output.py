"""What commands print: JSON lines, tables, and text that is safe for a terminal."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from google.protobuf.message import Message

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
for _code in (ord("\n"), ord("\t")):
    del _ESCAPES[_code]


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    print(json.dumps(values, ensure_ascii=False), flush=True)


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as plain values: every field, enums as lower-case names without prefix.

    A field with presence that is not set is None.
    """
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    try:
        if not message.HasField(field.name):
            return None
    except ValueError:  # a field without presence: its value is all there is
        pass
    if isinstance(value, Message):
        return as_dict(value)
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def enum_name(enum: Any, number: int) -> str:
    """Return a value's name in lower case without the prefix that all names of the enum share."""
    names = {value.number: value.name for value in enum.values}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return str(names.get(number, number)).removeprefix(prefix).lower()


def printable(text: str, stream: TextIO | None = None) -> str:
    """Return text for a stream, stdout without one.

    On a terminal, control characters are shown and not obeyed.
    """
    return text.translate(_ESCAPES) if (stream or sys.stdout).isatty() else text


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns below a header; numbers are the caller's strings."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(printable("  ".join(cells).rstrip()))


def bytes_text(count: int) -> str:
    """Return a size for people: 1.5 MB, in powers of 1000 as file sizes are sold."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
