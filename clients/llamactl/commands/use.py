"""``llamactl use``: serve another model."""

import argparse
import dataclasses

from llamactl.commands import Commands
from llamactl.names import service_name
from llamactl.output import print_json, print_line
from llamactl.readiness import use_model
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "use",
        help="load a model, now and at every start",
        description="Load a model, now and at every start. Running requests end first; when the"
        " model cannot be loaded, the one before is served again.",
    )
    parser.add_argument(
        "name", metavar="NAME", help="as llamactl models shows it, or a name of the catalogue"
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Load the model, and say how long that took."""
    with Client(arguments.socket) as client:
        name = service_name(client, arguments.name)
        used = use_model(client, name, as_json=arguments.json)
    if arguments.json:
        print_json(dataclasses.asdict(used))
    else:
        print_line(f"{used.model.name} loaded in {used.load_seconds:.2f} s")
    return 0
