"""Draw the picture of README.md: what a terminal shows of the first commands of a newcomer.

    python packaging/picture.py MODEL OUT.svg

Starts ``llamad`` on a private socket with MODEL in its directory, runs COMMANDS at temperature 0,
and writes what they printed as an SVG: a real run, made again by ``make picture``. Colours and
layout are rich's.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import PROGRAMS, running_service
from rich.console import Console
from rich.text import Text

COMMANDS = (
    ("llamactl", "run", "demo", "What is a Raspberry Pi? Answer in one sentence."),
    ("llamactl", "ask", "What is 2 plus 2?"),
)
COLUMNS = 84

# rich's own has a font from the internet; the picture must show the same without.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>A terminal: llamactl answers a question</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def picture(environment: dict[str, str]) -> str:
    """Run the commands and return the SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command in COMMANDS:
        shown = " ".join(f'"{word}"' if " " in word else word for word in command)
        console.print(Text.assemble(("$ ", "bold green"), (shown, "bold")))
        result = subprocess.run(
            [PROGRAMS / command[0], *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        console.print(Text(result.stdout.rstrip("\n")))
    return console.export_svg(title="pi@raspberrypi", code_format=FORMAT, unique_id="llamad")


def main() -> int:
    """Run the command line; return the exit code."""
    if len(sys.argv) != 3:
        print("usage: picture.py MODEL OUT.svg", file=sys.stderr)
        return 2
    model, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="llamad-picture-") as name:
        folder = Path(name)
        (folder / "models").mkdir()
        shutil.copyfile(model, folder / "models" / "smollm2-135m.gguf")
        config = f'[model]\ndirectory = "{folder}/models"\n[sampling]\ntemperature = 0.0\n'
        with running_service(folder, config) as address:
            out.write_text(picture(os.environ | {"LLAMAD_SOCKET": str(address)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
