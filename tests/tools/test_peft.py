"""Converted PEFT folders have the logits that peft itself computes.

``tests/peft_folders.py`` makes the folders, in an environment of its own: ``make transformers``.
"""

from pathlib import Path

import numpy as np
import pytest

from engine.test_adapters import feed
from llamad.__main__ import main
from llamad.engine.bindings import MAX_RANK, Adapter, AdapterUse, Engine, EngineModel
from tools.test_transformers import BOUND, Logits, converted, logits_of, row_error

FOLDERS = Path(__file__).resolve().parents[2] / "build" / "peft"
NAMES = sorted(path.name for path in FOLDERS.glob("*"))
EXPERTS = ("mixtral.every",)  # as peft finds them among the linear layers
NO_FILE = ("falcon-h1", "gemma4", "granitehybrid")  # bases that must be a folder

if not NAMES:
    pytest.skip(f"no {FOLDERS}: make transformers writes it", allow_module_level=True)


def adapter_of(name: str, base: Path, out: Path) -> int:
    """Convert a folder by the command; return what it returns."""
    return main(["convert", str(FOLDERS / name), str(out), "--base", str(base)])


def logits(model_path: Path, adapter: Path | None, tokens: list[int]) -> Logits:
    """Return what the engine computes."""
    with (
        EngineModel(model_path) as model,
        Engine(model, n_threads=1, n_ctx=64, n_batch=64, n_logits=64) as engine,
    ):
        if adapter is None:
            return feed(engine, None, tokens=tokens)
        engine.reserve_adapters(MAX_RANK)
        with Adapter(model, adapter) as opened:
            return feed(engine, AdapterUse(opened), tokens=tokens)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXPERTS])
def test_a_converted_adapter_has_the_logits_of_peft(tmp_path: Path, name: str) -> None:
    base = name.partition(".")[0]
    model = converted(base, tmp_path)
    plain, tokens = logits_of(base)
    expected = np.load(FOLDERS / name / "logits.npy")
    assert row_error(plain, expected) > 0.1, "the adapter changes next to nothing"
    for source in (tmp_path / base, model):
        if source == model and base in NO_FILE:
            continue
        out = tmp_path / "adapter.gguf"
        assert adapter_of(name, source, out) == 0
        assert row_error(logits(model, out, tokens), expected) <= BOUND
        out.unlink()


@pytest.mark.parametrize("name", [name for name in NAMES if name in EXPERTS])
def test_adapters_of_experts_are_refused_by_name(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = name.partition(".")[0]
    converted(base, tmp_path)
    assert adapter_of(name, tmp_path / base, tmp_path / "adapter.gguf") == 1
    assert "target_parameters" in capsys.readouterr().err
