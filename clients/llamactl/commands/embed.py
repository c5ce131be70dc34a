"""``llamactl embed``: the vectors of texts."""

import argparse
import json
import sys

from llamactl.commands import Commands
from llamactl.output import print_json, print_line
from llamactl.sampling import adapter
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "embed",
        help="print the vectors of texts",
        description=(
            "Print the vector of each text as a line of JSON, an array of numbers. Texts of alike"
            " meaning have alike vectors: the sum of the products of their numbers is near 1. The"
            " loaded model has to be one that makes vectors."
        ),
    )
    parser.add_argument(
        "text", nargs="*", metavar="TEXT", help="a text; without any, each line of standard input"
    )
    parser.add_argument("--model", metavar="MODEL", help="only if this model is loaded")
    parser.add_argument(
        "--truncate", action="store_true", help="read the beginning of a text that is too long"
    )
    parser.add_argument(
        "--pooling",
        choices=("mean", "first", "last"),
        help="which tokens count; default: as the model's file says",
    )
    parser.add_argument(
        "--adapter",
        type=adapter,
        metavar="NAME[:SCALE]",
        help="go through this adapter (LoRA) of the loaded model",
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print one line a text; with --json an object that says what was read, too."""
    texts = arguments.text or [line.rstrip("\n") for line in sys.stdin]
    with Client(arguments.socket) as client:
        embeddings = client.embed(
            texts,
            model=arguments.model or "",
            truncate=arguments.truncate,
            pooling=arguments.pooling,
            priority="batch" if len(texts) > 1 else "normal",
            **(arguments.adapter or {}),
        )
    for embedding in embeddings:
        values = [round(value, 7) for value in embedding.values]
        if arguments.json:
            read = {"tokens": embedding.tokens, "truncated_tokens": embedding.truncated_tokens}
            print_json({"embedding": values, **read, "model": embedding.model})
        else:
            print_line(json.dumps(values))
    return 0
