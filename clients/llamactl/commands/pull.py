"""``llamactl pull``: fetch a model and give it to the service. The work is ``pulling.py``'s."""

import argparse
import dataclasses
import re
from pathlib import Path

from llamactl import pulling
from llamactl.commands import Commands
from llamactl.output import bytes_text, print_json, print_line, print_note
from llamactl.progress import Progress
from llamactl.readiness import use_model
from llamad_client import AddedModel, Client, Status

WITHOUT_MODEL = ("no_model", "failed")


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "pull",
        help="fetch a model and give it to the service",
        description="Fetch a model and give it to the service. The source is a name of the"
        " catalogue (llamactl search), hf.co/USER/REPO[:QUANT], an URL or a file. The same command"
        " goes on where an interrupted one stopped.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a name of the catalogue, hf.co/USER/REPO, an URL, a file"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name; default: the file's")
    parser.add_argument("--sha256", type=_sha256, metavar="HEX", help="what the file must hash to")
    parser.add_argument(
        "--move", action="store_true", help="delete the file here once the service has it"
    )
    parser.add_argument(
        "--replace", action="store_true", help="take the place of a model of this name"
    )
    parser.add_argument(
        "--no-use", action="store_true", help="do not load it, even if no model is loaded"
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        metavar="N",
        default=pulling.MAX_BYTES,
        help=f"refuse a larger file; default: {pulling.MAX_BYTES}",
    )
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a sha256 has 64 hexadecimal digits")
    return text.lower()


def run(arguments: argparse.Namespace) -> int:
    """Fetch, add and, when the service has no model loaded, use it."""
    if arguments.max_bytes < 1:
        arguments.usage_error(f"--max-bytes {arguments.max_bytes}: must be at least 1")
    wanted = pulling.find(arguments.source)
    if arguments.move and not isinstance(wanted.where, Path):
        arguments.usage_error("--move is for a file of this machine")
    name = wanted.name if arguments.name is None else arguments.name
    wanted = dataclasses.replace(wanted, name=name, sha256=arguments.sha256 or wanted.sha256)
    if not name and isinstance(wanted.where, str | Path):
        arguments.usage_error("the source suggests no name for the model: give --name")
    progress = Progress(as_json=arguments.json)
    with Client(arguments.socket) as client:
        client.status()  # is anybody there, before anything is asked of the network
        wanted = pulling.resolve(wanted)
        added = pulling.fetch(
            client,
            wanted,
            progress,
            max_bytes=arguments.max_bytes,
            replace_model=arguments.replace,
        )
        _print_added(added, as_json=arguments.json)
        if isinstance(wanted.where, Path):
            _settle_source(wanted.where, added, move=arguments.move, as_json=arguments.json)
        status = client.status()
        if not arguments.no_use and status.state in WITHOUT_MODEL:
            _use(client, added.name, as_json=arguments.json)
        else:
            _say_what_is_served(added, status, as_json=arguments.json)
    return 0


def _say_what_is_served(added: AddedModel, status: Status, *, as_json: bool) -> None:
    """Say how the added model is loaded, or why another of its name goes on answering."""
    model = status.model
    if model is None or model.name != added.name:
        if not as_json:
            print_line(f'"llamactl use {added.name}" loads it')
    elif model.path != added.path and not pulling.is_same_file(Path(model.path), added.path):
        text = f"{model.path} goes on answering as {added.name}: the service was started with it"
        print_note(text, as_json=as_json)


def _settle_source(path: Path, added: AddedModel, *, move: bool, as_json: bool) -> None:
    """Delete the file that was added, or say that it is there twice now."""
    if move:
        if pulling.delete_source(path, added):
            print_note(f"{path}: deleted, the service has it", as_json=as_json)
        else:
            print_note(f"{path}: is the service's own file, and stays", as_json=as_json)
    elif not pulling.is_same_file(path, added.path):
        text = f"{path} is on the disk twice now: the same command with --move deletes it here"
        print_note(text, as_json=as_json)


def _print_added(added: AddedModel, *, as_json: bool) -> None:
    if as_json:
        fields = ("name", "path", "file_bytes", "sha256", "unchanged")
        print_json({"type": "added", **{field: getattr(added, field) for field in fields}})
        return
    what = "was there already" if added.unchanged else "added"
    print_line(f"{added.name}: {what}, {bytes_text(added.file_bytes)}, sha256 {added.sha256}")


def _use(client: Client, name: str, *, as_json: bool) -> None:
    """Load the model, as the first one."""
    used = use_model(client, name, as_json=as_json)
    if as_json:
        print_json({"type": "used", "name": name, "load_seconds": used.load_seconds})
    else:
        print_line(f"{name}: loaded in {used.load_seconds:.1f} s, and at every start")
