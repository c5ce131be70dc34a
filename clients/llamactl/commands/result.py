"""``llamactl result``: the whole answer of a submitted job that has ended."""

import argparse

from llamactl.commands import Commands, watch


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "result",
        help="print the answer of a submitted job that has ended",
        description="Print the answer of a submitted job. One that has not ended is an error, exit"
        " code 5; an answer is kept as long as [jobs] of llamad.toml says.",
    )
    watch.add_flags(parser)
    parser.set_defaults(run=watch.run, wait=False, from_token=0)
    return parser
