"""``llamactl metrics``: the service's numbers for a monitoring program."""

import argparse

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "print numbers for Prometheus"
    parser = commands.add_parser(
        "metrics",
        help=text,
        description="Print what the service counts, in the text format of Prometheus.",
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the metrics."""
    with Client(arguments.socket) as client:
        text = client.metrics()
    if arguments.json:
        print_json({"text": text})
    else:
        for line in text.splitlines():
            print_line(line)
    return 0
