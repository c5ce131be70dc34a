"""PEFT folders: the logits of merged weights in every family, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import reference
from checkpoints.converting import convert, data_bytes, read_tensors
from checkpoints.huggingface_folder import (
    Weights,
    config_of,
    pack,
    safetensors,
    their_weights,
    write_folder,
    write_json,
)
from checkpoints.other_layouts import LAYOUTS
from checkpoints.peft_folder import PeftAdapter, targets, write_peft_folder
from checkpoints.test_huggingface_families import FAMILIES, GRANITE
from checkpoints.test_other_layouts import values_of, write
from engine.feeding import Logits, random_tokens
from engine.test_adapters import feed
from engine.test_forward import F16_STEP, row_errors
from llamad.__main__ import main
from llamad.engine.bindings import MAX_RANK, Adapter, AdapterUse, Engine, EngineModel
from llamad_tools.checkpoints.huggingface_families import FAMILIES as HUGGING_FACE
from pth_file import PthTensor, encode, write_pth
from tiny_gguf import TinyModelPath, TinySpec

TOKENS = random_tokens(3, 24)
LLAMA = TinySpec(architecture="qwen2", qkv_bias=False)  # rotates halves, as Hugging Face does
SPECS = {"llama": (LLAMA, {}), "qwen3": (replace(LLAMA, architecture="qwen3"), {}), **FAMILIES}
NEEDS_FOLDER = ("gemma4_text", "falcon_h1", "granitemoehybrid", "mamba2")  # as the base


@pytest.fixture
def base(tmp_path: Path, tiny_model_path: TinyModelPath) -> Path:
    """Return the folder of a llama, whose queries and keys GGUF has in another order."""
    weights = _weights(tiny_model_path, "llama")
    return _write(tmp_path / "base", "llama", weights)


def _weights(tiny_model_path: TinyModelPath, model_type: str) -> Weights:
    """Return a tiny model's weights as its family's folders have them."""
    if model_type in LAYOUTS:
        layout = LAYOUTS[model_type]
        return layout.weights(values_of(tiny_model_path(layout.spec)))
    spec, _ = SPECS[model_type]
    values = values_of(tiny_model_path(spec))
    return their_weights(values, spec.architecture, spec.resolved_head_dim)


def _write(folder: Path, model_type: str, weights: Weights) -> Path:
    if model_type in LAYOUTS:
        return write(folder, model_type, weights)
    spec, changes = SPECS[model_type]
    config = config_of(spec, model_type) | changes
    if model_type == "granite":
        config |= {theirs: spec.metadata[ours] for theirs, ours in GRANITE.items()}
    return write_folder(folder, weights, config)


def _lora(folder: Path, out: Path, base: Path, type_name: str | None = None) -> Path:
    arguments = ["convert", str(folder), str(out), "--base", str(base)]
    assert main([*arguments, "--type", type_name] if type_name else arguments) == 0
    return out


def _logits(path: Path, adapter: Path | None = None) -> Logits:
    with (
        EngineModel(path) as model,
        Engine(model, n_threads=1, n_ctx=64, n_batch=64, n_logits=64) as engine,
    ):
        engine.reserve_adapters(MAX_RANK)
        if adapter is None:
            return feed(engine, None, tokens=TOKENS)
        with Adapter(model, adapter) as opened:
            return feed(engine, AdapterUse(opened), tokens=TOKENS)


@pytest.mark.parametrize("model_type", [*SPECS, *LAYOUTS])
def test_an_adapter_is_as_weights_merged_before_they_are_converted(
    tmp_path: Path, tiny_model_path: TinyModelPath, model_type: str
) -> None:
    weights, adapter = _weights(tiny_model_path, model_type), PeftAdapter()
    assert len(targets(weights)) >= 4
    base = _write(tmp_path / "base", model_type, weights)
    theirs = write_peft_folder(tmp_path / "lora", adapter.tensors(weights), adapter.config())
    merged = convert(
        _write(tmp_path / "merged", model_type, adapter.merged(weights)), tmp_path / "merged.gguf"
    )
    plain = convert(base, tmp_path / "base.gguf")
    expected = reference.forward(
        reference.load(merged), TOKENS, reference.engine_rounding("f16"), n_ctx=64
    )
    by_folder = _lora(theirs, tmp_path / "by_folder.gguf", base)
    assert row_errors(_logits(plain, by_folder), expected).max() <= F16_STEP
    assert row_errors(_logits(plain), expected).max() > 0.1, "the adapter changes next to nothing"
    if model_type not in NEEDS_FOLDER:
        by_file = _lora(theirs, tmp_path / "by_file.gguf", plain)
        assert data_bytes(by_file) == data_bytes(by_folder)


@pytest.mark.parametrize(
    "adapter",
    [
        PeftAdapter(by_root=True, rank=16),
        PeftAdapter(ranks={"q_proj": 9, "1.mlp.up_proj": 2}, alphas={"q_proj": 3.0}),
        PeftAdapter(by_root=True, ranks={"down_proj": MAX_RANK}, alphas={"v_proj": 40.0}),
        PeftAdapter(rank=1, alpha=0.5),
    ],
    ids=["rslora", "patterns", "rslora and patterns", "rank 1"],
)
def test_every_pair_has_its_own_rank_and_scale(
    tmp_path: Path, tiny_model_path: TinyModelPath, base: Path, adapter: PeftAdapter
) -> None:
    weights = _weights(tiny_model_path, "llama")
    theirs = write_peft_folder(tmp_path / "lora", adapter.tensors(weights), adapter.config())
    found = read_tensors(_lora(theirs, tmp_path / "lora.gguf", base))
    alpha = _value(tmp_path / "lora.gguf", "adapter.lora.alpha")
    plain = read_tensors(convert(base, tmp_path / "base.gguf"))
    merged = _write(tmp_path / "merged", "llama", adapter.merged(weights))
    for name, (_, expected) in read_tensors(convert(merged, tmp_path / "merged.gguf")).items():
        values = plain[name][1].astype(np.float64)
        if f"{name}.lora_a" in found:
            a, b = (found[f"{name}.lora_{half}"][1].astype(np.float64) for half in "ab")
            values = values + float(alpha) / len(a) * (b @ a)
        assert np.abs(values - expected).max() <= 1e-6


def _value(path: Path, key: str) -> Any:
    return gguf.GGUFReader(path).fields[key].contents()


@pytest.mark.parametrize(
    ("stored", "type_name", "expected"),
    [
        ("F32", None, {"F32"}),
        ("F16", None, {"F16"}),
        ("BF16", None, {"BF16"}),
        ("F32", "f16", {"F16"}),
        ("BF16", "F32", {"F32"}),
        ("F32", "Q8_0", {"Q8_0", "F16"}),  # rows of four numbers are no blocks of 32
    ],
)
def test_types_are_those_of_the_folder_or_the_one_asked_for(
    tmp_path: Path,
    tiny_model_path: TinyModelPath,
    base: Path,
    stored: str,
    type_name: str | None,
    expected: set[str],
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    theirs = write_peft_folder(
        tmp_path / "lora", adapter.tensors(weights), adapter.config(), type_name=stored
    )
    path = _lora(theirs, tmp_path / "lora.gguf", base, type_name)
    assert {kind for kind, _ in read_tensors(path).values()} == expected
    with (
        EngineModel(convert(base, tmp_path / "base.gguf")) as model,
        Adapter(model, path) as opened,
    ):
        assert opened.info.n_pairs == len(targets(weights))


def test_what_the_file_says_of_itself(
    tmp_path: Path, tiny_model_path: TinyModelPath, base: Path
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    theirs = write_peft_folder(tmp_path / "kitchen", adapter.tensors(weights), adapter.config())
    path = _lora(theirs, tmp_path / "lora.gguf", base)
    for key, expected in {
        "general.type": "adapter",
        "general.architecture": "llama",
        "general.name": "kitchen",
        "general.base_model.0.name": "base",
        "general.base_model.0.organization": "tiny",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
    }.items():
        assert _value(path, key) == expected
    before = path.read_bytes()
    assert _lora(theirs, path, base).read_bytes() == before


def test_a_file_of_torch_and_a_model_without_head_are_the_same(
    tmp_path: Path, tiny_model_path: TinyModelPath, base: Path
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    tensors = {n: t for n, t in adapter.tensors(weights).items() if "lm_head" not in n}
    expected = data_bytes(
        _lora(
            write_peft_folder(tmp_path / "lora", tensors, adapter.config()),
            tmp_path / "expected.gguf",
            base,
        )
    )
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    write_json(pickled / "adapter_config.json", adapter.config())
    write_pth(
        pickled / "adapter_model.bin",
        {n: PthTensor("F32", t.shape, encode(t, "F32")) for n, t in tensors.items()},
    )
    headless = write_peft_folder(
        tmp_path / "headless",
        {n.replace("model.model.layers", "model.layers"): t for n, t in tensors.items()},
        adapter.config(),
    )
    for folder in (pickled, headless):
        assert data_bytes(_lora(folder, tmp_path / f"{folder.name}.gguf", base)) == expected


def test_the_output_matrix_may_lie_beside_its_pair(
    tmp_path: Path, tiny_model_path: TinyModelPath, base: Path
) -> None:
    """PEFT stores it where lm_head is a target."""
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    tensors = adapter.tensors(weights)
    copied = {"base_model.model.lm_head.base_layer.weight": weights["lm_head.weight"]}
    found = [
        data_bytes(_lora(folder, tmp_path / f"{folder.name}.gguf", base))
        for folder in (
            write_peft_folder(tmp_path / "pairs", tensors, adapter.config()),
            write_peft_folder(tmp_path / "more", tensors | copied, adapter.config()),
        )
    ]
    assert found[0] == found[1]


def test_families_of_one_architecture_order_rows_alike() -> None:
    """A GGUF file as the base does not say of which of them it is."""
    by_architecture: dict[str, set[bool]] = {}
    for family in HUGGING_FACE.values():
        by_architecture.setdefault(family.architecture, set()).add(family.interleaves)
    assert all(len(found) == 1 for found in by_architecture.values())


# ---- what is refused ----------------------------------------------------------------------------


def _refused(capsys: pytest.CaptureFixture[str], folder: Path, base: Path, *more: str) -> str:
    """Convert; the command must fail with one line and leave no file."""
    out = folder.parent / "refused.gguf"
    capsys.readouterr()
    assert main(["convert", str(folder), str(out), "--base", str(base), *more]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert not list(folder.parent.glob("refused.gguf*"))
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', only 'LORA' is"),
        ({"peft_type": None}, "peft_type is None"),
        ({"use_dora": True}, "use_dora True is not supported"),
        ({"bias": "all"}, "bias 'all' is not supported"),
        ({"bias": "lora_only"}, "bias 'lora_only' is not supported"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save ['lm_head'] is not supported"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16'"),
        ({"init_lora_weights": "OLoRA"}, "has changed the base"),
        ({"init_lora_weights": "lora_ga"}, "has changed the base"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
        ({"monteclora_config": {"num_samples": 4}}, "monteclora_config"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3"),
        ({"r": 0}, "r is 0, must be a positive integer"),
        ({"r": -4}, "r is -4"),
        ({"r": None}, "r is None"),
        ({"r": 257}, "r is 257, at most 256"),
        ({"r": 1 << 31}, "r is 2147483648, at most 256"),
        ({"r": 8}, "lora_A.weight has rank 4, adapter_config.json says 8"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": "six"}, "lora_alpha is 'six'"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj'], must be an object"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj is 0"),
        ({"rank_pattern": {"q_proj": 5}}, "q_proj.lora_A.weight has rank 4"),
        ({"rank_pattern": {"(": 5}}, "rank_pattern: '(' is no regular expression"),
        ({"alpha_pattern": {"(a+)+": 5}}, "alpha_pattern: '(a+)+' is no simple"),
        ({"alpha_pattern": {".*.*.*.*.*x": 5}}, "is no simple regular expression"),
        ({"alpha_pattern": {"q_proj": -1}}, "alpha_pattern.q_proj is -1"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    tmp_path: Path,
    tiny_model_path: TinyModelPath,
    base: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    theirs = write_peft_folder(
        tmp_path / "lora", adapter.tensors(weights), adapter.config(**changes)
    )
    message = _refused(capsys, theirs, base)
    assert "adapter_config.json" in message
    assert words in message


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
ROWS = np.ones((4, 64), np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({Q + "B.weight": None}, Q + "A.weight has no " + Q + "B.weight beside it"),
        ({Q + "A.weight": None}, Q + "B.weight has no " + Q + "A.weight beside it"),
        ({Q + "A.weight": ROWS[:3]}, "has rank 3, adapter_config.json says 4"),
        ({Q + "A.weight": ROWS[:, :63]}, "blk.0.attn_q.weight of the base has (64, 64)"),
        ({Q + "B.weight": ROWS.T[:, :3]}, "B.weight has 3 columns, its A has 4 rows"),
        ({Q + "B.weight": ROWS.T[:60]}, "60 rows, heads 16"),
        ({Q + "B.weight": ROWS.T[:48]}, "(48, 64), blk.0.attn_q.weight of the base has (64, 64)"),
        ({Q + "A.weight": ROWS[0]}, "is F32 of shape (64,), only matrices"),
        ({Q + "A.weight": np.ones((4, 64, 1), np.float32)}, "of shape (4, 64, 1)"),
        ({Q + "A.weight": ROWS * np.nan}, "blk.0.attn_q.weight.lora_a, from row 0"),
        ({Q + "magnitude_vector.weight": ROWS[0]}, "is no half of a pair"),
        ({"base_model.model.lm_head.weight": ROWS}, "lm_head.weight' is no half of a pair"),
        ({"model.layers.0.self_attn.q_proj.lora_A.weight": ROWS}, "is no half of a pair"),
        (
            {"base_model.model.model.embed_tokens.base_layer.weight": ROWS},
            "embed_tokens.base_layer.weight' is no half of a pair",
        ),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": ROWS},
            "embed_tokens.lora_embedding_A' is no half of a pair",
        ),
        (
            {
                "base_model.model.model.embed_tokens.lora_A.weight": ROWS,
                "base_model.model.model.embed_tokens.lora_B.weight": ROWS.T,
            },
            "model.embed_tokens: adapters of an embedding are not",
        ),
        (
            {
                "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": ROWS,
                "base_model.model.model.layers.7.mlp.up_proj.lora_B.weight": ROWS.T,
            },
            "model.layers.7.mlp.up_proj: the base has no blk.7.ffn_up.weight",
        ),
        (
            {
                "base_model.model.model.layers.0.mlp.fc1.lora_A.weight": ROWS,
                "base_model.model.model.layers.0.mlp.fc1.lora_B.weight": ROWS.T,
            },
            "model.layers.0.mlp.fc1 is no matrix of a llama model",
        ),
    ],
)
def test_a_wrong_tensor_is_named(
    tmp_path: Path,
    tiny_model_path: TinyModelPath,
    base: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: str,
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    tensors = {**adapter.tensors(weights), **changes}
    theirs = write_peft_folder(
        tmp_path / "lora", {n: t for n, t in tensors.items() if t is not None}, adapter.config()
    )
    assert words in _refused(capsys, theirs, base)


def test_sizes_that_no_file_holds_are_refused_before_they_are_read(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = PeftAdapter(rank=1)
    tensors = {
        Q + "A.weight": np.ones((1, 1 << 18), np.float32),
        Q + "B.weight": np.ones((1 << 18, 1), np.float32),
    }  # W would have 256 GiB
    theirs = write_peft_folder(tmp_path / "lora", tensors, adapter.config())
    assert "of a matrix of shape (262144, 262144)" in _refused(capsys, theirs, base)
    header = {Q + "A.weight": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 8]}}
    (theirs / "adapter_model.safetensors").write_bytes(pack(header, bytes(8)))
    assert Q + "A.weight" in _refused(capsys, theirs, base)


def test_a_wrong_folder_or_base_is_named(
    tmp_path: Path, tiny_model_path: TinyModelPath, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, weights = PeftAdapter(), _weights(tiny_model_path, "llama")
    theirs = write_peft_folder(tmp_path / "lora", adapter.tensors(weights), adapter.config())
    other = convert(
        _write(tmp_path / "falcon", "falcon_h1", _weights(tiny_model_path, "falcon_h1")),
        tmp_path / "falcon.gguf",
    )
    lora = _lora(theirs, tmp_path / "lora.gguf", base)
    for path, words in {
        tmp_path / "nowhere": "No such file",
        other: "does not say how its rows are ordered",
        lora: "is no model: general.type is 'adapter'",
        theirs: "lora/config.json: No such file",
    }.items():
        assert words in _refused(capsys, theirs, path)
    assert "Q4_K is no type of an adapter" in _refused(capsys, theirs, base, "--type", "Q4_K")
    assert main(["convert", str(theirs), str(tmp_path / "out.gguf")]) == 1
    assert "base: " in capsys.readouterr().err
    assert "has no adapter_config.json" in _refused(capsys, base, base)
    (theirs / "adapter_model.safetensors").unlink()
    assert "has neither adapter_model.safetensors nor" in _refused(capsys, theirs, base)
    (theirs / "adapter_model.safetensors").write_bytes(safetensors({}))
    assert "has no pair of the text model" in _refused(capsys, theirs, base)
    (theirs / "adapter_config.json").write_text("{")
    assert "adapter_config.json: is no JSON" in _refused(capsys, theirs, base)
