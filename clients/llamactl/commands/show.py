"""``llamactl show``: what a model is, and what its requests get where they do not say."""

import argparse
import dataclasses

from llamactl.commands import Commands
from llamactl.names import service_name
from llamactl.output import bytes_text, print_json, print_line, print_table
from llamactl.streams import escaped
from llamad_client import Client, ModelDetails

SOURCES = {
    "model_section": "[models.NAME] of llamad.toml",
    "model_file": "the model's file",
    "recommended": "the catalogue, at llamactl pull",
    "configuration": "llamad.toml",
    "built_in": "built in",
}


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "show",
        help="tell what a model is and how it is set up",
        description="Tell what a model is: size, licence, context, and the settings that its"
        " requests get where they do not say, each with who said so.",
    )
    parser.add_argument(
        "--template", action="store_true", help="print the chat template and nothing else"
    )
    parser.add_argument(
        "--metadata", action="store_true", help="print what the file says of itself, too"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="default: the loaded model")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print what there is to say of the model."""
    with Client(arguments.socket) as client:
        name = service_name(client, arguments.name) if arguments.name else ""
        model = client.get_model(name)
    if arguments.json:
        print_json(dataclasses.asdict(model))
    elif arguments.template:
        print(escaped(model.chat_template))
    else:
        _print(model, with_metadata=arguments.metadata)
    return 0


def _print(model: ModelDetails, *, with_metadata: bool) -> None:
    for name, value in _lines(model):
        print_line(f"{name + ':':<14} {value}")
    if model.settings:
        print()
        rows = [(s.name, s.value, SOURCES.get(s.source, s.source)) for s in model.settings]
        print_table(("SETTING", "VALUE", "FROM"), rows)
    if with_metadata:
        print()
        for entry in model.metadata:
            more = f" ... ({entry.length} in all)" if _is_cut(entry.value, entry.length) else ""
            print_line(f"{entry.key} = {entry.value}{more}")


def _lines(model: ModelDetails) -> list[tuple[str, str]]:
    """Return what is one line each; what the file does not say is left out."""
    template = "of the file" if model.has_chat_template else "none of its own"
    context = f"trained with {model.n_ctx_train} tokens" if model.n_ctx_train else "not said"
    if model.n_ctx is not None:
        context = f"{model.n_ctx} tokens ({context})"
    values = [
        ("name", model.name),
        ("title", model.title),
        ("architecture", model.architecture),
        ("parameters", f"{model.parameters / 1e6:,.0f} million" if model.parameters else ""),
        ("quantization", model.quantization),
        ("size", bytes_text(model.file_bytes)),
        ("licence", model.licence),
        ("context", context),
        ("chat template", template),
        ("loaded", "yes" if model.loaded else "no"),
        ("file", model.path),
    ]
    return [(name, value) for name, value in values if value]


def _is_cut(value: str, length: int) -> bool:
    """Whether a value of the metadata is only its beginning: 1024 characters or 8 elements."""
    return length > (8 if value.startswith("[") else 1024)
