"""``llamactl run``: from a model's name to an answer: fetch it, load it, talk to it."""

import argparse
import sys

from llamactl import hub, pulling, sampling
from llamactl.commands import Commands, ask, chat
from llamactl.names import meant
from llamactl.output import bytes_text, print_note
from llamactl.progress import Progress
from llamactl.readiness import use_model
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        usage="%(prog)s [FLAG]... MODEL [PROMPT]...",
        help="fetch a model, load it and talk to it",
        description="Talk to a model: it is fetched when the service does not have it, and loaded,"
        " now and at every start, when it is not. With a prompt, or with standard input that is no"
        " terminal, ask one question; without, hold a conversation.",
    )
    sampling.add_flags(parser, with_model=False)
    ask.add_input_flags(parser)
    parser.add_argument(
        "model", metavar="MODEL", help="as llamactl models shows it, or as llamactl pull takes it"
    )
    parser.add_argument("prompt", nargs="*", metavar="PROMPT")
    parser.set_defaults(run=run, usage_error=parser.error, **ask.NO_QUESTION_FLAGS)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Fetch and load what is missing, then ask or chat."""
    with Client(arguments.socket) as client:
        if arguments.wait:
            ask.wait(client, as_json=arguments.json, needs_model=False)
        arguments.model = _loaded(client, arguments.model, as_json=arguments.json)
    arguments.wait = False
    talks = sys.stdin.isatty() and not arguments.prompt
    return chat.run(arguments) if talks else ask.run(arguments)


def _loaded(client: Client, text: str, *, as_json: bool) -> str:
    """Return the name of the model, which is loaded when this returns."""
    models = {model.name: model for model in client.models()}
    name = _installed(text, set(models))
    if name is None:
        progress = Progress(as_json=as_json)
        wanted = pulling.resolve(pulling.find(text))
        added = pulling.fetch(client, wanted, progress)
        print_note(f"{added.name}: added, {bytes_text(added.file_bytes)}", as_json=as_json)
        name = added.name
    if name not in models or not models[name].loaded:
        used = use_model(client, name, as_json=as_json)
        seconds = f"{used.load_seconds:.1f} s"
        print_note(f"{name}: loaded in {seconds}, now and at every start", as_json=as_json)
    return name


def _installed(text: str, names: set[str]) -> str | None:
    """Return the name of the installed model that is meant; None when it has to be fetched."""
    reference = hub.parse(text)
    if reference is not None:
        return next((name for name in reference.names() if name in names), None)
    name = meant(text, names)
    return name if name in names else None
