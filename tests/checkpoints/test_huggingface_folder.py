"""Hugging Face folders: the same logits as the oracle, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from checkpoints.converting import convert, data_bytes, read_tensors, refused
from checkpoints.huggingface_folder import (
    Weights,
    config_of,
    pack,
    safetensors,
    their_name,
    write_folder,
    write_json,
)
from engine.feeding import feed, random_tokens
from llamad.engine.bindings import Engine, EngineModel, read_metadata
from pth_file import PthTensor, encode, write_pth
from tiny_gguf import TinyModelPath, TinySpec

# Engine and oracle compute in float32 and float64, keys and values rounded to f16 in both: the
# bound of tests/engine/test_forward.py for unquantized weights. Wrong rows show 0.1 to 1.
LOGITS_BOUND = 5e-4

SPEC = TinySpec(architecture="qwen2", qkv_bias=False)  # rotates halves, as Hugging Face does
SPECS = {
    "llama": SPEC,
    "mistral": replace(SPEC, head_dim=24, rope_freq_base=1e6),
    "llama with biases": replace(SPEC, qkv_bias=True, output_bias=True),
    "llama with feed-forward biases": replace(SPEC, ffn_bias=True),
    "llama tied": replace(SPEC, tied_output=True),
    "llama with linear scaling": replace(SPEC, rope_scaling="linear"),
    "llama with yarn scaling": replace(SPEC, rope_scaling="yarn"),
    "llama with llama3 scaling": replace(SPEC, rope_scaling="llama3"),
    "qwen2": replace(SPEC, qkv_bias=True),
    "qwen3": TinySpec(architecture="qwen3", head_dim=32),
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def their_weights(oracle: reference.ReferenceModel) -> Weights:
    return {
        their_name(name): np.asarray(weight.values, np.float32)
        for name, weight in oracle.weights.items()
    }


def write(tmp_path: Path, tiny_model_path: TinyModelPath, **changes: Any) -> Path:
    """Write the folder of a llama; changes: of config.json."""
    weights = their_weights(reference.load(tiny_model_path(SPEC)))
    config = config_of(SPEC, "llama") | changes
    return write_folder(tmp_path / "llama", weights, config)


@pytest.mark.parametrize("name", SPECS)
def test_the_converted_model_has_the_oracles_logits(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, name: str
) -> None:
    spec = SPECS[name]
    oracle = reference.load(tiny_model_path(spec))
    config = config_of(spec, name.split(" ")[0])
    if spec.output_bias:
        config["attention_bias"] = True
    config["mlp_bias"] = spec.ffn_bias
    if spec.rope_scaling is not None:
        config["rope_scaling"] = LLAMA3_SCALING | {
            "rope_type": spec.rope_scaling,
            "factor": spec.rope_scaling_factor,
            "original_max_position_embeddings": spec.rope_original_context,
        }
    folder = write_folder(tmp_path / "theirs", their_weights(oracle), config)
    path = convert(folder, out)
    tokens = random_tokens(1, 24)
    expected = reference.forward(oracle, tokens, reference.engine_rounding("f16"))
    with EngineModel(path) as model, Engine(model, n_threads=1, n_ctx=32, n_logits=32) as engine:
        actual = feed(engine, tokens, chunk=24)
    error = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
    assert error.max() <= LOGITS_BOUND


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("n_shards", [0, 3])
def test_weights_keep_their_bits_in_one_file_or_many(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, type_name: str, n_shards: int
) -> None:
    oracle = reference.load(tiny_model_path(SPECS["qwen2"]))
    weights = their_weights(oracle)
    config = config_of(SPECS["qwen2"], "qwen2")
    folder = write_folder(
        tmp_path / "theirs", weights, config, n_shards=n_shards, type_name=type_name
    )
    stored = data_bytes(convert(folder, out))
    for name, weight in oracle.weights.items():
        if weight.values.ndim == 2:
            assert stored[name] == encode(np.asarray(weight.values, np.float32), type_name)


def test_queries_and_keys_are_interleaved_for_llama(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    before = reference.load(tiny_model_path(SPEC)).weight("blk.1.attn_k.weight").values
    path = convert(write(tmp_path, tiny_model_path), out)
    after = read_tensors(path)["blk.1.attn_k.weight"][1]
    half = SPEC.resolved_head_dim // 2
    for head in range(SPEC.n_kv_heads):
        for pair in range(half):
            first = head * 2 * half
            assert (after[first + 2 * pair] == before[first + pair]).all()
            assert (after[first + 2 * pair + 1] == before[first + pair + half]).all()


def test_llama3_scaling_becomes_a_tensor(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    folder = write(tmp_path, tiny_model_path, rope_scaling=LLAMA3_SCALING)
    factors = read_tensors(convert(folder, out))["rope_freqs.weight"][1]
    head_dim = SPEC.resolved_head_dim
    wavelengths = [2 * math.pi * 10000.0 ** (2 * i / head_dim) for i in range(head_dim // 2)]
    for factor, wavelength in zip(factors, wavelengths, strict=True):
        if wavelength < 64 / 4.0:
            assert factor == 1.0
        elif wavelength > 64 / 1.0:
            assert factor == 8.0
        else:
            assert 1.0 < factor < 8.0
    assert len(set(factors.tolist())) > 2


def test_transformers_5_keeps_rope_in_one_object(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    metadata = read_metadata(convert(write(tmp_path, tiny_model_path, rope_parameters=rope), out))
    assert metadata["llama.rope.freq_base"] == 5000.0
    assert metadata["llama.rope.scaling.type"] == "linear"
    assert metadata["llama.rope.scaling.factor"] == 2.0


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"model_type": "mistral", "sliding_window": 96}, 96),
        ({"model_type": "mistral", "sliding_window": None}, 512),
        ({"use_sliding_window": True, "sliding_window": 96}, 96),
        ({"use_sliding_window": False, "sliding_window": 96}, 512),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": 96}, 512),
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 96}, 96),
    ],
)
def test_a_sliding_window_limits_the_context(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    changes: dict[str, Any],
    context: int,
) -> None:
    metadata = read_metadata(convert(write(tmp_path, tiny_model_path, **changes), out))
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.context_length"] == context


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
PAPERS = 0.1 * math.log(4.0) + 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"beta_fast": 16, "beta_slow": 2.0}, {"yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0}),
        ({"attention_factor": 2 * PAPERS}, {"attn_factor": 2.0}),
        ({"attention_factor": None, "beta_fast": None}, {}),
        ({"mscale": 0.5, "mscale_all_dim": 0.5}, {"attn_factor": 1 / PAPERS}),
        ({"mscale": 0.5}, {}),
    ],
)
def test_yarn_keeps_what_differs_from_its_paper(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    changes: dict[str, Any],
    expected: dict[str, float],
) -> None:
    folder = write(tmp_path, tiny_model_path, rope_scaling=YARN | changes)
    metadata = read_metadata(convert(folder, out))
    start = "llama.rope.scaling."
    found = {key.removeprefix(start): v for key, v in metadata.items() if key.startswith(start)}
    assert found.pop("type") == "yarn"
    assert found.pop("factor") == 4.0
    assert found.pop("original_context_length") == 128
    assert found == pytest.approx(expected)


def test_dynamic_scaling_changes_nothing_within_the_trained_context(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    scaling = {"type": "dynamic", "factor": 4.0}
    metadata = read_metadata(convert(write(tmp_path, tiny_model_path, rope_scaling=scaling), out))
    assert not any("rope.scaling" in key for key in metadata)
    assert metadata["llama.context_length"] == 512


def test_a_config_may_leave_out_what_transformers_has_defaults_for(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    folder = write(tmp_path, tiny_model_path)
    config = config_of(SPEC, "llama") | {"architectures": ["LlamaForCausalLM"]}
    config["rope_scaling"] = {"rope_type": None}
    for key in ("model_type", "head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings"):
        del config[key]
    write_json(folder / "config.json", config)
    path = convert(folder, out)
    metadata = read_metadata(path)
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert metadata["llama.rope.freq_base"] == 10000.0
    assert metadata["llama.attention.key_length"] == SPEC.resolved_head_dim
    assert "output.weight" in read_tensors(path)


def test_without_an_output_matrix_the_embedding_is_taken(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    weights = dict(their_weights(reference.load(tiny_model_path(SPEC))))
    del weights["lm_head.weight"]
    config = config_of(SPEC, "llama") | {"tie_word_embeddings": None}
    path = convert(write_folder(tmp_path / "llama", weights, config), out)
    assert "output.weight" not in read_tensors(path)
    with EngineModel(path) as model:
        assert model.info.vocab_size == SPEC.vocab_size


def test_tables_of_rotations_are_no_weights(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    folder = write(tmp_path, tiny_model_path)
    weights = dict(their_weights(reference.load(tiny_model_path(SPEC))))
    weights["model.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    weights["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    expected = {"token_embd.weight", "output.weight", "output_norm.weight"}
    found = read_tensors(convert(folder, out)).keys()
    assert {name for name in found if not name.startswith("blk.")} == expected


def test_what_else_lies_in_a_folder_is_left_alone(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath
) -> None:
    folder = write(tmp_path, tiny_model_path)
    expected = data_bytes(convert(folder, out))
    (folder / "consolidated.safetensors").write_bytes(b"the same weights under other names")
    (folder / "adapter_model.safetensors").write_bytes(b"an adapter")
    write_json(folder / "params.json", {"dim": 64})  # Mistral's
    assert data_bytes(convert(folder, out.with_name("again.gguf"))) == expected


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "bloom"}, "'bloom'"),
        ({"model_type": None, "architectures": ["FooForCausalLM"]}, "'foo'"),
        ({"rope_scaling": {"type": "ntk", "factor": 4.0}}, "'ntk'"),
        ({"rope_scaling": LONGROPE | {"long_factor": [1.0]}}, "long_factor is not a list of 8"),
        ({"rope_scaling": LONGROPE | {"short_factor": [0] * 8}}, "short_factor"),
        ({"rope_scaling": {"type": "longrope"}}, "original_max_position_embeddings"),
        ({"original_max_position_embeddings": "all"}, "original_max_position_embeddings"),
        ({"rope_scaling": {"type": "yarn"}}, "factor"),
        ({"rope_scaling": YARN | {"factor": 0.5}}, "factor is 0.5"),
        ({"rope_scaling": YARN | {"truncate": False}}, "truncate"),
        ({"rope_scaling": YARN | {"original_max_position_embeddings": "all"}}, "'all'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor 0.25"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types"),
        ({"layer_types": 2}, "layer_types is 2"),
        ({"rope_scaling": "twice"}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"mlp_bias": True}, "ffn_gate.bias"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "'gptq'"),
        ({"hidden_size": None}, "hidden_size"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"num_hidden_layers": 3}, "blk.2."),
        ({"num_hidden_layers": 1}, "blk.1."),
        ({"intermediate_size": 128}, "ffn_gate"),
        ({"vocab_size": 310}, "300 tokens"),
        ({"num_attention_heads": 3}, "3 heads"),
        ({"head_dim": 15}, "pairs"),
        ({"max_position_embeddings": 1 << 40}, "max_position_embeddings"),
        ({"rope_theta": 1e300}, "rope_theta"),
        ({"rope_theta": math.inf}, "rope_theta"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"rms_norm_eps": 1e-300}, "rms_norm_eps"),
        ({"rope_scaling": {"type": "linear", "factor": math.inf}}, "rope_scaling.factor"),
        ({"rope_scaling": YARN | {"original_max_position_embeddings": math.inf}}, "original_max"),
        ({"_name_or_path": "\ud800"}, "general.name"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    word: str,
) -> None:
    assert word in refused(capsys, write(tmp_path, tiny_model_path, **changes), out)


def test_a_tensor_of_another_family_is_refused_by_name(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, tiny_model_path)
    weights = dict(their_weights(reference.load(tiny_model_path(SPEC))))
    weights["model.layers.0.mlp.router.weight"] = np.zeros((2, 2), np.float32)
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    assert "mlp.router" in refused(capsys, folder, out)


# ---- safetensors -------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "8"),
        (b"\xff" * 16, "header"),
        ((16).to_bytes(8, "little") + b"not json at all!", "JSON"),
        (pack([], b""), "object"),
        (pack({"a": ENTRY}, b"1234567"), "cut short"),
        (pack({"a": ENTRY}, b"123456789"), "has"),
        (pack({"a": ENTRY | {"data_offsets": [4, 12]}}, b"123456789012"), "begins at 4"),
        (pack({"a": ENTRY | {"data_offsets": [8, 0]}}, b"12345678"), "data_offsets"),
        (pack({"a": ENTRY, "b": ENTRY}, b"12345678"), "begins at 0"),
        (pack({"a": ENTRY | {"shape": [3]}}, b"12345678"), "bytes"),
        (pack({"a": ENTRY | {"shape": [-1, -2]}}, b"12345678"), "shape"),
        (pack({"a": ENTRY | {"dtype": "F8_E4M3"}}, b"12345678"), "a is F8_E4M3"),
        (pack({"a": ENTRY | {"dtype": "F64"}}, b"12345678"), "a is F64"),
        (pack({"a": ENTRY | {"dtype": "I8"}}, b"12345678"), "a is I8"),
        (pack({"a": 3}, b""), "data_offsets"),
        (pack({"a": ENTRY | {"dtype": ["F32"]}}, b"12345678"), "a is ['F32']"),
        (pack({"a": [[]] * 1_000_000}, b""), "more than 2000000 values"),
        ((1 << 25).to_bytes(8, "little") + bytes(1 << 25), "header of 33554432 bytes"),
        (pack({"model.layers.01.mlp.up_proj.weight": ENTRY}, b"12345678"), "layers.01"),
        (pack({f"model.layers.1{5000 * '0'}.mlp.up_proj.bias": ENTRY}, b"12345678"), "s.10000"),
        (pack({"model.layers.\u0661.mlp.up_proj.weight": ENTRY}, b"12345678"), "none of"),
    ],
)
def test_a_broken_safetensors_file_is_refused(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    word: str,
) -> None:
    folder = write(tmp_path, tiny_model_path)
    (folder / "model.safetensors").write_bytes(content)
    message = refused(capsys, folder, out)
    assert str(folder) in message
    assert word in message


def test_a_missing_shard_is_named(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = their_weights(reference.load(tiny_model_path(SPEC)))
    folder = write_folder(tmp_path / "s", weights, config_of(SPEC, "llama"), n_shards=3)
    shard = folder / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    assert shard.name in refused(capsys, folder, out)
    shard.write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes())
    assert shard.name in refused(capsys, folder, out)
    shard.write_bytes(content)
    index = folder / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    write_json(index, {"weight_map": where | {"model.more.weight": shard.name}})
    assert "model.more.weight is missing" in refused(capsys, folder, out)
    del where["model.norm.weight"]
    write_json(index, {"weight_map": where})
    assert "does not place there" in refused(capsys, folder, out)
    write_json(index, {"weight_map": {"a": "../b"}})
    assert "another folder" in refused(capsys, folder, out)


# ---- what torch.save wrote ---------------------------------------------------------------------


def write_pytorch(folder: Path, weights: Weights, type_name: str, n_shards: int) -> None:
    """Replace the safetensors of a folder; n_shards 0: one file without index."""
    (folder / "model.safetensors").unlink()
    tensors = {
        name: PthTensor(type_name, values.shape, encode(values, type_name))
        for name, values in weights.items()
    }
    if n_shards == 0:
        write_pth(folder / "pytorch_model.bin", tensors)
        return
    where: dict[str, str] = {}
    for index in range(n_shards):
        part = dict(list(tensors.items())[index::n_shards])
        name = f"pytorch_model-{index + 1:05}-of-{n_shards:05}.bin"
        write_pth(folder / name, part)
        where |= dict.fromkeys(part, name)
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": where})


@pytest.mark.parametrize("n_shards", [0, 2])
def test_torchs_files_give_the_same_weights(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, n_shards: int
) -> None:
    weights = dict(their_weights(reference.load(tiny_model_path(SPEC))))
    folder = write_folder(tmp_path / "llama", weights, config_of(SPEC, "llama"), type_name="BF16")
    expected = data_bytes(convert(folder, out))
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    write_pytorch(folder, weights, "BF16", n_shards)
    assert data_bytes(convert(folder, out.with_name("again.gguf"))) == expected


def test_a_missing_shard_of_torchs_is_named(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, tiny_model_path)
    weights = their_weights(reference.load(tiny_model_path(SPEC)))
    write_pytorch(folder, weights, "F16", 2)
    shard = folder / "pytorch_model-00002-of-00002.bin"
    shard.unlink()
    assert shard.name in refused(capsys, folder, out)
    (folder / "pytorch_model.bin.index.json").unlink()
    (folder / "pytorch_model-00001-of-00002.bin").unlink()
    assert "no .safetensors file" in refused(capsys, folder, out)
