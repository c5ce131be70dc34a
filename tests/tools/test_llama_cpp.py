"""llama.cpp reads every file that we write, and its greedy text parts from ours only at ties.

The same text to the last token cannot be promised: both engines multiply with activations rounded
to int8, at other places and in other orders, and llama.cpp's own text changes with the batches of
its prompt. What can: against exact arithmetic our logits err no more than llama.cpp's, and where
the texts part, the exact logits of the two tokens are as near as those errors are large. Needs the
PyPI package ``xllamacpp``, an optional peer; ``tests/bench/greedy_peer.py`` prints the same as a
table.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import llama_cpp
from bench.greedy_peer import compare
from checkpoints.converting import convert
from checkpoints.huggingface_folder import config_of, their_name, write_folder
from golden_files import DEMO_MODEL, NO_DEMO_MODEL, needs_demo_model
from legacy_ggml import ERAS, vocabulary_of, write_legacy
from llama_cpp import LlamaCpp
from llamad.engine import Model
from llamad.engine.bindings import requantize, row_bytes
from llamad_tools.quantize.mixes import MIXES
from llamad_tools.quantize.rewrite import quantize
from pth_file import llama_weights, sentencepiece_model, write_llama_folder
from reference import forward, load
from tiny_gguf import TinyModelPath, TinySpec, vocabulary, write_tiny_model

WIDE = TinySpec(dim=256, hidden_dim=512, n_layers=4, n_heads=4, n_kv_heads=2, weight_type="F16")
NARROW = TinySpec(weight_type="F16")  # rows of 64 and 96: every K type falls back
VOCABULARY = list(zip(*vocabulary(300), strict=True))
LLAMA = {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "norm_eps": 1e-5}
BLOCK_TYPES = [
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"),
]

# The error of a difference of two logits, in standard deviations; four in a hundred thousand are
# larger. Of a few partings a file the largest seen is at 2.2.
TIE_DEVIATIONS = 4.0
RMSE_BOUND = 1.01  # of llama.cpp's

if not llama_cpp.is_available():
    pytest.skip("no peer xllamacpp: make peer installs it", allow_module_level=True)


def check(path: Path, prompts: tuple[str, ...], n_tokens: int = 16) -> None:
    oracle = load(path)
    with Model(path, n_threads=1, n_ctx=128) as ours, LlamaCpp(path, n_threads=1) as theirs:
        for text in prompts:
            found = compare(ours, theirs, oracle, text, n_tokens)
            assert found.our_noise <= found.their_noise
            tie = TIE_DEVIATIONS * math.sqrt(2) * math.hypot(found.our_noise, found.their_noise)
            assert found.parting is None or abs(found.parting.margin) <= tie, found.parting


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("spec", [WIDE, NARROW], ids=["wide", "narrow"])
def test_quantized_files(
    tiny_model_path: TinyModelPath, tmp_path: Path, spec: TinySpec, mix: str
) -> None:
    path = tmp_path / "out.gguf"
    quantize(tiny_model_path(spec), path, MIXES[mix], n_threads=2)
    check(path, ("the winter", "in that hint"))


# Between float arithmetic and llama.cpp's, whose GELU comes from a table of half precision and
# whose KV cache is f16, in units of the logits' deviation; a wrong window or norm shows 0.1 to 1.
GEMMA_NOISE = 0.01


@pytest.mark.parametrize("window", [8, 30])
@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_logits_of_gemma(tiny_model_path: TinyModelPath, family: str, window: int) -> None:
    """The oracle's logits are llama.cpp's, so the formulas are; the engine's are the oracle's."""
    spec = TinySpec(
        architecture=family,
        n_layers=7,
        weight_type="F16",
        head_dim=32,
        tied_output=True,
        window=None if family == "gemma" else window,
        rope_freq_base=10000.0 if family == "gemma2" else 1e6,
    )
    path = tiny_model_path(spec)
    tokens = [1, *np.random.default_rng(5).integers(3, 300, 60).tolist()]
    expected = forward(load(path), tokens)
    with LlamaCpp(path, n_threads=1) as theirs, Model(path, n_threads=1, n_ctx=128) as ours:
        for actual in (theirs.logits(tokens), theirs.logits(tokens, step=7), ours.logits(tokens)):
            error = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
            assert error.max() <= GEMMA_NOISE


@pytest.mark.parametrize("family", ["qwen2vl", "qwen3vl"])
def test_logits_of_the_text_of_models_that_see(tiny_model_path: TinyModelPath, family: str) -> None:
    """All sections of M-RoPE turn by the same position."""
    spec = TinySpec(
        architecture=family,
        weight_type="F16",
        tied_output=True,
        metadata={f"{family}.rope.dimension_sections": [4, 2, 2, 0]},
    )
    path = tiny_model_path(spec)
    tokens = [1, *np.random.default_rng(5).integers(3, 300, 40).tolist()]
    expected = forward(load(path), tokens)
    with LlamaCpp(path, n_threads=1) as theirs, Model(path, n_threads=1, n_ctx=128) as ours:
        for actual in (theirs.logits(tokens), ours.logits(tokens)):
            error = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
            assert error.max() <= GEMMA_NOISE


@pytest.mark.parametrize(
    "type_name",
    ["Q1_0", "Q2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "MXFP4"],
)
def test_formats_that_are_only_read(tiny_model_path: TinyModelPath, type_name: str) -> None:
    spec = replace(WIDE, weight_type=type_name)
    check(tiny_model_path(spec), ("the winter", "in that hint"))


@pytest.mark.parametrize("type_name", ["F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_converted_hugging_face_folders(
    tiny_model_path: TinyModelPath, tmp_path: Path, family: str, type_name: str
) -> None:
    head_dim = 32 if family == "qwen3" else None
    spec = TinySpec(architecture="qwen3" if family == "qwen3" else "qwen2", head_dim=head_dim)
    if family in ("llama", "mistral"):
        spec = TinySpec(architecture="qwen2", qkv_bias=False)
    weights = {
        their_name(name): np.asarray(weight.values, np.float32)
        for name, weight in load(tiny_model_path(spec)).weights.items()
    }
    folder = write_folder(tmp_path / "theirs", weights, config_of(spec, family))
    check(convert(folder, tmp_path / "out.gguf", type_name), ("the winter",))


@pytest.mark.parametrize("type_name", ["F16", "Q8_0", "Q4_0"])
def test_converted_llama_checkpoints(tmp_path: Path, type_name: str) -> None:
    weights = llama_weights(len(VOCABULARY), 64, 256, 2, 32)
    params: dict[str, Any] = {**LLAMA, "multiple_of": 256, "vocab_size": -1}
    tokenizer = sentencepiece_model(VOCABULARY)
    folder = write_llama_folder(tmp_path / "llama", weights, params, tokenizer, n_shards=2)
    check(convert(folder, tmp_path / "out.gguf", type_name), ("the winter",))


@pytest.mark.parametrize("type_name", ["F16", "Q4_0", "Q4_1"])
def test_converted_legacy_files(tmp_path: Path, type_name: str) -> None:
    pieces, scores, _ = vocabulary(300)
    write_legacy(
        tmp_path / "old.bin",
        ERAS[-1],
        llama_weights(len(pieces), 64, 256, 2, 64),
        type_name,
        texts=vocabulary_of(pieces),
        scores=scores,
        n_heads=4,
        n_layers=2,
        dim=64,
    )
    check(convert(tmp_path / "old.bin", tmp_path / "out.gguf"), ("the winter",))


@needs_demo_model
@pytest.mark.parametrize("mix", ["F16", "Q8_0", "Q4_0", "Q4_K_M", "Q3_K_M"])
def test_the_demo_model(tmp_path: Path, mix: str) -> None:
    quantize(DEMO_MODEL, tmp_path / "out.gguf", MIXES[mix], n_threads=2)
    check(tmp_path / "out.gguf", ("The capital of France is", "def fibonacci(n):"), n_tokens=12)


@pytest.mark.parametrize("type_name", BLOCK_TYPES)
@pytest.mark.parametrize("source", ["normal", "the demo model"])
def test_blocks_err_no_more_than_llama_cpps(type_name: str, source: str) -> None:
    weights = normal_weights() if source == "normal" else demo_weights()
    kind = gguf.GGMLQuantizationType[type_name]
    ours = bytearray(len(weights) * row_bytes(type_name, weights.shape[1]))
    requantize("F32", weights.data, type_name, ours, weights.shape[1], n_threads=2)

    def error(blocks: NDArray[np.uint8]) -> float:
        values = gguf.quants.dequantize(blocks.reshape(len(weights), -1), kind)
        return float(np.sqrt(np.mean((values - weights) ** 2)))

    theirs = llama_cpp.quantize(kind.value, weights)
    assert error(np.frombuffer(ours, np.uint8)) <= RMSE_BOUND * error(theirs)


@pytest.mark.parametrize("type_name", [name for name in BLOCK_TYPES if name != "Q8_0"])
def test_experts_by_their_own_importance_err_no_more_than_llama_cpps(
    tmp_path: Path, type_name: str
) -> None:
    """llama.cpp quantizes a mixture's tensor expert by expert, each by its own part of the sums."""
    spec = TinySpec(dim=256, hidden_dim=512, n_experts=4, n_layers=1, weight_type="F32")
    source, target = write_tiny_model(tmp_path / "model.gguf", spec), tmp_path / "out.gguf"
    name, kind = "blk.0.ffn_down_exps.weight", gguf.GGMLQuantizationType[type_name]
    importance = np.random.default_rng(3).random((4, 512), np.float32) ** 4
    importance[2] = 0.0  # was never chosen: llama.cpp takes ones
    mix = replace(MIXES["Q8_0"], base=type_name)
    quantize(source, target, mix, importance={name: importance.reshape(-1).data}, pure=True)
    weights = load(source).weight(name).values.astype(np.float32)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(target).tensors}[name]
    assert found.tensor_type == kind
    for ours, rows, of_expert in zip(found.data, weights, importance, strict=True):
        even = np.ones(512, np.float32)
        scale = of_expert if of_expert.any() else even

        def error(blocks: NDArray[np.uint8], x: Any = rows, scale: Any = scale) -> float:
            values = gguf.quants.dequantize(blocks.reshape(len(x), -1), kind)
            return float(np.sqrt(np.mean(scale * (values - x) ** 2)))

        assert error(ours) <= RMSE_BOUND * error(llama_cpp.quantize(kind.value, rows, scale))


def normal_weights() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, 0.02, (128, 512)).astype(np.float32)


def demo_weights() -> NDArray[np.float32]:
    """Return (864, 256) weights of the embedding, which the demo file has as Q8_0: near float."""
    if not DEMO_MODEL.exists():
        pytest.skip(NO_DEMO_MODEL)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(DEMO_MODEL).tensors}
    embedding = tensors["token_embd.weight"]
    values = gguf.quants.dequantize(embedding.data[4096 : 4096 + 384], embedding.tensor_type)
    return np.ascontiguousarray(values.reshape(-1, 256), np.float32)
