"""What a real service does with the memory of its model."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clients.daemon_process import daemon
from llamad.__main__ import main
from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.service.loading import load
from llamad_client import Client
from llamad_tools.advice.recommendation import SYSTEM_BYTES
from tiny_gguf import TinyModelPath, TinySpec

# What is planned to be in memory, without the _bytes of its field.
PLANNED = (
    "process",
    "connections",
    "template",
    "vocabulary",
    "samplers",
    "scratch",
    "kv",
    "resident",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def plan_of_fit(model: Path, budget: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what ``llamad fit`` says of the file as it is, for a machine of this budget."""
    assert main(["fit", str(model), "--memory", str(budget + SYSTEM_BYTES), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan_as_it_is"]
    assert isinstance(plan, dict)
    return plan


@pytest.mark.parametrize("fits", [True, False])
def test_fit_loader_and_status_say_the_same_bytes(
    folder: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str], fits: bool
) -> None:
    model = tiny_model_path(TinySpec(vocab_size=2000, dim=128))
    plan = plan_of_fit(model, 1 << 30, capsys)
    budget = sum(plan[f"{what}_bytes"] for what in PLANNED)
    if not fits:  # one context of KV cache instead of four, and half of the file
        budget -= plan["kv_bytes"] // 4 * 3 + plan["resident_bytes"] // 2
        plan = plan_of_fit(model, budget, capsys)
    assert (plan["streamed_bytes"] == 0) is fits

    loaded = load(ModelConfig(path=str(model), memory_budget=budget), StopFlag())
    assert asdict(loaded.plan) == plan | {"budget_bytes": budget}
    assert loaded.engine_info.kv_bytes == plan["kv_bytes"]
    assert loaded.engine_info.scratch_bytes == plan["scratch_bytes"]
    loaded.close()

    with daemon(folder, "--model", str(model), "--memory-budget", str(budget)) as service:
        service.wait_until_ready()
        with Client(service.socket) as client:
            status = client.status()
        assert status.memory is not None
        assert asdict(status.memory) == plan | {"budget_bytes": budget}
        assert service.stop() == 0
