"""``llamactl tokenize``: the tokens of a text."""

import argparse

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "show the tokens of a text"
    parser = commands.add_parser("tokenize", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--parse-special", action="store_true", help="take control tokens in the text as such"
    )
    parser.add_argument("text", metavar="TEXT")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one token a line: its id, and its bytes as a quoted string."""
    with Client(arguments.socket) as client:
        pieces = client.token_pieces(arguments.text, parse_special=arguments.parse_special)
    for token, data in pieces:
        text = data.decode("utf-8", "backslashreplace")
        if arguments.json:
            print_json({"token": token, "text": text, "bytes": data.hex()})
        else:
            print_line(f"{token:>7} {text!r}")
    return 0
