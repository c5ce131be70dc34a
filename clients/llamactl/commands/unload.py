"""``llamactl unload``: free the memory of the model."""

import argparse

from llamactl.commands import Commands
from llamactl.output import print_json
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "unload",
        help="free the memory of the loaded model",
        description="Free the memory of the loaded model until the next llamactl use or start of"
        " the service. Running requests end first.",
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Unload; with no model loaded there is nothing to do."""
    with Client(arguments.socket) as client:
        client.unload_model()
    if arguments.json:
        print_json({})
    else:
        print("no model is loaded")
    return 0
