"""Transfers of a model file into a folder, for the tests of their rules."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import StoredModel, Transfer, TransferRequest

LIMIT = 1 << 40
SYNC_BYTES = 4096  # in these tests, so that tiny files are synced several times


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def request_for(model: bytes, **changes: Any) -> TransferRequest:
    return replace(TransferRequest("m", len(model), hash_of(model), "http://a/m#1"), **changes)


def new_transfer(
    folder: Path, request: TransferRequest, *, max_bytes: int = LIMIT, loaded: bool = False
) -> Transfer:
    return Transfer(ModelRegistry(folder), request, max_bytes=max_bytes, in_use=lambda name: loaded)


def receive(
    folder: Path, request: TransferRequest, data: bytes, *, piece: int = 3000, **settings: Any
) -> StoredModel:
    """Let a whole transfer run: data is the whole file, sent from where the service asks."""
    transfer = new_transfer(folder, request, **settings)
    try:
        present = transfer.present()
        if present is not None:
            return present
        offset = transfer.open()
        send(transfer, data, offset, piece=piece)
        return transfer.finish()
    finally:
        transfer.close()


def send(transfer: Transfer, data: bytes, offset: int = 0, *, piece: int = 3000) -> None:
    for first in range(offset, len(data), piece):
        transfer.write(first, data[first : first + piece])


def break_off(folder: Path, request: TransferRequest, data: bytes) -> None:
    """Send data, and leave as a vanished client does."""
    transfer = new_transfer(folder, request)
    transfer.open()
    send(transfer, data)
    transfer.save()
    transfer.close()


def bytes_there(folder: Path, request: TransferRequest) -> int:
    """Return what a transfer would go on from; it changes nothing when that is something."""
    transfer = new_transfer(folder, request)
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
