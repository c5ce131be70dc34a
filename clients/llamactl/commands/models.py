"""``llamactl models``: the models the service knows, and those that could be pulled."""

import argparse
import dataclasses
import os
import textwrap
from collections.abc import Sequence

from llamactl.catalogue import Board, Catalogue, Entry, read_catalogue
from llamactl.commands import Commands
from llamactl.output import bytes_text, print_json, print_line, print_table
from llamad_client import Client, ServiceUnreachable

WIDTH = 79
INSTALLED = "*"


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "models",
        help="list the models the service knows",
        description="List the models the service knows. With --catalogue, list those that llamactl"
        " pull knows by name. WORDs keep the models in which all of them occur.",
    )
    parser.add_argument(
        "--catalogue", action="store_true", help="list those that llamactl pull knows by name"
    )
    parser.add_argument(
        "--fits",
        action="store_true",
        help="of the catalogue, those for a board with this machine's memory",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="in the name or the description")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one model a line."""
    words = [word.lower() for word in arguments.words]
    if arguments.catalogue or arguments.fits:
        memory = machine_bytes() if arguments.fits else None
        return _print_catalogue(words, memory, arguments)
    with Client(arguments.socket) as client:
        models = client.models()
    models = [model for model in models if _has_all(words, model.name)]
    if arguments.json:
        for model in models:
            print_json(dataclasses.asdict(model))
        return 0
    adapters = [model for model in models if model.is_adapter]
    models = [model for model in models if not model.is_adapter]
    rows = [
        (m.name, bytes_text(m.file_bytes), _mark(m.loaded), _mark(m.selected), m.path)
        for m in models
    ]
    print_table(("NAME", "SIZE", "LOADED", "AT START", "PATH"), rows)
    if adapters:
        print()
        print_table(
            ("ADAPTER", "SIZE", "LOADED", "BASE", "PATH"),
            [(m.name, bytes_text(m.file_bytes), _mark(m.loaded), m.base, m.path) for m in adapters],
        )
    for name in sorted(_twice([model.name for model in models])):
        print_line(
            f"{name} is there twice: requests get the loaded one, which the service was started"
            f' with; "llamactl rm {name}" deletes the one in the model directory'
        )
    return 0


def _twice(names: Sequence[str]) -> set[str]:
    """Return the names that occur more than once: a file outside the directory may have any."""
    return {name for name in names if names.count(name) > 1}


def machine_bytes() -> int:
    """Return the memory of this machine, which is the service's."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def select(entries: Sequence[Entry], words: Sequence[str], memory: int | None) -> list[Entry]:
    """Return the models in which all words occur, in any case, and whose board has the memory.

    memory: bytes, None for any.
    """
    return [
        entry
        for entry in entries
        if _has_all(words, _description(entry))
        and (memory is None or memory >= entry.least_machine_bytes)
    ]


def _description(entry: Entry) -> str:
    parts = (entry.name, *entry.aliases, entry.title, entry.licence, entry.note)
    return " ".join(parts).lower()


def _has_all(words: Sequence[str], text: str) -> bool:
    return all(word in text.lower() for word in words)


def _mark(is_so: bool) -> str:
    return "yes" if is_so else ""


def _print_catalogue(words: Sequence[str], memory: int | None, options: argparse.Namespace) -> int:
    """Print the catalogue. It needs no service; one that runs says which models it has."""
    catalogue = read_catalogue()
    entries = select(catalogue.entries, words, memory)
    installed = _installed(options.socket)
    if options.json:
        _print_entries_json(catalogue, entries, installed)
        return 0
    if not entries:
        print_line(
            'no model of the catalogue is like that; "llamactl run hf.co/USER/REPO" gets others'
        )
        return 0
    width = max(len(_names(entry)) for entry in entries)
    boards = catalogue.boards
    speeds = "".join(f"{name:>6}" for name in boards)
    print_line(f"  {'NAME':<{width}} {'SIZE':>9}  BOARD{speeds}  LICENCE")
    for entry in entries:
        mark = INSTALLED if entry.name in installed else " "
        _print_entry(entry, mark, width, list(boards.values()))
    explanations = [
        f"{INSTALLED} the service has it.  BOARD: the smallest that keeps it in memory.",
        f"{', '.join(boards)}: tokens per second, computed from the memory's speed, not measured.",
        '"llamactl run NAME" fetches a model and talks to it.',
    ]
    print()
    for line in explanations:
        print_line(line)
    return 0


def _print_entry(entry: Entry, mark: str, width: int, boards: Sequence[Board]) -> None:
    """Print a model's line, and below it what else there is to know."""
    speeds = "".join(f"{entry.tokens_per_second(board):>6.1f}" for board in boards)
    size = bytes_text(entry.file_bytes)
    line = f"{mark} {_names(entry):<{width}} {size:>9}  {entry.memory:<5}{speeds}  "
    room = WIDTH - len(line)
    notes = [entry.note] if entry.note else []
    if len(entry.licence) <= room:
        line += entry.licence
        notes += ["the licence has conditions"] if entry.conditions else []
    else:
        line += "see below"
        conditions = " (has conditions)" if entry.conditions else ""
        notes.append(f"{entry.licence}{conditions}")
    print_line(line)
    for note in notes:
        for part in textwrap.wrap(note, WIDTH - 6):
            print_line(f"      {part}")


def _names(entry: Entry) -> str:
    return "/".join((entry.name, *entry.aliases))


def _installed(socket: str | None) -> set[str]:
    """Return the names of the service's models; none when no service can be asked."""
    try:
        with Client(socket, timeout_seconds=5.0) as client:
            return {model.name for model in client.models()}
    except ServiceUnreachable:
        return set()


def _print_entries_json(
    catalogue: Catalogue, entries: Sequence[Entry], installed: set[str]
) -> None:
    boards = catalogue.boards
    sources = {name: board.speed_source for name, board in boards.items()}
    for entry in entries:
        speeds = {name: round(entry.tokens_per_second(b), 1) for name, b in boards.items()}
        values = {"tokens_per_second": speeds, "speed_source": sources}
        has = {"installed": entry.name in installed}
        print_json({**dataclasses.asdict(entry), **values, **has})
