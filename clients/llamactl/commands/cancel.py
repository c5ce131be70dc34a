"""``llamactl cancel``: end a job."""

import argparse
import dataclasses

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "cancel",
        help="cancel a job",
        description="Cancel a job. One that has ended already is no error.",
    )
    parser.add_argument("id", metavar="ID", help="as llamactl jobs shows it")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Cancel the job and print its state."""
    with Client(arguments.socket) as client:
        job = client.cancel(arguments.id)
    if arguments.json:
        print_json(dataclasses.asdict(job))
    else:
        print_line(f"{job.id} {job.state}")
    return 0
