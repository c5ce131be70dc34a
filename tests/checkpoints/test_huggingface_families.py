"""Hugging Face folders of families other than llama: the oracle's logits, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from checkpoints.converting import convert, read_tensors, refused
from checkpoints.huggingface_folder import config_of, their_weights, write_folder
from engine.feeding import feed, random_tokens
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineModel
from tiny_gguf import TinyModelPath, TinySpec

LOGITS_BOUND = 5e-4  # as in test_huggingface_folder.py

SPEC = TinySpec(architecture="qwen2", qkv_bias=False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


GRANITE = {  # theirs: ours
    "embedding_multiplier": "granite.embedding_scale",
    "residual_multiplier": "granite.residual_scale",
    "attention_multiplier": "granite.attention.scale",
    "logits_scaling": "granite.logit_scale",
}
GEMMA = {"hidden_act": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32, "sliding_window": 8}
WINDOWS = replace(SPEC, head_dim=32, n_layers=7, tied_output=True, window=8)
FAMILIES: dict[str, tuple[TinySpec, dict[str, Any]]] = {
    "gemma": (replace(WINDOWS, architecture="gemma", window=None), {"hidden_act": "gelu"}),
    "gemma2": (replace(WINDOWS, architecture="gemma2"), GEMMA),
    "gemma3_text": (
        replace(WINDOWS, architecture="gemma3", rope_freq_base=1e6),
        GEMMA | {"rope_local_base_freq": 10000.0},
    ),
    "smollm3": (replace(SPEC, architecture="smollm3", n_layers=5), {"no_rope_layer_interval": 4}),
    "granite": (FAMILY_MODELS["granite"], {}),
    "ernie4_5": (replace(SPEC, architecture="ernie4_5"), {}),
    "olmo2": (replace(SPEC, architecture="olmo2"), {}),
    "seed_oss": (replace(SPEC, architecture="seed_oss", qkv_bias=True), {"attention_bias": True}),
    "arcee": (replace(SPEC, architecture="arcee"), {"hidden_act": "relu2"}),
    "phi3": (replace(SPEC, architecture="phi3", window=8), {"sliding_window": 8}),
}


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("type_name", ["F32", "BF16"])
def test_a_converted_model_of_each_family_has_the_oracles_logits(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, model_type: str, type_name: str
) -> None:
    spec, changes = FAMILIES[model_type]
    config = config_of(spec, model_type) | changes
    if model_type == "granite":
        config |= {theirs: spec.metadata[ours] for theirs, ours in GRANITE.items()}
    source = tiny_model_path(replace(spec, weight_type="BF16" if type_name == "BF16" else "F32"))
    oracle = reference.load(source)
    values = {name: np.asarray(w.values, np.float32) for name, w in oracle.weights.items()}
    weights = their_weights(values, spec.architecture, spec.resolved_head_dim)
    folder = write_folder(tmp_path / "theirs", weights, config, type_name=type_name)
    path = convert(folder, out)
    if type_name == "BF16":  # which vectors lose bits in
        oracle = reference.load(path)
    tokens = random_tokens(1, 24)
    expected = reference.forward(oracle, tokens, reference.engine_rounding("f16"))
    with EngineModel(path) as model, Engine(model, n_threads=1, n_ctx=32, n_logits=32) as engine:
        actual = feed(engine, tokens, chunk=24)
    error = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
    assert error.max() <= LOGITS_BOUND
    for name, value in read_tensors(path).items():
        assert value[1].shape == values[name].shape
        assert np.abs(value[1] - values[name]).max() <= 0.02


@pytest.mark.parametrize(
    ("model_type", "changes", "word"),
    [
        ("gemma2", GEMMA | {"query_pre_attn_scalar": 48}, "query_pre_attn_scalar 48"),
        ("gemma2", GEMMA | {"sliding_window": "all"}, "sliding_window"),
        ("gemma3_text", GEMMA | {"sliding_window_pattern": 4}, "sliding_window_pattern 4"),
        ("gemma3_text", GEMMA | {"layer_types": ["full_attention"] * 7}, "layer_types"),
        ("gemma3_text", GEMMA | {"use_bidirectional_attention": True}, "use_bidirectional"),
        ("gemma3_text", GEMMA | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("smollm3", {"no_rope_layer_interval": 3}, "no_rope_layer_interval 3"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0, 1]}, "no_rope_layers"),
        ("granite", {"embedding_multiplier": 0}, "embedding_multiplier"),
        ("ernie4_5", {"use_bias": True}, "use_bias"),
        ("arcee", {"hidden_act": "silu"}, "hidden_act"),
    ],
)
def test_what_the_file_of_a_family_cannot_say_is_refused(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    model_type: str,
    changes: dict[str, Any],
    word: str,
) -> None:
    spec, usual = FAMILIES[model_type]
    oracle = reference.load(tiny_model_path(spec))
    values = {name: np.asarray(w.values, np.float32) for name, w in oracle.weights.items()}
    weights = their_weights(values, spec.architecture, spec.resolved_head_dim)
    config = config_of(spec, model_type) | usual | changes
    assert word in refused(capsys, write_folder(tmp_path / "theirs", weights, config), out)
