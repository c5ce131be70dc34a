"""``llamactl top``: what the service does, live."""

import argparse

from llamactl.activity import Activity
from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamad_client import Client

TIMEOUT_SECONDS = 5.0  # of one look; the next comes soon


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "top",
        help="watch requests, speed and the board",
        description="Show what the service does, anew every second; q leaves. Without a terminal,"
        " or with --json, show it once.",
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Show what there is, once or until q is typed."""
    from llamactl import full_screen  # curses is loaded for this command only

    with Client(arguments.socket, timeout_seconds=TIMEOUT_SECONDS) as client:
        activity = Activity(client)
        if arguments.json:
            print_json(activity.as_json())
            return 0
        first = activity.lines()  # a service that cannot be reached is an error like any other
        if full_screen.is_possible():
            full_screen.show(activity.lines_or_error)
            return 0
    for line in first:
        print_line(line.text)
    return 0
