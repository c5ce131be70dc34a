"""JSON of a checkpoint: objects and lists of bounded size, and those numbers that GGUF can hold.

Owns what a hostile file may cost in memory; which keys there are is up to their readers.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llamad_tools.checkpoints.source import MAX_QUOTED, SourceFile, corrupt

MAX_JSON_BYTES = 32 << 20  # a tokenizer.json of 151,936 tokens has 11 MB, indented 17 MB
MAX_JSON_VALUES = 2_000_000  # in such a file, its merges as pairs, are 0.9 million

_LEAST, _MOST = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object of a JSON file; raises LlamadError that names the path and the fault."""
    return parse_json(path, _read(path))


def read_json_list(path: Path) -> list[Any]:
    """Return the list of a JSON file; raises LlamadError that names the path and the fault."""
    value = _parse(path, _read(path))
    if not isinstance(value, list):
        raise corrupt(path, f"its JSON is a {type(value).__name__}, not a list")
    return value


def parse_json(path: Path, text: bytes) -> dict[str, Any]:
    """Return the object of a JSON text of ``path``; raises LlamadError that names the path."""
    value = _parse(path, text)
    if not isinstance(value, dict):
        raise corrupt(path, f"its JSON is a {type(value).__name__}, not an object")
    return value


def _read(path: Path) -> bytes:
    with closing(SourceFile(path)) as file:
        if file.n_bytes > MAX_JSON_BYTES:
            raise corrupt(path, f"is larger than {MAX_JSON_BYTES >> 20} MiB")
        return file.read(0, file.n_bytes)


def _parse(path: Path, text: bytes) -> Any:
    """Return a JSON text's value.

    Every value begins after one of four characters, so their number bounds the memory it takes.
    """
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > MAX_JSON_VALUES:
        raise corrupt(path, f"its JSON has more than {MAX_JSON_VALUES} values")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, f"is no JSON: {error}") from None


def positive_count(path: Path, key: str, value: object) -> int:
    """Return a number that GGUF's uint32 can hold; raises LlamadError that names path and key."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 32:
        raise corrupt(path, f"{key} is {_quoted(value)}, must be a positive integer of 32 bits")
    return value


def positive_float(path: Path, key: str, value: object) -> float:
    """Return a number that GGUF's float32 can hold; raises LlamadError that names path and key."""
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not _LEAST <= value <= _MOST
    ):
        raise corrupt(path, f"{key} is {_quoted(value)}, must be a positive number of float32")
    return float(value)


def _quoted(value: object) -> str:
    return ascii(value)[:MAX_QUOTED]
