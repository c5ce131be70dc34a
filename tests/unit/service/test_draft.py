"""Loading a draft beside its model: what keeps it out, and where its memory stands in the plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad.engine.bindings import EngineModel, StopFlag
from llamad.engine.drafting import DraftChunk
from llamad.engine.info import Role
from llamad.errors import LlamadError
from llamad.gguf.value import MetadataValue
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.text.same_vocabulary import MAX_PADDING, check_vocabulary
from tiny_gguf import TinyModelPath, TinySpec

CONFIG = ModelConfig(threads=2, ctx_size=256, batch=32, lock=False)
SMALL = TinySpec(n_layers=1, dim=32, seed=2)
MIB = 1 << 20


@contextmanager
def _loaded(path: Path, draft: Path | str, config: ModelConfig = CONFIG) -> Iterator[LoadedModel]:
    model = load(replace(config, path=str(path), draft=str(draft)), StopFlag())
    try:
        yield model
    finally:
        model.close()


@pytest.fixture
def tiny(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(TinySpec())


@pytest.fixture
def small(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(SMALL)


def test_a_draft_is_in_the_plan_with_a_block_for_each_of_the_models(
    tiny: Path, small: Path
) -> None:
    with _loaded(tiny, "") as alone:
        assert (alone.draft, alone.draft_name, alone.draft_fault) == (None, "", "")
        assert alone.plan.draft_bytes == 0
    with _loaded(tiny, small) as model:
        draft = model.draft
        assert draft is not None
        assert (model.draft_name, model.draft_fault) == (small.stem, "")
        assert draft.kv_blocks_total == model.kv_blocks_total
        assert (draft.n_ctx, draft.n_batch) == (256, 64)
        engine = draft.engine.info
        taken = draft.model.info.file_bytes + engine.scratch_bytes + engine.kv_bytes
        assert taken <= model.plan.draft_bytes <= taken + 2 * MIB  # and a sampler
        assert model.plan.planned_bytes > alone.plan.planned_bytes + taken
        assert model.guess_rows == 16
        before = model.progress
        draft.run([DraftChunk((1, 2), 0, (0,), most=1)])
        assert model.progress > before  # as the watchdog sees it


def test_a_draft_may_be_named_as_a_model_of_the_directory(tiny: Path, small: Path) -> None:
    config = replace(CONFIG, directory=str(small.parent))
    with _loaded(tiny, small.stem, config) as model:
        assert model.draft is not None
        assert model.draft.path == small


def test_a_draft_with_a_shorter_training_has_a_shorter_context(
    tiny: Path, tiny_model_path: TinyModelPath
) -> None:
    short = tiny_model_path(replace(SMALL, n_ctx_train=64))
    with _loaded(tiny, short) as model:
        assert model.draft is not None
        assert (model.n_ctx, model.draft.n_ctx) == (256, 64)


def test_a_wrong_draft_is_left_out_and_told(
    tiny: Path,
    tmp_path: Path,
    tiny_model_path: TinyModelPath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = tiny_model_path(replace(SMALL, vocab_size=300 + MAX_PADDING + 1))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    wrong = {
        tmp_path / "missing.gguf": "missing.gguf does not exist",
        broken: "broken.gguf",
        other: f"{other.stem} has another vocabulary than {tiny.stem}: {300 + MAX_PADDING + 1} t",
    }
    for path, message in wrong.items():
        caplog.clear()
        with _loaded(tiny, path) as model:
            assert model.draft is None
            assert message in model.draft_fault
            assert model.draft_name == str(path)
            assert (model.plan.draft_bytes, model.guess_rows) == (0, 8)
        assert "draft left out" in caplog.text


@pytest.fixture
def large(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(TinySpec(dim=512, hidden_dim=2048, n_layers=6))


def test_a_model_is_no_draft_of_itself(tiny: Path) -> None:
    with _loaded(tiny, tiny) as model:
        assert (model.draft, model.draft_name, model.draft_fault) == (None, "", "")


def test_a_draft_never_pushes_a_model_out_of_memory(large: Path, small: Path) -> None:
    config = replace(CONFIG, memory_budget=256 * MIB, kv_tokens=1024)
    for _ in range(3):  # how many callers are served follows from the budget
        with _loaded(large, small, config) as model:
            plan = model.plan
            assert model.draft is not None
        config = replace(config, memory_budget=plan.planned_bytes + plan.on_demand_bytes)
    assert config.memory_budget is not None
    config = replace(config, memory_budget=config.memory_budget - plan.draft_bytes // 2)
    with _loaded(large, small, config) as model:
        assert model.draft is None
        assert model.plan.model_fits
        assert f"no room for {small.stem}: with its " in model.draft_fault


def test_beside_a_draft_a_large_model_streams_what_is_left(large: Path, small: Path) -> None:
    with EngineModel(large) as model:
        feeds = sum(e.n_bytes for e in model.extents() if e.role is Role.FEED)
    config = replace(CONFIG, kv_tokens=256)
    with _loaded(large, "", replace(config, memory_budget=256 * MIB)) as model:
        budget = model.plan.planned_bytes - feeds // 2
    config = replace(config, memory_budget=budget)
    with _loaded(large, "", config) as alone, _loaded(large, small, config) as model:
        assert model.draft is not None
        assert alone.plan.streamed_bytes > 0
        assert model.plan.streamed_bytes >= alone.plan.streamed_bytes
        less = (alone.plan.room_bytes or 0) - (model.plan.room_bytes or 0)
        assert model.plan.draft_bytes <= less <= model.plan.draft_bytes + MIB  # and some logits
        assert model.plan.planned_bytes <= budget
        lower = model.plan_again(budget - 2 * MIB)
        assert lower.draft_bytes == model.plan.draft_bytes > 0


def test_a_draft_that_lets_the_model_read_much_more_is_left_out(
    large: Path, tiny_model_path: TinyModelPath
) -> None:
    draft = tiny_model_path(TinySpec(dim=512, hidden_dim=2048, n_layers=2, seed=2))
    config = replace(CONFIG, kv_tokens=256, memory_budget=256 * MIB)
    with _loaded(large, "", config) as model:
        plan = model.plan
    for streamed, used in ((4 * MIB, False), (40 * MIB, True)):
        config = replace(config, memory_budget=plan.planned_bytes - streamed)
        with _loaded(large, draft, config) as model:
            assert (model.draft is not None) == used
            assert model.plan.streamed_bytes > 0
            assert used or "would be read for every token instead of" in model.draft_fault


def _vocabulary(*tokens: str) -> dict[str, MetadataValue]:
    return {"tokenizer.ggml.tokens": list(tokens)}


def test_a_vocabulary_may_only_differ_in_padding() -> None:
    ours = _vocabulary("a", "b", "c")
    check_vocabulary("large", ours, "small", ours)
    check_vocabulary("large", ours, "small", _vocabulary("a", "b", "c", *["pad"] * MAX_PADDING))
    check_vocabulary("large", _vocabulary("a", "b", "c", *["pad"] * MAX_PADDING), "small", ours)
    with pytest.raises(LlamadError, match=r"small has .* than large: token 1 is 'x', not 'b'"):
        check_vocabulary("large", ours, "small", _vocabulary("a", "x", "c"))
    with pytest.raises(LlamadError, match="small has another vocabulary than large: 0 tokens"):
        check_vocabulary("large", _vocabulary(*["a"] * (MAX_PADDING + 1)), "small", {})
