"""A key or a tensor of one family that cannot be is refused by its name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.feeding import random_tokens
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run
from tiny_gguf import Metadata, TinySpec, write_tiny_model

PATTERN = "gemma3.attention.sliding_window_pattern"
NAN, INF, HUGE = float("nan"), float("inf"), 2**31
BAD_KEYS: list[tuple[str, Metadata]] = [
    ("gemma3.attention.sliding_window", 2.5),
    ("gemma3.attention.sliding_window", 2**31),
    (PATTERN, 0),
    (PATTERN, 2000),
    (PATTERN, "six"),
    (PATTERN, [1, 0, 1]),
    (PATTERN, ["a", "b"]),
    ("gemma3.rope.freq_base_swa", 0.5),
    ("gemma3.final_logit_softcapping", float("nan")),
    ("gemma3.hidden_activation", "silu"),
    ("gemma3.attn_logit_softcapping", 50.0),
]


# Values that no key of a kind may have, by family.
NO_SCALE: tuple[Metadata, ...] = (0.0, -1.0, NAN, INF, "two", [1.0, 2.0], True)
NO_FACTOR: tuple[Metadata, ...] = (-1.0, NAN, INF, "two", [1.0])
NO_COUNT: tuple[Metadata, ...] = (2.5, HUGE, "two", [1, 2])
BAD_VALUES: dict[str, tuple[Metadata, ...]] = {
    "granite.embedding_scale": NO_SCALE,
    "granite.residual_scale": NO_SCALE,
    "granite.attention.scale": NO_SCALE,
    "granite.logit_scale": NO_SCALE,
    "granite.rope.scaling.finetuned": (1.0, "no", [True]),
    "minicpm.embedding_scale": NO_SCALE,
    "mistral3.attention.temperature_scale": NO_FACTOR,
    "mistral3.rope.scaling.yarn_log_multiplier": NO_FACTOR,
    "mistral3.rope.scaling.original_context_length": (0, *NO_COUNT),
    "exaone4.attention.sliding_window": NO_COUNT,
    "exaone4.attention.sliding_window_pattern": (0, "LLLG", [1, 0, 1]),
    "olmo2.attention.sliding_window": NO_COUNT,
    "olmo2.rope.freq_base_swa": (0.5, NAN, "big"),
    "qwen35.ssm.conv_kernel": (0, 1, 9, *NO_COUNT),
    "qwen35.ssm.state_size": (0, 4, 20, 512, *NO_COUNT),
    "qwen35.ssm.group_count": (0, 3, *NO_COUNT),
    "qwen35.ssm.time_step_rank": (0, *NO_COUNT),
    "qwen35.ssm.inner_size": (0, 63, *NO_COUNT),
    "qwen35.full_attention_interval": (0, 9, *NO_COUNT),
    "qwen35.attention.recurrent_layers": ([1, 1, 1], [1] * 5, ["a"] * 4),
    "qwen35.nextn_predict_layers": (4, *NO_COUNT),
    "granitehybrid.ssm.conv_kernel": (0, 1, 9, *NO_COUNT),
    "granitehybrid.ssm.state_size": (0, 1025, 1 << 31, *NO_COUNT),
    "granitehybrid.ssm.group_count": (0, 3, *NO_COUNT),
    "granitehybrid.ssm.time_step_rank": (0, 1025, *NO_COUNT),
    "granitehybrid.ssm.inner_size": (0, 8, 120, 124, 1 << 31, *NO_COUNT),
    "granitehybrid.attention.head_count_kv": ([0, 2], [0, 0, 0, 0], [0, 3, 3, 3]),
    "mamba2.attention.head_count": (1, *NO_COUNT),
    "mamba2.attention.head_count_kv": (1, [0, 0, 0], [0, 0, 0, 2], *NO_COUNT),
    "mamba2.feed_forward_length": (96, [0, 0, 0, 96], *NO_COUNT),
    "mamba2.ssm.conv_kernel": (0, 1, 9, *NO_COUNT),
    "mamba2.ssm.state_size": (0, 1025, *NO_COUNT),
    "mamba2.ssm.group_count": (0, 3, *NO_COUNT),
    "mamba2.ssm.time_step_rank": (0, 1025, *NO_COUNT),
    "mamba2.ssm.inner_size": (0, 8, 124, 1 << 31, *NO_COUNT),
    "falcon-h1.ssm.inner_size": (0, 124, 8 * 520, *NO_COUNT),
    "falcon-h1.attention.head_count_kv": ([0, 2, 2, 2], 0, 3),
    "lfm2.shortconv.l_cache": (0, 1, 9, *NO_COUNT),
    "lfm2.attention.head_count_kv": (
        *([0, 2], [0, 2, 2, 2, 2], [0, 0, 0, 0], [0, -1, 2, 2], [0, 3, 3, 3], [0, 2048, 2048, 0]),
        *([0.0, 1.5, 1.5, 0.0], ["a", "b", "c", "d"], 0, 3, *NO_COUNT[:3]),
    ),
}
BAD_VALUES |= {
    "phi3.attention.sliding_window": NO_COUNT,
    "phi3.rope.scaling.attn_factor": NO_SCALE,
    "phi3.rope.scaling.original_context_length": (0, *NO_COUNT),
    "phi3.rope.scaling.type": ("su", 1, ["longrope"]),
    "arcee.hidden_activation": ("silu", 2),
    "phi2.attention.layer_norm_epsilon": (*NO_SCALE, 2.0),
    "phi2.hidden_activation": ("silu",),
    "gptneox.use_parallel_residual": (1.0, "yes", [True]),
    "command-r.logit_scale": NO_SCALE,
    "cohere2.logit_scale": NO_SCALE,
    "cohere2.attention.sliding_window": NO_COUNT,
    "cohere2.attention.sliding_window_pattern": (0, 2000, "LLLG", [True]),
}
# A number for each layer, of a model that has two.
BAD_COUNTS: tuple[Metadata, ...] = ([2], [2, 2, 2], [0, 2], [3, 2], [2, -1], [1.5, 2.0], ["a", "b"])
RECURRENT = {
    "lfm2": (0,),
    "qwen35": (0, 1, 2),
    "granitehybrid": (0,),
    "mamba2": (0, 1, 2, 3),
}
REQUIRED_KEYS = (
    "granite.logit_scale",
    "command-r.logit_scale",
    "cohere2.logit_scale",
    "gptneox.use_parallel_residual",
    "phi2.attention.layer_norm_epsilon",
    "minicpm.embedding_scale",
    "minicpm.residual_scale",
    "minicpm.logit_scale",
)


def refusal(folder: Path, spec: TinySpec) -> str:
    with pytest.raises(EngineError) as caught:
        EngineModel(write_tiny_model(folder / "model.gguf", spec))
    return str(caught.value)


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, key: str) -> None:
    family = key.split(".")[0]
    for value in BAD_VALUES[key]:
        recurrent = RECURRENT.get(family, ())
        spec = TinySpec(
            architecture=family, window=8, n_layers=4, recurrent=recurrent, metadata={key: value}
        )
        assert f"'{key}'" in refusal(tmp_path, spec), value


@pytest.mark.parametrize("value", BAD_COUNTS, ids=str)
def test_sizes_by_layer_that_cannot_be_are_named(tmp_path: Path, value: Metadata) -> None:
    key = "llama.attention.head_count_kv"
    assert f"'{key}'" in refusal(tmp_path, TinySpec(metadata={key: value}))


def test_a_size_by_layer_that_does_not_fit_the_tensors_names_the_tensor(tmp_path: Path) -> None:
    spec = TinySpec(metadata={"llama.feed_forward_length": [96, 64]})
    assert "'blk.1.ffn_gate.weight' has shape" in refusal(tmp_path, spec)
    spec = TinySpec(metadata={"llama.attention.head_count_kv": [2, 4]})
    assert "'blk.1.attn_k.weight' has shape" in refusal(tmp_path, spec)
    spec = TinySpec(metadata={"llama.feed_forward_length": [96, 0]})
    assert "is 0 for layer 1, must be an integer, 1 to" in refusal(tmp_path, spec)


GEMMA4 = FAMILY_MODELS["gemma4"]
BAD_GEMMA4: dict[str, tuple[Metadata, ...]] = {
    "gemma4.attention.sliding_window": (0, *NO_COUNT),
    "gemma4.attention.sliding_window_pattern": ([1, 0, 1], [True] * 8, "six", 0),
    "gemma4.attention.key_length_swa": (0, 31, 1024, "two", [32] * 7),
    "gemma4.attention.value_length_swa": (64, 0),
    "gemma4.rope.dimension_count_swa": (0, 15, 34),
    "gemma4.attention.shared_kv_layers": (7, 6, HUGE, 1.5, [1]),
    "gemma4.attention.head_count_kv": ([2, 2, 2, 2, 2, 1, 2], [2] * 6, [2, 2, 2, 2, 2, 2, 0]),
    "gemma4.feed_forward_length": ([96] * 6, [0] * 7, [2**20] * 7),
    "gemma4.embedding_length_per_layer_input": (2**20, 1.5, "two"),
    "gemma4.final_logit_softcapping": (NAN, INF, -1.0),
    "gemma4.expert_count": (1025, HUGE, 1.5, "six"),
}
BAD_GEMMA4_SHAPES: dict[str, dict[str, Metadata]] = {  # keys that do not fit the tensor
    "blk.0.attn_q.weight": {"attention.key_length_swa": 40, "attention.value_length_swa": 40},
    "blk.2.attn_q.weight": {"attention.key_length": 128, "attention.value_length": 128},
    "blk.5.ffn_gate.weight": {"feed_forward_length": [96] * 7},
    "blk.0.inp_gate.weight": {"embedding_length_per_layer_input": 64},
    "rope_freqs.weight": {"rope.dimension_count": 32},
}


@pytest.mark.parametrize("key", BAD_GEMMA4)
def test_a_value_that_gemma_4_cannot_have_is_named(tmp_path: Path, key: str) -> None:
    for value in BAD_GEMMA4[key]:
        spec = replace(GEMMA4, metadata={key: value})
        assert f"'{key}'" in refusal(tmp_path, spec), value


@pytest.mark.parametrize("tensor", BAD_GEMMA4_SHAPES)
def test_a_size_of_gemma_4_that_does_not_fit_names_the_tensor(tmp_path: Path, tensor: str) -> None:
    keys = {f"gemma4.{key}": value for key, value in BAD_GEMMA4_SHAPES[tensor].items()}
    spec = replace(GEMMA4, metadata=keys)
    assert f"'{tensor}' has shape" in refusal(tmp_path, spec)


def test_a_window_pattern_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", GEMMA4)
    key = "gemma4.attention.sliding_window_pattern"
    path.write_bytes(path.read_bytes().replace(key.encode(), key[:-1].encode() + b"x"))
    with pytest.raises(EngineError, match=f"'{key}' is missing"):
        EngineModel(path)


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_a_key_that_a_family_needs_is_named(tmp_path: Path, key: str) -> None:
    family = key.split(".")[0]
    path = write_tiny_model(tmp_path / "model.gguf", TinySpec(architecture=family))
    path.write_bytes(path.read_bytes().replace(key.encode(), key[:-1].encode() + b"x"))
    with pytest.raises(EngineError, match=f"'{key}' is missing"):
        EngineModel(path)


@pytest.mark.parametrize(("key", "value"), BAD_KEYS)
def test_a_hostile_key_is_named(tmp_path: Path, key: str, value: Metadata) -> None:
    spec = TinySpec(architecture="gemma3", window=8, metadata={key: value})
    with pytest.raises(EngineError, match=f"'{key}'"):
        EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))


LONG = TinySpec(architecture="phi3", rope_scaling="longrope")
BAD_TENSORS: dict[str, tuple[TinySpec, bytes, bytes, str]] = {  # what becomes what in a file
    "no long factors": (LONG, b"factors_long", b"factors_lonG", "'rope_factors_long.weight' is mi"),
    "no short factors": (
        replace(LONG, metadata={"phi3.rope.scaling.type": "none"}),
        *(b"factors_short", b"factors_shorT", "'rope_factors_short.weight' is missing"),
    ),
    "no long factors, no type": (
        replace(LONG, metadata={"phi3.rope.scaling.type": "none"}),
        *(b"factors_long", b"factors_lonG", "'rope_factors_.*' has no place"),
    ),
    "other factors": (
        replace(LONG, metadata={"phi3.rope.dimension_count": 12}),
        *(b"", b"", r"'rope_factors_long.weight' has shape \(8, .*must be \(6, 1"),
    ),
    "factors of zero": (
        replace(LONG, rope_scaling_factor=0.0),
        *(b"", b"", "'rope_factors_long.weight': element 7 is 0, must be finite and > 0"),
    ),
    "no fused tensor": (
        TinySpec(architecture="phi3"),
        *(b"blk.1.attn_qkv", b"blk.1.attn_qkV", "'blk.1.attn_q.weight' is missing"),
    ),
    "fused of another width": (
        replace(TinySpec(architecture="phi3"), metadata={"phi3.attention.head_count_kv": 4}),
        *(b"", b"", r"'blk.0.attn_qkv.weight' has shape \(64, 128, .*must be \(64, 192"),
    ),
    "half a gate": (
        replace(TinySpec(architecture="phi3"), metadata={"phi3.feed_forward_length": 192}),
        *(b"", b"", r"'blk.0.ffn_up.weight' has shape \(64, 192, .*must be \(64, 384"),
    ),
    "a gate beside a fused one": (
        TinySpec(architecture="phi3"),
        *(b"blk.1.ffn_norm", b"blk.1.ffn_gate", "'blk.1.ffn_norm.weight' is missing"),
    ),
    "a norm without its bias": (
        TinySpec(architecture="starcoder2"),
        *(b"blk.1.ffn_norm.bias", b"blk.1.ffn_norm.biaS", "'blk.1.ffn_norm.bias' is missing"),
    ),
    "an output norm without its bias": (
        TinySpec(architecture="phi2"),
        *(b"output_norm.bias", b"output_norm.biaS", "'output_norm.bias' is missing"),
    ),
    "a second norm of a parallel layer": (
        TinySpec(architecture="cohere2", output_bias=True),
        *(b"blk.1.attn_output.bias", b"blk.1.ffn_norm.weights", "norm.weights' has no place"),
    ),
    "fused biases of another width": (
        TinySpec(architecture="gptneox", qkv_bias=True, n_kv_heads=2),
        *(b"attn_qkv.bias", b"attn_qkv.biaS", "'blk.0.attn_qkv.biaS' has no place"),
    ),
    "a gate where none is": (
        TinySpec(architecture="arcee", ffn_bias=True),
        *(b"blk.1.ffn_up.bias", b"blk.1.ffn_gate.bs", "'blk.1.ffn_gate.bs' has no place"),
    ),
}


@pytest.mark.parametrize("fault", BAD_TENSORS)
def test_a_tensor_that_cannot_be_is_named(tmp_path: Path, fault: str) -> None:
    spec, before, after, message = BAD_TENSORS[fault]
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    if before:
        path.write_bytes(path.read_bytes().replace(before, after))
    with pytest.raises(EngineError, match=message):
        EngineModel(path)


def test_the_context_chooses_the_factors_of_longrope(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", replace(LONG, rope_original_context=64))
    with EngineModel(path) as model:
        for n_ctx, long_rope in ((64, 0), (65, 1)):
            with Engine(model, n_threads=1, n_ctx=n_ctx) as engine:
                assert engine.info.long_rope == long_rope


@pytest.mark.parametrize("name", ["post_attention_norm", "post_ffw_norm", "attn_q_norm"])
def test_a_norm_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", TinySpec(architecture="gemma3"))
    tensor = f"blk.1.{name}.weight".encode()
    path.write_bytes(path.read_bytes().replace(tensor, tensor.replace(b"norm", b"gone")))
    with pytest.raises(EngineError, match=f"'blk.1.{name}.weight' is missing"):
        EngineModel(path)


def test_layers_that_guess_tokens_are_skipped(tmp_path: Path) -> None:
    spec = FAMILY_MODELS["qwen35"]
    tokens = random_tokens(1, 9)
    plain = write_tiny_model(tmp_path / "plain.gguf", spec)
    more: dict[str, Metadata] = {
        "qwen35.nextn_predict_layers": 1,
        "qwen35.attention.recurrent_layers": [1, 1, 1, 0, 0],
    }
    extra = replace(spec, n_layers=5, metadata=more)
    longer_path = write_tiny_model(tmp_path / "extra.gguf", extra)
    with EngineModel(plain) as model, EngineModel(longer_path) as longer:
        assert longer.info.n_layers == model.info.n_layers == 4
        assert longer.info.state_bytes == model.info.state_bytes
        assert longer.info.kv_bytes_per_token_f16 == model.info.kv_bytes_per_token_f16
        with Engine(longer, n_threads=1, n_ctx=32) as engine:
            engine.forward([Run(tokens, 0, (0,), 1)])
            assert all(np.isfinite(engine.logits(0)))
