"""``llamactl jobs``: what is queued and running."""

import argparse
import dataclasses

from llamactl.commands import Commands
from llamactl.output import print_json, print_line, print_table
from llamactl.summary import duration, owner
from llamad_client import Client, Job


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
            print_json(dataclasses.asdict(job))
        return 0
    if not jobs:
        more = "" if arguments.all else ' ("llamactl jobs --all" shows those that ended)'
        print_line(f"no request runs or waits{more}")
        return 0
    print_table(
        ("ID", "OWNER", "STATE", "PRIORITY", "PROMPT", "COMPLETION", "AGE", "WAIT", "ERROR"),
        map(_row, jobs),
    )
    return 0


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.id,
        owner(job),
        job.state,
        job.priority,
        f"{job.processed_prompt_tokens}/{job.prompt_tokens}",
        f"{job.completion_tokens}/{job.max_tokens}",
        f"{job.age_seconds:.0f} s",
        _wait(job),
        f"{job.error_reason}: {job.error}" if job.error else "",
    )


def _wait(job: Job) -> str:
    """Return where a job that waits stands: `3 in front, 20 s`."""
    if job.queue_position is None:
        return ""
    wait = "" if job.wait_seconds is None else f", {duration(job.wait_seconds)}"
    return f"{job.queue_position} in front{wait}"
