"""What is told of a model before the one that serves gives way to it."""

from dataclasses import replace
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad.errors import LlamadError
from llamad.memory.machine import Machine
from llamad.service.model_check import check_model
from llamad.store.registry import ModelFile
from tiny_gguf import TinyModelPath, TinySpec

MIB = 1 << 20
CONFIG = ModelConfig(threads=1)


def _file(path: Path) -> ModelFile:
    return ModelFile(path.stem, path, path.stat().st_size)


def test_a_model_that_can_be_loaded_is_not_refused(tiny_model_path: TinyModelPath) -> None:
    check_model(CONFIG, _file(tiny_model_path(TinySpec())), {}, 0)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_file_that_is_cut_is_refused(
    tiny_model_path: TinyModelPath, tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model_path(TinySpec()).read_bytes()[:kept])
    with pytest.raises(LlamadError, match=r"cut\.gguf") as caught:
        check_model(CONFIG, _file(path), {}, 0)
    assert caught.value.reason == "MODEL_CORRUPT"


def test_a_context_that_has_no_room_is_refused(tiny_model_path: TinyModelPath) -> None:
    file = _file(tiny_model_path(TinySpec()))
    config = replace(CONFIG, memory_budget=200 * MIB)
    check_model(config, file, {file.name: 64}, 0)
    with pytest.raises(LlamadError) as caught:
        check_model(replace(config, memory_budget=20 * MIB), file, {file.name: 64}, 0)
    assert caught.value.reason == "OUT_OF_MEMORY"


def test_what_the_model_that_goes_has_locked_is_room(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _file(tiny_model_path(TinySpec()))
    monkeypatch.setattr(Machine, "budget_bytes", lambda self, locked_bytes=0: locked_bytes)
    check_model(CONFIG, file, {}, 500 * MIB)
    with pytest.raises(LlamadError) as caught:
        check_model(CONFIG, file, {}, 20 * MIB)
    assert caught.value.reason == "OUT_OF_MEMORY"
