"""Transfers of a model file into a folder, for the tests of its arrival."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import Announced, Arrival, Arrived

LIMIT = 1 << 40
SYNC_BYTES = 4096  # in these tests, so that tiny files are synced several times


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def announce(model: bytes, **changes: Any) -> Announced:
    return replace(Announced("m", len(model), hash_of(model), "http://a/m#1"), **changes)


def arrival(
    folder: Path, announced: Announced, *, max_bytes: int = LIMIT, loaded: bool = False
) -> Arrival:
    return Arrival(
        ModelRegistry(folder), announced, max_bytes=max_bytes, in_use=lambda name: loaded
    )


def receive(
    folder: Path, announced: Announced, data: bytes, *, piece: int = 3000, **settings: Any
) -> Arrived:
    """Let a whole transfer run: data is the whole file, sent from where the service asks."""
    transfer = arrival(folder, announced, **settings)
    try:
        present = transfer.present()
        if present is not None:
            return present
        offset = transfer.open()
        send(transfer, data, offset, piece=piece)
        return transfer.finish()
    finally:
        transfer.close()


def send(transfer: Arrival, data: bytes, offset: int = 0, *, piece: int = 3000) -> None:
    for first in range(offset, len(data), piece):
        transfer.write(first, data[first : first + piece])


def break_off(folder: Path, announced: Announced, data: bytes) -> None:
    """Send data, and leave as a vanished client does."""
    transfer = arrival(folder, announced)
    transfer.open()
    send(transfer, data)
    transfer.keep()
    transfer.close()


def kept(folder: Path, announced: Announced) -> int:
    """Return what a transfer would go on from; it changes nothing when that is something."""
    transfer = arrival(folder, announced)
    try:
        return transfer.open()
    finally:
        transfer.close()


def error_of(action: Callable[[], object]) -> LlamadError:
    with pytest.raises(LlamadError) as error:
        action()
    return error.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
