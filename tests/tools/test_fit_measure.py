"""``llamad fit --measure``: the loss of what it recommends, on a text, with nothing left behind."""

import json
import shutil
from pathlib import Path

import pytest

from checkpoints import llama_folder
from llamad.__main__ import main
from llamad_tools.advice import measured
from llamad_tools.advice.measured import SAMPLE_TOKENS
from llamad_tools.quantize.mixes import MIXES
from llamad_tools.quantize.rewrite import quantize
from tiny_gguf import TinyModelPath, TinySpec

SPEC = TinySpec(dim=256, hidden_dim=512, n_layers=2, n_heads=4, n_kv_heads=2, weight_type="F16")


@pytest.fixture
def model(tiny_model_path: TinyModelPath, tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return Path(shutil.copy(tiny_model_path(SPEC), tmp_path / "models" / "m.gguf"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog, " * 40)
    return path


def fit(model: Path, text: Path, *flags: str) -> list[str]:
    return ["fit", str(model), "--memory", "4GB", "--measure", str(text), *flags]


def test_what_is_recommended_was_measured_and_takes_the_place_of_the_cited_loss(
    model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(model, text, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    names = [item["mix"] for item in report["measured"]]
    assert names[0] == "Q6_K"
    assert len(names) == len(set(names)) <= 3
    losses = {mix["name"]: mix["loss"] for mix in report["mixes"]}
    for item in report["measured"]:
        assert losses[item["mix"]]["high"] == pytest.approx(max(0.0, item["loss"]))
        assert item["loss"] == pytest.approx(
            item["perplexity"] / item["unquantized_perplexity"] - 1
        )
        assert 0 < item["error"] < 1
        assert item["tokens"] < SAMPLE_TOKENS
    assert [path.name for path in model.parent.iterdir()] == ["m.gguf"]


def test_a_measured_loss_is_that_of_perplexity(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(model, text, "--json")) == 0
    [first, *_] = json.loads(capsys.readouterr().out)["measured"]
    target = tmp_path / "q.gguf"
    quantize(model, target, MIXES[first["mix"]])
    flags = ["--compare", str(model), "--ctx-size", "512", "--json"]
    assert main(["perplexity", str(target), str(text), *flags]) == 0
    direct = json.loads(capsys.readouterr().out)
    assert direct["perplexity"] == pytest.approx(first["perplexity"])
    assert direct["reference_perplexity"] == pytest.approx(first["unquantized_perplexity"])


def test_a_loss_that_is_too_large_changes_the_recommendation(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lossy(path: Path, mix: object, *rest: object, **options: object) -> measured.Measured:
        name = mix.name  # type: ignore[attr-defined]
        loss = 0.001 if name == "Q8_0" else 0.04
        return measured.Measured(name, loss, 0.01, 10 * (1 + loss), 10.0, 100)

    monkeypatch.setattr("llamad_tools.commands.fit.measure_loss", lossy)
    assert main(fit(model, text)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("take Q8_0: ")
    assert [line.split()[1] for line in lines if line.startswith("measured: ")] == ["Q6_K", "Q8_0"]
    assert len(lines) <= 24


def test_a_full_disk_is_told_before_anything_is_written(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(model.parent)
    full = usage._replace(free=1 << 20)
    monkeypatch.setattr("llamad_tools.advice.measured.shutil.disk_usage", lambda path: full)
    assert main(fit(model, text)) == 1
    assert f"{model.parent}: the quantized file has" in capsys.readouterr().err


def test_a_checkpoint_is_converted_first(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(llama_folder.write(tmp_path), text)) == 1
    assert "is no GGUF file: llamad convert makes one" in capsys.readouterr().err


def test_what_is_kept_is_not_measured(
    tiny_model_path: TinyModelPath, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(tiny_model_path(TinySpec(weight_type="Q4_0")), text, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == []
