"""The file of ``--tools``: what a model may call, as JSON."""

import argparse
import json
from pathlib import Path
from typing import Any

MAX_BYTES = 4 << 20
_KEYS = ("name", "description", "parameters", "strict")


def read_tools(path: str) -> list[dict[str, Any]]:
    """Return the tools of a file: objects with a name, or as OpenAI's interface has them.

    Raises ArgumentTypeError that names the file and the fault.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        entries = json.loads(data)
        if not isinstance(entries, list):
            raise ValueError("it is no list")
        return [_tool(i, entry) for i, entry in enumerate(entries)]
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise argparse.ArgumentTypeError(f"{path}: {reason}") from None


def _tool(i: int, entry: object) -> dict[str, Any]:
    if isinstance(entry, dict) and isinstance(entry.get("function"), dict):
        entry = entry["function"]
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"entry {i} has no name")
    return {key: entry[key] for key in _KEYS if entry.get(key) is not None}
