"""Folders of families with layouts of their own: the oracle's logits, and what is refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from checkpoints.converting import convert, read_tensors, refused
from checkpoints.huggingface_folder import config_of, write_folder
from checkpoints.other_layouts import LAYOUTS, Layout, Named, Values
from engine.feeding import feed, random_tokens
from llamad.engine.bindings import Engine, EngineModel
from tiny_gguf import TinyModelPath

EXPERTS = {"intermediate_size": 64}
LOGITS_BOUND = 5e-4  # as in test_huggingface_folder.py


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def values_of(path: Path) -> dict[str, Values]:
    weights = reference.load(path).weights
    return {name: np.asarray(w.values, np.float32) for name, w in weights.items()}


def write(
    folder: Path,
    model_type: str,
    weights: Named,
    changes: Mapping[str, Any] | None = None,
    type_name: str = "F32",
) -> Path:
    """Write a folder; its config.json is that of the whole, where the family is part of one."""
    layout = LAYOUTS[model_type]
    config = config_of(layout.spec, model_type) | dict(layout.config) | dict(changes or {})
    if layout.wrapper is not None:
        weights = {**weights, "model.visual.patch_embed.proj.weight": np.ones((2, 3), np.float32)}
        config = {"model_type": layout.wrapper, "text_config": config, "vision_config": {}}
    return write_folder(folder, weights, config, type_name=type_name)


@pytest.mark.parametrize("model_type", LAYOUTS)
@pytest.mark.parametrize("type_name", ["F32", "BF16"])
def test_a_converted_model_has_the_oracles_logits(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, model_type: str, type_name: str
) -> None:
    layout = LAYOUTS[model_type]
    source = tiny_model_path(layout.spec)
    oracle, values = reference.load(source), values_of(source)
    path = convert(
        write(tmp_path / "theirs", model_type, layout.weights(values), type_name=type_name), out
    )
    if type_name == "BF16":
        oracle = reference.load(path)
    tokens = random_tokens(1, 24)
    expected = reference.forward(oracle, tokens, reference.engine_rounding("f16"))
    with EngineModel(path) as model, Engine(model, n_threads=1, n_ctx=32, n_logits=32) as engine:
        actual = feed(engine, tokens, chunk=24)
    error = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
    assert error.max() <= LOGITS_BOUND
    written = read_tensors(path)
    assert written.keys() == values.keys()
    for name, (_, converted) in written.items():
        assert converted.shape == values[name].shape
        bound = 0.02 if type_name == "BF16" else 1e-6
        size = np.maximum(1, np.abs(values[name]))
        assert np.all(np.abs(converted - values[name]) <= bound * size)


@pytest.mark.parametrize(
    ("model_type", "changes", "word"),
    [
        ("lfm2", {"conv_bias": True}, "conv_bias"),
        ("lfm2", {"layer_types": ["conv"] * 3}, "layer_types has 3 layers"),
        ("lfm2", {"layer_types": ["conv", "mamba", "conv", "conv"]}, "'mamba'"),
        ("lfm2", {"conv_L_cache": 0}, "conv_L_cache"),
        ("lfm2", {"num_hidden_layers": 1 << 31}, "num_hidden_layers"),
        ("lfm2", {"block_auto_adjust_ff_dim": True, "block_multiple_of": 0}, "block_multiple_of"),
        ("granitemoehybrid", {"num_local_experts": 64}, "intermediate_size is None"),
        ("granitemoehybrid", {"num_local_experts": 1 << 31, **EXPERTS}, "num_local_experts is"),
        ("granitemoehybrid", {"num_local_experts": "none", **EXPERTS}, "num_local_experts is"),
        ("granitemoehybrid", {"num_local_experts": 1, **EXPERTS}, "num_experts_per_tok is 2"),
        ("granitemoehybrid", {"num_local_experts": 8, **EXPERTS}, "ffn_gate_inp.weight is missing"),
        ("falcon_h1", {"mamba_d_ssm": 100}, "mamba_d_ssm 100"),
        ("falcon_h1", {"mamba_d_ssm": 1 << 33}, "mamba_d_ssm"),
        ("falcon_h1", {"mamba_n_groups": 3}, "mamba_n_groups 3"),
        ("falcon_h1", {"mamba_d_head": 17}, "are not 128 elements"),
        ("falcon_h1", {"mamba_conv_bias": False}, "mamba_conv_bias"),
        ("falcon_h1", {"projectors_bias": True}, "projectors_bias"),
        ("falcon_h1", {"mamba_rms_norm": True}, "mamba_norm_before_gate"),
        ("falcon_h1", {"attention_bias": True}, "attn_q.bias is missing"),
        ("falcon_h1", {"key_multiplier": float("nan")}, "key_multiplier"),
        ("falcon_h1", {"ssm_in_multiplier": "big"}, "ssm_in_multiplier"),
        ("falcon_h1", {"embedding_multiplier": 1e9}, "embedding_multiplier"),
        ("falcon_h1", {"mlp_multipliers": [1.0]}, "mlp_multipliers"),
        ("falcon_h1", {"ssm_multipliers": [1.0, 2.0, 3.0, 4.0, True]}, "ssm_multipliers"),
        ("falcon_h1", {"ssm_multipliers": 2.0}, "ssm_multipliers"),
        ("granitemoehybrid", {"layer_types": ["conv"] * 4}, "'conv'"),
        ("granitemoehybrid", {"mamba_n_heads": 0}, "mamba_n_heads"),
        ("granitemoehybrid", {"mamba_n_groups": 3}, "mamba_n_groups 3"),
        ("granitemoehybrid", {"mamba_d_head": 17}, "are not 128 elements"),
        ("granitemoehybrid", {"mamba_d_state": 1 << 31}, "mamba_d_state"),
        ("granitemoehybrid", {"mamba_d_conv": "four"}, "mamba_d_conv"),
        ("granitemoehybrid", {"mamba_conv_bias": False}, "mamba_conv_bias"),
        ("granitemoehybrid", {"mamba_proj_bias": True}, "mamba_proj_bias"),
        ("granitemoehybrid", {"time_step_limit": [0.1, 9.0]}, "time_step_limit"),
        ("granitemoehybrid", {"time_step_limit": 3}, "time_step_limit"),
        ("granitemoehybrid", {"shared_intermediate_size": -1}, "shared_intermediate_size"),
        ("mamba2", {"use_bias": True}, "use_bias"),
        ("mamba2", {"num_heads": 0}, "num_heads"),
        ("mamba2", {"state_size": 1 << 31}, ": state_size"),
        ("mamba2", {"use_conv_bias": False}, "use_conv_bias"),
        ("mamba2", {"head_dim": 24}, "are not 128 elements"),
        ("mamba2", {"n_groups": 3}, ": n_groups 3 does not divide"),
        ("mamba2", {"time_step_limit": [0.0, 1.0]}, "time_step_limit"),
        ("qwen3_5_text", {"linear_value_head_dim": 32}, "linear_value_head_dim 32"),
        ("qwen3_5_text", {"linear_num_value_heads": 3}, "linear_num_value_heads 3"),
        ("qwen3_5_text", {"linear_num_value_heads": 1 << 31}, "linear_num_value_heads"),
        ("qwen3_5_text", {"layer_types": "all"}, "layer_types"),
        ("qwen3_5_text", {"attention_bias": True}, "attention_bias"),
        ("qwen3_5_text", {"full_attention_interval": 0}, "full_attention_interval"),
        ("qwen3_5_text", {"rope_parameters": {"mrope_section": "all"}}, "mrope_section"),
        ("gemma4_text", {"enable_moe_block": True}, "enable_moe_block"),
        ("gemma4_text", {"num_kv_shared_layers": 7}, "num_kv_shared_layers"),
        ("gemma4_text", {"num_kv_shared_layers": "two"}, "num_kv_shared_layers"),
        ("gemma4_text", {"vocab_size_per_layer_input": 299}, "vocab_size_per_layer_input"),
        ("gemma4_text", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ("gemma4_text", {"per_layer_config": {"2": {"head_dim": 32}}}, "per_layer_config"),
        ("gemma4_text", {"per_layer_config": {"2": 64}}, "per_layer_config"),
        ("gemma4_text", {"sliding_window": 0}, "sliding_window"),
        ("ministral3", {"rope_parameters": "yarn"}, "rope_scaling"),
        ("exaone4", {"sliding_window_pattern": "LLG"}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window": None, "layer_types": ["sliding_attention"]}, "layer_types"),
        ("hunyuan_v1_dense", {"use_cla": True}, "use_cla"),
        ("hunyuan_v1_dense", {"use_qk_norm": False}, "use_qk_norm"),
        ("hunyuan_v1_dense", {"rope_scaling": {"type": "dynamic", "alpha": -1}}, "alpha"),
        ("internlm2", {"bias": True}, "bias"),
        ("minicpm", {"dim_model_base": 0}, "dim_model_base"),
        ("olmo3", {"layer_types": ["sliding_attention"] * 5}, "layer_types"),
        ("qwen2_vl_text", {"rope_scaling": {"type": "mrope"}}, "mrope_section"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("phi", {"hidden_act": "gelu"}, "hidden_act"),
        ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm"),
        ("starcoder2", {"norm_epsilon": -1}, "norm_epsilon"),
        ("gpt_neox", {"use_parallel_residual": "no"}, "use_parallel_residual"),
        ("gpt_neox", {"num_attention_heads": 1 << 30}, "heads"),
        ("cohere", {"use_qk_norm": True}, "use_qk_norm"),
        ("cohere", {"logit_scale": "big"}, "logit_scale"),
        ("cohere2", {"sliding_window": -4}, "sliding_window"),
    ],
)
def test_what_a_file_cannot_say_is_refused_by_name(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    model_type: str,
    changes: dict[str, Any],
    word: str,
) -> None:
    layout = LAYOUTS[model_type]
    weights = layout.weights(values_of(tiny_model_path(layout.spec)))
    folder = write(tmp_path / "theirs", model_type, weights, changes)
    message = refused(capsys, folder, out)
    assert word in message
    assert str(folder) in message


def _drop(weights: dict[str, Values], name: str) -> None:
    del weights[name]


def _widen(weights: dict[str, Values], name: str) -> None:
    weights[name] = np.concatenate([weights[name], weights[name][:1]])


def _narrow(weights: dict[str, Values], name: str) -> None:
    weights[name] = np.ascontiguousarray(weights[name][..., :-1])


@pytest.mark.parametrize("spoil", [_drop, _widen, _narrow], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("model_type", LAYOUTS)
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    model_type: str,
    spoil: Callable[[dict[str, Values], str], None],
) -> None:
    layout = LAYOUTS[model_type]
    original = layout.weights(values_of(tiny_model_path(layout.spec)))
    inner = [name for name in original if f"{layout.prefix.split('.', 1)[1]}.0." in name]
    for name in [name for name in inner if original[name].ndim > 1 or spoil is _drop]:
        weights = dict(original)
        spoil(weights, name)
        message = refused(capsys, write(tmp_path / "theirs", model_type, weights), out)
        assert "blk.0." in message or name in message
        assert str(tmp_path / "theirs") in message


def test_a_tensor_that_is_there_twice_is_refused(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    layout: Layout = LAYOUTS["ministral3"]
    weights = layout.weights(values_of(tiny_model_path(layout.spec)))
    weights["model.norm.weight"] = weights["model.language_model.norm.weight"]
    message = refused(capsys, write(tmp_path / "theirs", "ministral3", weights), out)
    assert "model.language_model.norm.weight" in message


def test_a_whole_model_without_its_text_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (None, "all", 7):
        config: dict[str, Any] = {"model_type": "gemma4", "text_config": text}
        folder = write_folder(tmp_path / "theirs", {"a": np.ones(2, np.float32)}, config)
        assert "text_config" in refused(capsys, folder, out)
