"""``llamactl unload``: free the memory of the model."""

import argparse

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client, LoadedModel


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
        model = client.status().model
        client.unload_model()
    if arguments.json:
        print_json({})
    else:
        print_line(_done(model))
    return 0


def _done(model: LoadedModel | None) -> str:
    """Return what was done. model: that was loaded before."""
    if model is None:
        return "no model was loaded"
    return f'{model.name} unloaded; "llamactl use {model.name}" or the next start loads it again'
