"""The flags that say what an answer must look like: a schema, a grammar, a pattern, choices."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NO_FLAGS: Mapping[str, Any] = {
    "schema": None,
    "json_object": False,
    "grammar": None,
    "regex": None,
    "choice": None,
    "closed_objects": False,
}
MAX_FILE_BYTES = 1 << 18  # the service's limit for a format


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags; of those that are a format one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--schema",
        type=read_schema,
        metavar="FILE|JSON",
        help="the answer is a JSON value that this JSON Schema accepts",
    )
    group.add_argument(
        "--json-object", action="store_true", help="the answer is a JSON object of any kind"
    )
    group.add_argument(
        "--grammar",
        type=read_grammar,
        metavar="FILE|TEXT",
        help="the answer follows this grammar, in llama.cpp's GBNF",
    )
    group.add_argument("--regex", metavar="REGEX", help="the answer fits this regular expression")
    group.add_argument(
        "--choice",
        action="append",
        metavar="TEXT",
        help="the answer is this text, or that of another --choice",
    )
    parser.add_argument(
        "--closed-objects",
        action="store_true",
        help="of --schema: objects have only the members that it names",
    )


def response_format(arguments: argparse.Namespace) -> Mapping[str, Any] | None:
    """Return the option of the client; None where no flag was given."""
    if arguments.schema is not None:
        wanted = {"json_schema": arguments.schema}
        return {**wanted, "closed_objects": True} if arguments.closed_objects else wanted
    if arguments.json_object:
        return {"json_object": True}
    if arguments.grammar is not None:
        return {"grammar": arguments.grammar}
    if arguments.regex is not None:
        return {"regex": arguments.regex}
    return None if arguments.choice is None else {"choices": arguments.choice}


def read_schema(text: str) -> Any:
    """Return the schema that is given, or is in a file of this name."""
    if not text.lstrip().startswith(("{", "true", "false")):
        text = _content(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from None


def read_grammar(text: str) -> str:
    """Return the grammar that is given, or is in a file of this name."""
    return text if "::=" in text else _content(text)


def _content(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise argparse.ArgumentTypeError(f"{path}: has more than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"{path}: is no UTF-8 at byte {error.start}"
        raise argparse.ArgumentTypeError(message) from None
