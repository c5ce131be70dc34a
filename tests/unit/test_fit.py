"""The arithmetic of ``llamad fit``: what it recommends for known machines, and why."""

from functools import cache
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad.errors import ErrorKind, LlamadError
from llamad_tools.advice.choice import Memory
from llamad_tools.advice.recommendation import BOARD_BANDWIDTH, SYSTEM_BYTES, Fit, fit
from llamad_tools.advice.report import Subject, summary
from llamad_tools.advice.shape import ModelShape, describe_shape
from llamad_tools.quantize.mixes import MIXES
from unit.llama_shapes import llama_shape

MIB, GIB = 1 << 20, 1 << 30


@cache
def llama_7b() -> ModelShape:
    return llama_shape(32, 4096, 11008, 32, pieces=False)


def fit_machine(memory: int, context: int | None = None) -> Fit:
    return fit(llama_7b(), memory - SYSTEM_BYTES, context=context)


@pytest.mark.parametrize(
    ("memory", "context", "mix"),
    [
        (4 * GIB, None, "Q3_K_M"),
        (4 * GIB, 1024, "Q3_K_S"),  # the cache takes what the better mix needs
        (4_000_000_000, None, "Q3_K_S"),
        (8 * GIB, None, "Q5_K_M"),
        (8_000_000_000, 2048, "Q5_K_M"),
        (64 * GIB, None, "Q5_K_M"),  # more bits only cost speed
    ],
)
def test_the_recommendation_for_llama_7b(memory: int, context: int | None, mix: str) -> None:
    advice = fit_machine(memory, context).recommendation
    assert (advice.action, advice.mix) == ("quantize", mix)
    assert (context or 512) <= advice.context <= 2048


def test_the_reason_names_the_loss_and_what_the_next_mix_lacks() -> None:
    reason = fit_machine(4 * GIB).recommendation.reason
    assert "loses the least of what stays in memory with 512 tokens" in reason
    assert "Q3_K_L lacks 241 MiB" in reason
    assert "a model of half the size" in reason
    assert "half the size" not in fit_machine(8 * GIB).recommendation.reason


def test_where_nothing_fits_nothing_is_recommended() -> None:
    advice = fit_machine(2 * GIB).recommendation
    assert (advice.mix, advice.context) == (None, 0)
    assert "the smallest, Q3_K_S, lacks 16" in advice.reason


def test_one_byte_less_than_needed_is_too_little() -> None:
    shape = llama_7b()
    result = fit(shape, 64 * GIB)
    sizes = {mix.name: mix.file_bytes for mix in result.mixes}
    fixed = result.fixed_bytes + result.kv_bytes[512]["q8_0"]
    assert fit(shape, fixed + sizes["Q5_K_M"]).recommendation.mix == "Q5_K_M"
    assert fit(shape, fixed + sizes["Q5_K_M"] - 1).recommendation.mix == "Q5_K_S"


def test_what_nobody_measured_is_listed_but_never_recommended() -> None:
    shape = llama_7b()
    result = fit(shape, 64 * GIB)
    mixes = {mix.name: mix for mix in result.mixes}
    needed = result.fixed_bytes + result.kv_bytes[512]["q8_0"]
    tight = fit(shape, needed + mixes["IQ4_XS"].file_bytes)
    assert mixes["IQ4_XS"].loss is None
    assert {mix.name: mix for mix in tight.mixes}["IQ4_XS"].resident_context["q8_0"]
    assert tight.recommendation.mix == "Q3_K_L"


@pytest.mark.parametrize(("kv_type", "kib_a_token"), [("f16", 512), ("q8_0", 272), ("q4_0", 144)])
def test_the_kv_cache_of_llama_7b(kv_type: str, kib_a_token: int) -> None:
    result = fit_machine(4 * GIB)
    assert {n: kv[kv_type] for n, kv in result.kv_bytes.items()} == {
        n: kib_a_token * 1024 * n for n in (512, 1024, 2048, 4096)
    }


def test_published_sizes_and_speeds() -> None:
    """Files of LLaMA-7B in GiB as llama.cpp's quantize printed them; 4.5 GB/s / bytes streamed."""
    mixes = {mix.name: mix for mix in fit_machine(4 * GIB).mixes}
    published = {"Q3_K_S": 2.75, "Q3_K_M": 3.07, "Q4_0": 3.56, "Q4_K_M": 3.80, "Q6_K": 5.15}
    for name, gib in published.items():
        assert mixes[name].file_bytes / GIB == pytest.approx(gib, rel=0.01), name
    assert mixes["Q4_0"].tokens_per_second["Pi 4"] == pytest.approx(1.20, abs=0.02)
    assert mixes["Q3_K_S"].tokens_per_second["Pi 5"] == pytest.approx(3.6, abs=0.1)


def test_the_resident_context_is_what_is_left_and_at_most_the_trained() -> None:
    result = fit_machine(4 * GIB)
    mixes = {mix.name: mix for mix in result.mixes}
    assert mixes["Q4_0"].resident_context == {"f16": 0, "q8_0": 0}
    left = result.budget_bytes - result.fixed_bytes - mixes["Q3_K_M"].file_bytes
    assert mixes["Q3_K_M"].resident_context["f16"] == left // (512 << 10) // 32 * 32
    assert fit_machine(64 * GIB).mixes[-1].resident_context == {"f16": 2048, "q8_0": 2048}


@pytest.mark.parametrize(
    ("memory", "context", "settings"),
    [
        (4 * GIB, None, {"kv_type": "q8_0"}),
        (4 * GIB, 1024, {}),
        (8 * GIB, None, {}),
        (8 * GIB, 2000, {}),
    ],
)
def test_with_the_settings_the_service_keeps_the_model_resident(
    memory: int, context: int | None, settings: dict[str, object]
) -> None:
    result = fit_machine(memory, context)
    assert result.settings is not None
    assert result.plan is not None
    assert result.plan.n_ctx == result.recommendation.context
    assert result.settings == settings
    [size] = (mix.file_bytes for mix in result.mixes if mix.name == result.recommendation.mix)
    assert result.plan.resident_bytes + result.plan.on_demand_bytes == size
    assert (result.plan.model_fits, result.plan.streamed_bytes) == (True, 0)
    assert result.plan.planned_bytes <= result.budget_bytes


def test_without_the_settings_llama_7b_does_not_stay_on_4_gb() -> None:
    result = fit_machine(4 * GIB)
    defaults = ModelConfig(memory_budget=result.budget_bytes)
    assert result.recommendation.mix is not None
    plan = llama_7b().plan(MIXES[result.recommendation.mix], defaults)
    assert not plan.model_fits
    assert (plan.n_ctx, plan.kv_blocks) == (512, 16)  # one context, of the least length
    assert 0 <= result.budget_bytes - plan.planned_bytes < 4 << 20  # an extent


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 16, 64])
def test_the_report_fits_a_terminal(gib: int) -> None:
    budget = gib * GIB - SYSTEM_BYTES
    bandwidths = {**BOARD_BANDWIDTH, "here": 12e9}
    memory = Memory(budget, machine=gib * GIB)
    subject = Subject(Path("llama-7b"), llama_7b(), memory, bandwidths, True, None)
    result = fit(llama_7b(), budget, bandwidths=bandwidths)
    lines = list(summary(subject, result, []))
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("best ") for line in lines) == (gib > 2)


def test_a_faster_way_is_worth_a_row_and_a_closer_one_loses_less() -> None:
    ways = {way.name: way for way in fit_machine(8 * GIB).ways}
    assert [way.what for way in ways.values()] == ["Q5_K_M", "Q4_K_M", "Q6_K"]
    assert ways["faster"].file_bytes < 0.9 * ways["best"].file_bytes
    losses = [ways[name].loss for name in ("closer", "best", "faster")]
    highs = [loss.high for loss in losses if loss is not None]
    assert highs == sorted(highs)
    assert len(highs) == 3


def test_nothing_is_set_where_nothing_fits() -> None:
    result = fit_machine(2 * GIB)
    assert (result.settings, result.plan) == (None, None)


def test_a_context_beyond_the_trained_is_refused() -> None:
    with pytest.raises(LlamadError, match="more than the model's context of 2048"):
        fit_machine(8 * GIB, 4096)


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight"])
def test_a_file_without_a_matrix_is_refused_by_its_name(name: str) -> None:
    shape = llama_7b()
    rest = [tensor for tensor in shape.tensors if tensor.name != name]
    with pytest.raises(LlamadError) as caught:
        fit(describe_shape(shape.entries, rest), 8 * GIB)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.CORRUPT, "MODEL_CORRUPT")
    assert caught.value.message == f"tensor '{name}' is missing"
