"""``llamactl prefix``: the beginnings of prompts that the service keeps."""

import argparse
import dataclasses
from pathlib import Path

from llamactl.commands import Commands
from llamactl.output import bytes_text, counted, print_json, print_line, print_table
from llamactl.progress_line import ProgressLine
from llamactl.standard_input import read_prompt
from llamad_client import Client, Prefix, Refused

ACTIONS = ("add", "list", "rm")


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "prefix",
        help="keep the beginning of prompts, so that it is read once",
        description="Keep the beginning of prompts for the requests of everybody, in memory and on"
        " the disk: it is read once, and not again after a restart. add reads it now, rm forgets"
        " it, list shows those of everybody and your own.",
    )
    parser.add_argument("action", metavar="add|list|rm", choices=ACTIONS, help="what to do")
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the prefix; not for list")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="with the system message; else standard input"
    )
    parser.add_argument("-s", "--system", metavar="SYSTEM", help="the system message itself")
    parser.add_argument(
        "--raw", action="store_true", help="it is the beginning of raw prompts, not of chats"
    )
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    _check(arguments)
    with Client(arguments.socket) as client:
        if arguments.action == "add":
            _add(client, arguments)
        elif arguments.action == "rm":
            freed = client.remove_prefix(arguments.name)
            if arguments.json:
                print_json({"name": arguments.name, "freed_bytes": freed})
            else:
                print_line(f"{arguments.name} removed, {bytes_text(freed)} of the disk are free")
        else:
            _list(client.prefixes(), as_json=arguments.json)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what does not belong together."""
    given = arguments.file is not None or arguments.system is not None or arguments.raw
    if arguments.action == "list" and (arguments.name is not None or given):
        arguments.usage_error("list takes no name and no text")
    if arguments.action != "list" and arguments.name is None:
        arguments.usage_error(f"{arguments.action} needs a NAME")
    if arguments.action == "rm" and given:
        arguments.usage_error("rm takes a NAME only")
    if arguments.file is not None and arguments.system is not None:
        arguments.usage_error("give a FILE or --system, not both")


def _add(client: Client, arguments: argparse.Namespace) -> None:
    text = _text(arguments)
    line = ProgressLine()

    def show(done: int, tokens: int) -> None:
        line.show(f"{done} of {counted(tokens, 'token')} read")

    system, prompt = ("", text) if arguments.raw else (text, "")
    if not text:
        raise Refused("INVALID_PREFIX", "the prefix is empty")
    try:
        added = client.add_prefix(
            arguments.name,
            system=system,
            prompt=prompt,
            on_progress=None if arguments.json else show,
        )
    finally:
        line.erase()
    if arguments.json:
        print_json({"name": arguments.name, **dataclasses.asdict(added)})
        return
    where = f"{bytes_text(added.bytes_on_disk)} on the disk"
    if not added.bytes_on_disk:
        where = "in memory only: the journal says why it was not saved"
    print_line(f"{arguments.name}: {counted(added.tokens, 'token')}, {where}")


def _text(arguments: argparse.Namespace) -> str:
    """Return the text: given, of a file, or of standard input."""
    if arguments.system is not None:
        return str(arguments.system)
    if arguments.file is None or arguments.file == "-":
        return read_prompt("", raw=arguments.raw, no_stdin=False, as_json=arguments.json)
    try:
        text = Path(arguments.file).read_text(encoding="utf-8")
    except OSError as error:
        message = f"{arguments.file}: {error.strerror}"
        raise Refused("INVALID_FILE", message) from None
    except UnicodeDecodeError as error:
        message = f"{arguments.file} is no valid UTF-8 at byte {error.start}"
        raise Refused("INVALID_FILE", message) from None
    return text if arguments.raw else text.rstrip("\n")


def _list(prefixes: list[Prefix], *, as_json: bool) -> None:
    if as_json:
        for prefix in prefixes:
            print_json(dataclasses.asdict(prefix))
        return
    print_table(("NAME", "TOKENS", "ON DISK", "USES", "FOR", "IN MEMORY"), map(_row, prefixes))


def _row(prefix: Prefix) -> tuple[str, ...]:
    return (
        prefix.name or "-",
        str(prefix.tokens),
        bytes_text(prefix.bytes_on_disk),
        str(prefix.uses),
        "everybody" if prefix.for_everybody else "you",
        "yes" if prefix.in_memory else "no",
    )
