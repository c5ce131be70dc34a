"""``llamactl chat``: a conversation, on a terminal or through a pipe."""

import argparse
import os
import sys

from llamactl import sampling
from llamactl.chat import plain
from llamactl.commands import Commands
from llamactl.names import service_name
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "chat",
        usage="%(prog)s [FLAG]...",
        help="hold a conversation",
        description="Hold a conversation. On a terminal /help shows the commands and keys; from a "
        f"pipe each line is a message, and {plain.HELP}.",
    )
    sampling.add_flags(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Hold the conversation."""
    if arguments.model is not None:
        with Client(arguments.socket) as client:
            arguments.model = service_name(client, arguments.model)
    if arguments.json or not _has_terminal():
        return plain.run(arguments)
    from llamactl.chat import terminal  # prompt_toolkit and rich take half a second on a board

    return terminal.run(arguments)


def _has_terminal() -> bool:
    """Say whether there is a terminal that can do more than print."""
    both = sys.stdin.isatty() and sys.stdout.isatty()
    return both and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
