"""Mixtures of experts: the choice, equal bits whatever is in memory, and files that cannot be.

That the formulas are right ``test_forward.py`` and ``bench.family_peer`` say, that a batch changes
no bit ``test_batch_invariance.py``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.feeding import Logits, feed, random_tokens
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Role
from llamad.memory.residency import choose_residency
from reference import forward, load
from tiny_gguf import TinySpec, _tensors, encode_gguf, metadata_of, write_tiny_model

QWEN = FAMILY_MODELS["qwen3moe"]
WIDE = replace(  # experts of several pages, in a type of the files that people run
    QWEN, dim=256, expert_dim=256, n_experts=16, n_experts_used=4, weight_type="Q4_K"
)
SPECS = (
    WIDE,
    replace(FAMILY_MODELS["lfm2moe"], weight_type="Q8_0"),
    replace(FAMILY_MODELS["qwen35moe"], weight_type="F16"),
    replace(FAMILY_MODELS["granitehybrid-moe"], weight_type="Q4_0"),
    replace(FAMILY_MODELS["gpt-oss"], weight_type="Q8_0"),
    replace(FAMILY_MODELS["gemma4-moe"], weight_type="Q8_0"),
)
TOKENS = random_tokens(3, 24)


def logits_of(path: Path, *, chunk: int = len(TOKENS)) -> Logits:
    with EngineModel(path) as model, Engine(model, n_threads=2, n_ctx=64, n_logits=64) as engine:
        return feed(engine, TOKENS, chunk=chunk)


def change_tensor(path: Path, name: str, values: np.ndarray) -> None:
    """Write other float32 values over a tensor of a file."""
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset))
        file.write(values.astype(np.float32).tobytes())


def router(path: Path, layer: int) -> np.ndarray:
    return np.array(load(path).weight(f"blk.{layer}.ffn_gate_inp.weight").values)


def test_of_equal_experts_those_of_lower_numbers_are_chosen(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", QWEN)
    for layer in range(QWEN.n_layers):
        change_tensor(path, f"blk.{layer}.ffn_gate_inp.weight", np.zeros((8, QWEN.dim)))
    tied = logits_of(path)
    for layer in range(QWEN.n_layers):  # so that the first three win, by as much as nothing
        bias = np.zeros((8, QWEN.dim))
        bias[3:] = -1e-30
        change_tensor(path, f"blk.{layer}.ffn_gate_inp.weight", bias)
    expected = forward(load(path), TOKENS)
    assert np.abs(tied - expected).max() < 1e-2 * expected.std()


def test_a_router_of_no_numbers_ends_the_step_all_the_same(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", QWEN)
    change_tensor(path, "blk.1.ffn_gate_inp.weight", np.full((8, QWEN.dim), np.nan))
    assert np.isnan(logits_of(path)).all()


def test_a_bias_chooses_and_does_not_weigh(tmp_path: Path) -> None:
    spec = FAMILY_MODELS["lfm2moe"]
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    before = logits_of(path)
    for layer in range(spec.n_dense_layers, spec.n_layers):
        bias = np.zeros(spec.n_experts)
        bias[-2:] = 100.0
        change_tensor(path, f"blk.{layer}.exp_probs_b.bias", bias)
    expected = forward(load(path), TOKENS)
    after = logits_of(path)
    assert np.abs(after - expected).max() < 1e-2 * expected.std()
    assert np.abs(after - before).max() > 0.1 * expected.std()


RESIDENCIES: Mapping[str, Callable[[Role, int], bool]] = {  # which extents stay, by role and number
    "every third expert": lambda role, i: role is not Role.EXPERT or i % 3 == 0,
    "no expert": lambda role, _: role is not Role.EXPERT,
    "vectors": lambda role, _: role is Role.VECTOR,
}


@pytest.mark.parametrize("stays", RESIDENCIES)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.architecture)
def test_what_is_in_memory_changes_no_bit(tmp_path: Path, spec: TinySpec, stays: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    expected = logits_of(path)
    with EngineModel(path) as model:
        resident = [RESIDENCIES[stays](e.role, i) for i, e in enumerate(model.extents())]
        model.set_residency(resident, 8 << 20, expert_slots=spec.n_experts)
        with Engine(model, n_threads=2, n_ctx=64, n_logits=64) as engine:
            for chunk in (len(TOKENS), 7, 1):
                assert np.array_equal(feed(engine, TOKENS, chunk=chunk), expected)


def test_experts_leave_first_and_never_stream(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", WIDE)
    with EngineModel(path) as model:
        extents, n_bytes = model.extents(), path.stat().st_size
    experts = sum(e.n_bytes for e in extents if e.role is Role.EXPERT)
    residency = choose_residency(extents, n_bytes, n_bytes - experts // 4)
    assert residency is not None
    assert residency.ring_bytes == residency.streamed_bytes == 0
    assert experts // 4 <= residency.expert_bytes <= experts // 2
    gone = {e.role for e, stays in zip(extents, residency.resident, strict=True) if not stays}
    assert gone == {Role.EMBEDDING, Role.EXPERT}


def test_a_token_reads_the_experts_that_it_uses(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", WIDE)
    with EngineModel(path) as model:
        experts = sum(e.n_bytes for e in model.extents() if e.role is Role.EXPERT)
        info = model.info
    unused = experts * (16 - 4) // 16
    embedding = WIDE.vocab_size - 1
    row = info.weight_bytes - unused - info.streamed_bytes
    assert row % embedding == 0  # of the embedding a row is read
    assert row // embedding < 1024


BAD = {
    "expert_count": (0, 3, 9, 1 << 31, 1025, "eight"),
    "expert_used_count": (0, 9, 1 << 31, "two"),
    "expert_feed_forward_length": (0, 48, 1 << 31),
    "expert_shared_feed_forward_length": (32,),
    "expert_gating_func": (0, 3, 9),
    "expert_weights_norm": (1, "yes"),
    "expert_weights_scale": (float("nan"), -1.0),
    "expert_group_count": (4,),
    "leading_dense_block_count": (4, 1),
    "moe_every_n_layers": (2,),
}


@pytest.mark.parametrize("key", BAD)
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, key: str) -> None:
    for value in BAD[key]:
        spec = replace(QWEN, metadata={f"qwen3moe.{key}": value})
        with pytest.raises(EngineError, match=rf"'qwen3moe\.{key}'|'blk\.0\.ffn_\w+\.weight'"):
            EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))


@pytest.mark.parametrize("name", ["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", QWEN)
    wrong = name[:-1] + "x"
    path.write_bytes(path.read_bytes().replace(f"blk.2.{name}".encode(), f"blk.2.{wrong}".encode()))
    with pytest.raises(EngineError, match=f"'blk.2.{name}.weight' is missing"):
        EngineModel(path)


GPT_OSS = FAMILY_MODELS["gpt-oss"]
GPT_OSS_KEYS = {
    "expert_count": (0, 4, 5, 7, 1 << 31, 1025, "six"),
    "expert_used_count": (0, 7, 1 << 31, "two"),
    "expert_feed_forward_length": (0, 48, 1 << 31),
    "expert_gating_func": (0, 1, 2, 4),
    "attention.sliding_window": ("wide", 1 << 31),
}


@pytest.mark.parametrize("key", GPT_OSS_KEYS)
def test_gpt_oss_refuses_a_size_that_cannot_be(tmp_path: Path, key: str) -> None:
    for value in GPT_OSS_KEYS[key]:
        spec = replace(GPT_OSS, metadata={f"gpt-oss.{key}": value})
        with pytest.raises(
            EngineError, match=rf"'gpt-oss\.{key}'|'blk\.0\.ffn_\w+\.(weight|bias)'"
        ):
            EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))


GPT_OSS_TENSORS = (
    *("attn_sinks.weight", "attn_k.bias", "post_attention_norm.weight", "ffn_gate_inp.bias"),
    *("ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias", "ffn_down_exps.weight"),
)


@pytest.mark.parametrize("name", GPT_OSS_TENSORS)
def test_gpt_oss_names_a_tensor_that_is_missing(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", GPT_OSS)
    content = path.read_bytes()
    path.write_bytes(content.replace(f"blk.2.{name}".encode(), f"blk.2.x{name[1:]}".encode()))
    with pytest.raises(EngineError, match=re.escape(f"'blk.2.{name}' is missing")):
        EngineModel(path)


GEMMA4 = FAMILY_MODELS["gemma4-moe"]
GEMMA4_TENSORS = (
    *("ffn_gate_inp.weight", "ffn_gate_inp.scale", "ffn_down_exps.scale", "ffn_gate.weight"),
    *("pre_ffw_norm_2.weight", "post_ffw_norm_1.weight", "post_ffw_norm_2.weight"),
)


@pytest.mark.parametrize("name", GEMMA4_TENSORS)
def test_gemma_4_names_a_tensor_that_is_missing(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", GEMMA4)
    content = path.read_bytes()
    path.write_bytes(content.replace(f"blk.2.{name}".encode(), f"blk.2.x{name[1:]}".encode()))
    with pytest.raises(EngineError, match=re.escape(f"'blk.2.{name}' is missing")):
        EngineModel(path)


@pytest.mark.parametrize("key", ["expert_count", "expert_used_count", "expert_feed_forward_length"])
def test_gemma_4_refuses_a_size_that_cannot_be(tmp_path: Path, key: str) -> None:
    for value in (0, 7, 48, 1 << 31, "six"):
        spec = replace(GEMMA4, metadata={f"gemma4.{key}": value})
        named = rf"'gemma4\.{key}'|'blk\.0\.ffn_\w+\.weight'|'gemma4\.expert_used_count'"
        with pytest.raises(EngineError, match=named):
            EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))


def test_a_sink_takes_what_attention_would_give(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", GPT_OSS)
    for sink in (1e4, -1e4, 0.0):  # everything, nothing, and a share
        for layer in range(GPT_OSS.n_layers):
            change_tensor(path, f"blk.{layer}.attn_sinks.weight", np.full(GPT_OSS.n_heads, sink))
        expected = forward(load(path), TOKENS)
        assert np.abs(logits_of(path) - expected).max() < 3e-2 * expected.std()


def test_biases_in_half_precision_are_read(tmp_path: Path) -> None:
    tensors = [
        replace(t, type_name="F16", data=np.frombuffer(t.data, np.float32).astype("<f2").tobytes())
        if t.name.endswith(".bias")
        else t
        for t in _tensors(GPT_OSS)
    ]
    path = tmp_path / "model.gguf"
    path.write_bytes(encode_gguf(metadata_of(GPT_OSS), tensors))
    expected = forward(load(path), TOKENS)
    assert np.abs(logits_of(path) - expected).max() < 3e-2 * expected.std()


def test_a_family_without_experts_refuses_them(tmp_path: Path) -> None:
    spec = TinySpec(architecture="qwen3", metadata={"qwen3.expert_count": 8})
    with pytest.raises(EngineError, match=r"'qwen3\.expert_count' is 8, which is not supported"):
        EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))
