"""``llamactl health``: whether the service can answer now, for scripts and probes."""

import argparse

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client, ClientError, Failed, Status, StillLoading

SERVING = "SERVING"


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "health",
        help="tell whether the service can answer",
        description="Exit with 0 when the service can answer now, with 3 while it cannot be"
        " reached or still loads, with 5 when it has no usable model.",
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the health; raise the error that says why it is not SERVING."""
    with Client(arguments.socket) as client:
        health = client.health()
        status = None if health == SERVING else client.status()
    if arguments.json:
        print_json({"status": health})
    else:
        print_line(health)
    if status is not None:
        raise _reason(status)
    return 0


def _reason(status: Status) -> ClientError:
    if status.state == "loading":
        return StillLoading("MODEL_LOADING", f"the model is still loading: {status.detail}")
    return Failed("NOT_SERVING", f"the service cannot answer: {status.detail}")
