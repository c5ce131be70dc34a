"""Loading a model with its layer that guesses: where it is used, and what the plan has of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from family_models import FAMILY_MODELS
from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.errors import LlamadError
from llamad.service.guess_layer import NAME
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.service.model_facts import facts_of
from tiny_gguf import TinyModelPath

CONFIG = ModelConfig(threads=2, ctx_size=256, batch=32, lock=False, kv_tokens=256)
SPEC = replace(FAMILY_MODELS["qwen35"], n_guess_layers=1, dim=256, hidden_dim=2048, delta_dim=64)
MIB = 1 << 20


@contextmanager
def _loaded(path: Path, config: ModelConfig = CONFIG) -> Iterator[LoadedModel]:
    model = load(replace(config, path=str(path)), StopFlag())
    try:
        yield model
    finally:
        model.close()


@pytest.fixture
def path(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(SPEC)


def test_the_layer_is_in_the_plan_where_it_is_used_only(
    path: Path, tiny_model_path: TinyModelPath
) -> None:
    without = tiny_model_path(replace(SPEC, n_guess_layers=0))
    off = replace(CONFIG, multi_token_prediction=False)
    with _loaded(path) as used, _loaded(path, off) as unused, _loaded(without) as plain:
        assert used.guess_layer is not None
        assert (used.draft, used.draft_name, used.draft_fault) == (None, NAME, "")
        assert facts_of(used).draft == NAME
        for model in (unused, plain):
            assert (model.guess_layer, model.draft_name, model.draft_fault) == (None, "", "")
        assert unused.plan.resident_bytes == plain.plan.resident_bytes
        assert unused.plan.kv_bytes == plain.plan.kv_bytes
        weights = used.info.weight_bytes - unused.info.weight_bytes
        assert used.plan.resident_bytes == unused.plan.resident_bytes + weights
        kv = used.engine_info.kv_bytes - unused.engine_info.kv_bytes
        states = used.n_states * used.info.state_bytes - unused.n_states * unused.info.state_bytes
        assert used.plan.kv_bytes == unused.plan.kv_bytes + kv + states
        assert min(weights, kv, states) > 0


def test_the_layer_never_lets_the_model_stream(path: Path) -> None:
    config = replace(CONFIG, memory_budget=256 * MIB)
    for _ in range(3):  # how many callers are served follows from the budget
        with _loaded(path, config) as model:
            assert model.guess_layer is not None
            plan, weights = model.plan, model.info.weight_bytes
        config = replace(config, memory_budget=plan.planned_bytes + plan.on_demand_bytes)
    assert config.memory_budget is not None
    with _loaded(path, replace(config, multi_token_prediction=False)) as model:
        weights -= model.info.weight_bytes
    config = replace(config, memory_budget=config.memory_budget - weights)
    with _loaded(path, config) as model:
        assert model.guess_layer is None
        assert model.plan.model_fits
        assert model.draft_name == NAME
        assert model.draft_fault == "no room for it beside the model"


def test_a_draft_takes_the_place_of_the_layer(path: Path, tiny_model_path: TinyModelPath) -> None:
    draft = tiny_model_path(replace(FAMILY_MODELS["llama"], n_layers=1, dim=32))
    with _loaded(path, replace(CONFIG, draft=str(draft))) as model:
        assert (model.guess_layer, model.draft_name) == (None, draft.stem)
        assert model.info.n_guess_layers == 0


def test_a_broken_layer_is_left_out_and_told(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes().replace(b"nextn.hnorm", b"nextn.gnorm"))
    with _loaded(broken) as model:
        assert model.guess_layer is None
        assert model.draft_name == NAME
        assert "tensor 'blk.4.nextn.hnorm.weight' is missing" in model.draft_fault
    assert "layer that guesses left out" in caplog.text
    missing = tmp_path / "missing.gguf"
    missing.write_bytes(path.read_bytes().replace(b"blk.0.ffn_up", b"blk.0.ffn_xp"))
    with (
        pytest.raises(LlamadError, match=r"tensor 'blk\.0\.ffn_up\.weight' is missing"),
        _loaded(missing),
    ):
        pass
