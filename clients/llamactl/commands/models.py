"""``llamactl models``: the models the service knows, and those that could be pulled."""

import argparse
import dataclasses

from llamactl.catalogue import read_catalogue
from llamactl.commands import Commands
from llamactl.output import bytes_text, print_json, print_table
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "list the models the service knows"
    parser = commands.add_parser("models", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--catalogue", action="store_true", help="list those that `llamactl pull` knows by name"
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one model a line."""
    if arguments.catalogue:
        return _print_catalogue(as_json=arguments.json)
    with Client(arguments.socket) as client:
        models = client.models()
    if arguments.json:
        for model in models:
            print_json(dataclasses.asdict(model))
        return 0
    rows = [
        (m.name, bytes_text(m.file_bytes), _mark(m.loaded), _mark(m.selected), m.path)
        for m in models
    ]
    print_table(("NAME", "SIZE", "LOADED", "AT START", "PATH"), rows)
    return 0


def _mark(is_so: bool) -> str:
    return "yes" if is_so else ""


def _print_catalogue(*, as_json: bool) -> int:
    """Print the catalogue; it needs no service."""
    catalogue = read_catalogue()
    boards = catalogue.boards
    if as_json:
        for entry in catalogue.entries:
            speeds = {n: round(entry.tokens_per_second(b), 1) for n, b in boards.items()}
            sources = {name: board.speed_source for name, board in boards.items()}
            values = {"tokens_per_second": speeds, "speed_source": sources}
            print_json({**dataclasses.asdict(entry), **values})
        return 0
    rows = [
        (
            "/".join((entry.name, *entry.aliases)),
            bytes_text(entry.file_bytes),
            entry.memory,
            *(f"{entry.tokens_per_second(board):.1f}" for board in boards.values()),
            entry.licence + (" (conditions)" if entry.conditions else ""),
        )
        for entry in catalogue.entries
    ]
    columns = (f"TOKENS/S {name}".upper() for name in boards)
    print_table(("NAME", "SIZE", "MEMORY", *columns, "LICENCE"), rows)
    print("\nTokens/s are computed from the boards' memory, not measured; --json has the sources.")
    return 0
