"""A model directory in which little is written between two records, and a model to put there."""

from pathlib import Path

import pytest

from llamad.store import partial_file as partial_file
from tiny_gguf import TinyModelPath, TinySpec
from unit.transfer.transferring import SYNC_BYTES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(partial_file, "SYNC_BYTES", SYNC_BYTES)
    return tmp_path / "models"


@pytest.fixture
def model(tiny_model_path: TinyModelPath) -> bytes:
    return tiny_model_path(TinySpec()).read_bytes()
