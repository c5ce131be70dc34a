"""The help of the command line: paragraphs that fit a terminal, and examples.

Every command has both; tests/unit/test_help.py runs the parser on each example.
"""

import argparse
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COLUMNS = 78


def add_command(
    commands: "Commands", name: str, *, summary: str, about: str, examples: tuple[str, ...]
) -> argparse.ArgumentParser:
    """Add a command; ``about``: paragraphs between blank lines, ``examples``: command lines."""
    return commands.add_parser(
        name,
        help=summary,
        description=_filled(about),
        epilog=example_lines(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def example_lines(*examples: str) -> str:
    """Return the end of a help text."""
    return "\n".join(["examples:", *(f"  {example}" for example in examples)])


def _filled(about: str) -> str:
    paragraphs = textwrap.dedent(about).strip().split("\n\n")
    return "\n\n".join(textwrap.fill(paragraph, COLUMNS) for paragraph in paragraphs)
