"""``llamactl cancel``: end a job."""

import argparse

from llamactl.commands import Commands
from llamactl.output import as_dict, enum_name, print_json
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "cancel",
        help="cancel a job",
        description="Cancel a job. One that has ended already is no error.",
    )
    parser.add_argument("id", metavar="ID", help="as `llamactl jobs` shows it")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Cancel the job and print its state."""
    with Client(arguments.socket) as client:
        job = client.cancel(arguments.id)
    if arguments.json:
        print_json(as_dict(job))
    else:
        print(f"{job.id} {enum_name(pb.JobState.DESCRIPTOR, job.state)}")
    return 0
