"""``llamactl jobs``: what is queued and running."""

import argparse
import pwd

from llamactl.commands import Commands
from llamactl.output import as_dict, enum_name, print_json, print_table
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "list queued and running jobs"
    parser = commands.add_parser("jobs", help=text, description=text.capitalize() + ".")
    parser.add_argument("-a", "--all", action="store_true", help="recently ended ones too")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one job a line, the newest last."""
    with Client(arguments.socket) as client:
        jobs = client.jobs(include_ended=arguments.all)
    if arguments.json:
        for job in jobs:
            print_json(as_dict(job))
        return 0
    print_table(
        ("ID", "OWNER", "STATE", "PRIORITY", "PROMPT", "COMPLETION", "AGE", "ERROR"),
        map(_row, jobs),
    )
    return 0


def _row(job: pb.Job) -> tuple[str, ...]:
    return (
        job.id,
        _user_name(job.owner_uid) if job.HasField("owner_uid") else "-",
        enum_name(pb.JobState.DESCRIPTOR, job.state),
        enum_name(pb.Priority.DESCRIPTOR, job.priority),
        f"{job.processed_prompt_tokens}/{job.prompt_tokens}",
        f"{job.completion_tokens}/{job.max_tokens}",
        f"{job.age_seconds:.0f} s",
        job.error,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
