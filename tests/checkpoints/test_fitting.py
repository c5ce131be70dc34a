"""What ``llamad fit`` says of a checkpoint is what convert then writes, and what auto takes."""

import re
from pathlib import Path

import numpy as np
import pytest

import reference
from checkpoints import huggingface_folder, llama_folder
from checkpoints.converting import convert, refused
from legacy_ggml import ERAS, vocabulary_of, write_legacy
from llamad.__main__ import main
from llamad.engine.bindings import EngineModel
from llamad_tools.advice.recommendation import fit
from llamad_tools.advice.source import read_shape
from llamad_tools.quantize.mixes import MIXES
from pretend_machine import machine
from tiny_gguf import TinyModelPath, TinySpec, vocabulary

KINDS = ("LLaMA folder", "its first shard", "Hugging Face folder", "legacy file")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def checkpoint(kind: str, tmp_path: Path, tiny_model_path: TinyModelPath) -> Path:
    """Write one of the kinds of checkpoints that convert takes."""
    match kind:
        case "LLaMA folder":
            return llama_folder.write(tmp_path, type_name="BF16")
        case "its first shard":
            return llama_folder.write(tmp_path, n_shards=2) / "consolidated.00.pth"
        case "Hugging Face folder":
            spec = TinySpec(architecture="qwen2", qkv_bias=True, tied_output=True)
            oracle = reference.load(tiny_model_path(spec))
            weights = {
                huggingface_folder.their_name(name): np.asarray(weight.values, np.float32)
                for name, weight in oracle.weights.items()
            }
            config = huggingface_folder.config_of(spec, "qwen2")
            return huggingface_folder.write_folder(tmp_path / "theirs", weights, config)
    pieces, scores, _ = vocabulary(llama_folder.VOCAB)
    weights = {n: w for n, w in llama_folder.WEIGHTS.items() if n != "rope.freqs"}
    write_legacy(
        tmp_path / "ggml-model-q4_0.bin",
        ERAS[-1],
        weights,
        "Q4_0",
        texts=vocabulary_of(pieces),
        scores=scores,
        n_heads=llama_folder.PARAMS["n_heads"],
        n_layers=llama_folder.LAYERS,
        dim=llama_folder.DIM,
    )
    return tmp_path / "ggml-model-q4_0.bin"


@pytest.mark.parametrize("mix", ["F32", "F16", "Q8_0", "Q4_0", "Q4_K_M", "Q3_K_M", "Q2_K"])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_converted_file(
    tmp_path: Path, out: Path, tiny_model_path: TinyModelPath, kind: str, mix: str
) -> None:
    source = checkpoint(kind, tmp_path, tiny_model_path)
    result = fit(read_shape(source), 1 << 32)
    expected = {item.name: item for item in result.mixes}[mix]
    convert(source, out, mix)
    assert expected.file_bytes == out.stat().st_size
    with EngineModel(out) as model:
        assert expected.streamed_bytes == model.info.streamed_bytes
        assert result.kv_bytes[512] == {
            "f16": 512 * model.info.kv_bytes_per_token_f16,
            "q8_0": 512 * model.info.kv_bytes_per_token_q8_0,
            "q4_0": 512 * model.info.kv_bytes_per_token_q4_0,
        }


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_of_a_checkpoint_is_that_of_its_file(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    source = checkpoint(kind, tmp_path, tiny_model_path)
    convert(source, out)
    capsys.readouterr()
    reports = []
    for path in (source, out):
        assert main(["fit", str(path), "--memory", "4GB"]) == 0
        report = capsys.readouterr().out.replace(str(path), "MODEL")
        reports.append(re.sub(r"llamad (quantize|convert) MODEL OUT.gguf (--type )?", "", report))
    assert reports[0] == reports[1]
    assert ("quantized already (Q4_0)" in reports[0]) == (kind == "legacy file")


@pytest.mark.parametrize("kind", KINDS)
def test_auto_takes_the_recommendation_and_says_so(
    tmp_path: Path,
    out: Path,
    tiny_model_path: TinyModelPath,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    source = checkpoint(kind, tmp_path, tiny_model_path)
    here = machine(tmp_path, available_kib=1 << 20)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: here)
    advice = fit(read_shape(source), 1 << 30).recommendation
    assert (advice.mix in MIXES) == (kind != "legacy file")
    written = convert(source, out, "AUTO").read_bytes()
    chosen = advice.mix or "as it is"
    assert capsys.readouterr().err == f"llamad: auto: {chosen}: {advice.reason}\n"
    assert written == convert(source, tmp_path / "named.gguf", advice.mix).read_bytes()


def test_auto_writes_nothing_where_nothing_fits(
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = machine(tmp_path, available_kib=32 << 10)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: here)
    message = refused(capsys, llama_folder.write(tmp_path), out, "auto")
    assert "no mix of known quality stays in memory" in message


def test_auto_refuses_what_cannot_be_converted(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], tiny_model_path: TinyModelPath
) -> None:
    assert "llamad quantize" in refused(capsys, tiny_model_path(TinySpec()), out, "auto")
    assert "no such file" in refused(capsys, tmp_path / "absent", out, "auto")


@pytest.mark.parametrize("name", ["params.json", "tokenizer.model", "consolidated.00.pth"])
def test_fit_names_what_a_checkpoint_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = llama_folder.write(tmp_path)
    (folder / name).unlink()
    assert main(["fit", str(folder)]) == 1
    message = capsys.readouterr().err
    assert name in message
    assert message.count("\n") == 1


def test_fit_names_a_folder_without_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err
