"""``llamactl models``: the models the service knows."""

import argparse

from llamactl.commands import Commands
from llamactl.output import as_dict, bytes_text, print_json, print_table
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "list the models the service knows"
    parser = commands.add_parser("models", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one model a line."""
    with Client(arguments.socket) as client:
        models = client.models()
    if arguments.json:
        for model in models:
            print_json(as_dict(model))
        return 0
    rows = [(m.name, bytes_text(m.file_bytes), "yes" if m.loaded else "", m.path) for m in models]
    print_table(("NAME", "SIZE", "LOADED", "PATH"), rows)
    return 0
