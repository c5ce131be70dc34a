"""``llamactl version``: the versions of this program and of the service."""

import argparse
import dataclasses

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client, __version__


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "show the versions of llamactl and of the service"
    parser = commands.add_parser("version", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the versions; without a service, only this program's."""
    if not arguments.json:
        print(f"llamactl {__version__}")
    with Client(arguments.socket) as client:
        version = client.version()
    if arguments.json:
        print_json({"client_version": __version__, **dataclasses.asdict(version)})
    else:
        engine, interface = version.engine_version, version.api_version
        print_line(f"llamad   {version.version} (engine {engine}, interface {interface})")
    return 0
