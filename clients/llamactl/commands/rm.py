"""``llamactl rm``: delete models from the service's model directory."""

import argparse

from llamactl.commands import Commands
from llamactl.names import service_name
from llamactl.output import bytes_text, print_json, print_line
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "rm",
        help="delete models that are not loaded",
        description="Delete models that are not loaded, and what is kept of their interrupted"
        " pulls.",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="as llamactl models shows it")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Delete one after the other, up to the first that the service refuses."""
    with Client(arguments.socket) as client:
        for given in arguments.names:
            name = service_name(client, given)
            freed = client.remove_model(name)
            if arguments.json:
                print_json({"name": name, "freed_bytes": freed})
            else:
                print_line(f"{name} deleted, {bytes_text(freed)} freed")
    return 0
