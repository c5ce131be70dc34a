"""A model directory in which little is written between two records, and a model to put there."""

from pathlib import Path

import pytest

from llamad.models import kept_part
from tiny_gguf import TinyModelPath, TinySpec
from unit.arrival.arriving import SYNC_BYTES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept_part, "SYNC_BYTES", SYNC_BYTES)
    return tmp_path / "models"


@pytest.fixture
def model(tiny_model_path: TinyModelPath) -> bytes:
    return tiny_model_path(TinySpec()).read_bytes()
