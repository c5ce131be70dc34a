"""Draw docs/pictures/speeds.svg: the speed of each model of the catalogue on a Pi 4 and a Pi 5.

    python packaging/speeds_picture.py OUT.svg

All of it is computed, from the catalogue: the bytes that a board's memory gives in a second,
divided by the bytes that a token reads. The axis is logarithmic, so speeds are dots and not bars.
"""

import math
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from llamactl.catalogue import Board, Entry, read_catalogue

WIDTH, LEFT, RIGHT, TOP, ROW = 820, 260, 30, 74, 24  # of the picture, in its own units
LEAST, MOST = 0.7, 150.0  # tokens a second at the ends of the axis
TICKS = (1, 2, 5, 10, 20, 50, 100)
COLOURS = ("#c51a4a", "#1f6f43")  # of the boards, in the catalogue's order
READING = 5.0  # tokens a second that a person reads: 4 words, each 1.3 tokens

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">
<title>Tokens a second of each model on a Raspberry Pi 4 and 5, computed</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
<text x="16" y="26" font-size="17" font-weight="bold">Tokens a second, computed: \
nobody has measured them on a board yet</text>
"""


def place(tokens_per_second: float) -> float:
    """Return where a speed lies on the axis."""
    share = math.log(tokens_per_second / LEAST) / math.log(MOST / LEAST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def picture() -> str:
    """Return the SVG."""
    catalogue = read_catalogue()
    entries = sorted(catalogue.entries, key=lambda entry: entry.bytes_per_token)
    bottom = TOP + ROW * len(entries)
    lines = [HEAD.format(width=WIDTH, height=bottom + 30)]
    for number, (name, colour) in enumerate(zip(catalogue.boards, COLOURS, strict=True)):
        x = LEFT + 110 * number
        lines.append(f'<circle cx="{x}" cy="46" r="5" fill="{colour}"/>')
        lines.append(f'<text x="{x + 10}" y="51" font-size="14">{escape(name)}</text>')
    for tick in TICKS:
        lines.append(_line(place(tick), TOP - 10, place(tick), bottom, "#dddddd"))
        lines.append(_text(place(tick), bottom + 18, str(tick), "middle"))
    reading = place(READING)
    lines.append(_line(reading, TOP - 10, reading, bottom, "#888888", 'stroke-dasharray="4 3"'))
    lines.append(_text(reading + 4, TOP - 12, "as fast as people read", "start"))
    boards = tuple(catalogue.boards.values())
    for number, entry in enumerate(entries):
        lines += _row(entry, boards, TOP + ROW * number + ROW / 2)
    return "\n".join([*lines, "</svg>\n"])


def _row(entry: Entry, boards: tuple[Board, ...], y: float) -> list[str]:
    """Return the name and the dots of a model; its memory where a board of 4 GB is too small."""
    larger = "" if entry.memory == "4 GB" else f" ({entry.memory})"
    speeds = [entry.tokens_per_second(board) for board in boards]
    row = [_text(LEFT - 12, y + 5, f"{entry.name}{larger}", "end")]
    row.append(_line(place(min(speeds)), y, place(max(speeds)), y, "#bbbbbb"))
    for speed, colour in zip(speeds, COLOURS, strict=True):
        shown = f"{speed:.{0 if speed >= 10 else 1}f}"
        row.append(
            f'<circle cx="{place(speed)}" cy="{y}" r="5" fill="{colour}">'
            f"<title>{escape(entry.title)}: {shown} tokens/s</title></circle>"
        )
    return row


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="13" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" {more}/>'


def main() -> int:
    """Run the command line; return the exit code."""
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
