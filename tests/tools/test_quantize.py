"""``llamad quantize``: whole files, against the engine's reading of them."""

import argparse
import contextlib
import io
import math
import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from llamad.__main__ import main
from llamad.engine import Model
from llamad.engine.bindings import GgufFile
from llamad.errors import LlamadError
from llamad.gguf.value import ValueType
from llamad.gguf.writer import GgufWriter
from llamad_tools.commands.quantize import add_parser
from llamad_tools.quantize import rewrite
from llamad_tools.quantize.mixes import MIXES
from llamad_tools.quantize.rewrite import quantize
from tiny_gguf import TinyModelPath, TinySpec

WIDE = TinySpec(dim=256, hidden_dim=512, n_layers=4, n_heads=4, n_kv_heads=2, weight_type="F16")
NARROW = TinySpec(weight_type="F16")  # rows of 64 and 96: no K type holds them


def types_of(path: Path) -> dict[str, str]:
    with GgufFile(path) as file:
        return {tensor.name: tensor.type_name for tensor in file.tensors()}


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("mix", MIXES)
def test_every_mix_gives_a_model_that_runs(
    tiny_model_path: TinyModelPath, tmp_path: Path, mix: str
) -> None:
    source, target = tiny_model_path(WIDE), tmp_path / "out.gguf"
    quantize(source, target, MIXES[mix], n_threads=2)
    with Model(target) as model:
        assert np.isfinite(model.logits([1, 5, 9])).all()
    with GgufFile(target) as file, GgufFile(source) as original:
        written, read = file.metadata(), original.metadata()
    assert written.pop("general.file_type") == MIXES[mix].file_type
    assert written.pop("general.quantization_version") == 2
    assert written == read


def test_the_mix_decides_each_tensors_type(tiny_model_path: TinyModelPath, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    quantize(tiny_model_path(WIDE), target, MIXES["Q3_K_M"])
    types = types_of(target)
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == types["blk.3.attn_q.weight"] == "Q3_K"
    assert types["blk.1.attn_v.weight"] == "Q5_K"
    assert types["blk.2.attn_v.weight"] == types["blk.2.ffn_down.weight"] == "Q4_K"
    assert types["output_norm.weight"] == types["blk.0.attn_norm.weight"] == "F32"


def test_narrow_rows_fall_back(tiny_model_path: TinyModelPath, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    quantize(tiny_model_path(NARROW), target, MIXES["Q4_K_S"])
    types = types_of(target)
    assert types["output.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == "Q5_0"


@pytest.mark.parametrize("mix", ["Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "BF16"])
def test_weights_stay_near_and_vectors_stay_equal(
    tiny_model_path: TinyModelPath, tmp_path: Path, mix: str
) -> None:
    source, target = tiny_model_path(WIDE), tmp_path / "out.gguf"
    quantize(source, target, MIXES[mix])
    before, after = weights_of(source), weights_of(target)
    bound = {"Q8_0": 0.006, "Q6_K": 0.02, "Q4_K_M": 0.08, "Q4_0": 0.1, "BF16": 0.002}[mix]
    for name, weights in before.items():
        error = np.sqrt(np.mean((after[name] - weights) ** 2) / np.mean(weights**2))
        assert error <= (bound if weights.ndim > 1 else 0.0), name


def test_pieces_and_threads_change_nothing(
    tiny_model_path: TinyModelPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_model_path(WIDE)
    quantize(source, tmp_path / "whole.gguf", MIXES["Q4_K_M"], n_threads=1)
    monkeypatch.setattr(rewrite, "PIECE_BYTES", 1700)  # three rows of 256 float16; one of 512
    quantize(source, tmp_path / "pieces.gguf", MIXES["Q4_K_M"], n_threads=3)
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_the_same_type_again_copies_the_weights(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantize(tiny_model_path(WIDE), first, MIXES["Q4_K_M"])
    quantize(first, second, MIXES["Q4_K_M"])
    assert first.read_bytes() == second.read_bytes()
    assert capsys.readouterr().err == ""


def test_quantizing_again_warns_in_one_line(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_model_path(TinySpec(weight_type="Q8_0"))
    quantize(source, tmp_path / "out.gguf", MIXES["Q4_0"])
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "already quantized (Q8_0)" in warning
    quantize(source, tmp_path / "out.gguf", MIXES["F16"])  # unpacking loses nothing
    assert capsys.readouterr().err == ""


def test_importance_reaches_the_quantizer(tiny_model_path: TinyModelPath, tmp_path: Path) -> None:
    source, imatrix = tiny_model_path(WIDE), tmp_path / "imatrix.gguf"
    name = "blk.0.attn_q.weight"
    sums = np.ones(256, np.float32)
    sums[:32] = 500.0
    write_imatrix(imatrix, name, sums, 5.0)
    plain, informed = tmp_path / "plain.gguf", tmp_path / "informed.gguf"
    assert main(["quantize", str(source), str(plain), "q4_k_s"]) == 0
    assert main(["quantize", str(source), str(informed), "q4_k_s", "--imatrix", str(imatrix)]) == 0
    before, plainly, informedly = (weights_of(path) for path in (source, plain, informed))

    def error(weights: dict[str, np.ndarray]) -> float:
        return float(np.mean((weights[name] - before[name])[:, :32] ** 2))

    assert error(informedly) < error(plainly)
    assert np.array_equal(plainly["blk.1.attn_q.weight"], informedly["blk.1.attn_q.weight"])


def write_imatrix(path: Path, name: str, sums: np.ndarray, count: float) -> None:
    with GgufWriter(path) as writer:
        writer.add("general.type", "imatrix", ValueType.STRING)
        writer.add_tensor(f"{name}.in_sum2", "F32", (len(sums), 1))
        writer.add_tensor(f"{name}.counts", "F32", (1, 1))
        writer.begin()
        writer.write(sums.astype("<f4").tobytes())
        writer.write(np.array([count], "<f4").tobytes())
        writer.finish()


def test_importance_of_another_model_is_refused(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imatrix, out = tmp_path / "imatrix.gguf", tmp_path / "out.gguf"
    write_imatrix(imatrix, "blk.0.attn_q.weight", np.ones(128, np.float32), 1.0)
    arguments = ["quantize", str(tiny_model_path(WIDE)), str(out), "Q4_0", "--imatrix"]
    assert main([*arguments, str(imatrix)]) == 1
    assert "has 128 columns, the tensor has 256" in capsys.readouterr().err
    assert main([*arguments, str(tiny_model_path(WIDE))]) == 1
    assert "holds no importance matrix" in capsys.readouterr().err
    write_imatrix(imatrix, "blk.99.attn_q.weight", np.ones(256, np.float32), 1.0)
    assert main([*arguments, str(imatrix)]) == 1
    assert "names no matrix of this one" in capsys.readouterr().err
    assert not out.exists()


def test_importance_of_what_stays_is_ignored(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    one = np.ones(256, np.float32).data
    importance = {"blk.0.attn_q.weight": one, "output_norm.weight": one[:3]}
    quantize(tiny_model_path(WIDE), tmp_path / "out.gguf", MIXES["Q4_0"], importance=importance)
    assert (tmp_path / "out.gguf").exists()


def test_a_vocabulary_alone_is_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "vocabulary.gguf", tmp_path / "out.gguf"
    with GgufWriter(source) as writer:
        writer.add("general.architecture", "llama", ValueType.STRING)
        writer.begin()
        writer.finish()
    with pytest.raises(LlamadError, match=r"vocabulary\.gguf has no tensors"):
        quantize(source, out, MIXES["Q4_0"])
    assert not out.exists()


def test_a_part_of_a_split_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "model-00001-of-00002.gguf", tmp_path / "out.gguf"
    with GgufWriter(source) as writer:
        writer.add("general.architecture", "llama", ValueType.STRING)
        writer.add("split.count", 2, ValueType.UINT16)
        writer.add_tensor("blk.0.attn_q.weight", "F32", (32, 64))
        writer.begin()
        writer.write(bytes(4 * 32 * 64))
        writer.finish()
    for command in (["quantize", str(source), str(out), "Q4_0"], ["fit", str(source)]):
        assert main(command) == 1
        assert "is one of 2 parts of a model" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_prints_the_size(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tiny_model_path(WIDE), tmp_path / "out.gguf"
    assert main(["quantize", str(source), str(target), "Q4_K", "--threads", "2"]) == 0
    out, err = capsys.readouterr()
    size = target.stat().st_size
    with GgufFile(target) as file:
        bits = 8 * size / sum(math.prod(tensor.shape) for tensor in file.tensors())
    assert out.startswith(f"{target}: {size / 1e6:.1f} MB, {bits:.2f} bits per weight, ")
    assert err == ""  # no progress where no terminal is


def test_pure_has_one_type(tiny_model_path: TinyModelPath, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    assert main(["quantize", str(tiny_model_path(WIDE)), str(target), "Q3_K_M", "--pure"]) == 0
    assert set(types_of(target).values()) == {"Q3_K", "F32"}


@pytest.mark.parametrize("arguments", [["Q9_K"], ["Q4_0", "--threads", "0"], []])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with (
        contextlib.redirect_stderr(io.StringIO()) as err,
        pytest.raises(SystemExit) as raised,
    ):
        main(["quantize", "in.gguf", "out.gguf", *arguments])
    assert raised.value.code == 2
    assert "llamad quantize: error: " in err.getvalue()


@pytest.mark.parametrize("name", ["in.gguf", "link.gguf", "same.gguf", "imatrix.gguf"])
def test_the_output_is_never_an_input(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source, imatrix = tmp_path / "in.gguf", tmp_path / "imatrix.gguf"
    source.write_bytes(tiny_model_path(WIDE).read_bytes())
    (tmp_path / "link.gguf").symlink_to(source)
    (tmp_path / "same.gguf").hardlink_to(source)
    write_imatrix(imatrix, "blk.0.attn_q.weight", np.ones(256, np.float32), 1.0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = ["quantize", str(source), str(tmp_path / name), "Q4_0", "--imatrix", str(imatrix)]
    assert main(arguments) == 1
    assert f"{(tmp_path / name).resolve()} is the input" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_an_input_that_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = tmp_path / "in.gguf"
    match kind:
        case "fifo":
            os.mkfifo(source)
        case "folder":
            source.mkdir()
        case "device":
            source.symlink_to("/dev/zero")
    assert main(["quantize", str(source), str(tmp_path / "out.gguf"), "Q4_0"]) == 1
    assert "regular file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_broken_weight_names_its_tensor_and_leaves_no_file(tmp_path: Path) -> None:
    source, weights = tmp_path / "in.gguf", np.zeros((64, 32), np.float32)
    weights[41, 3] = np.inf
    with GgufWriter(source) as writer:
        writer.add("general.architecture", "llama", ValueType.STRING)
        writer.add_tensor("blk.0.attn_q.weight", "F32", (32, 64))
        writer.begin()
        writer.write(weights.tobytes())
        writer.finish()
    for mix in ("Q4_0", "F32"):
        with pytest.raises(LlamadError, match=r"tensor blk\.0\.attn_q\.weight.* row 41 column 3"):
            quantize(source, tmp_path / "out.gguf", MIXES[mix])
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_an_interrupt_leaves_no_file(
    tiny_model_path: TinyModelPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rewrite, "requantize", interrupt)
    arguments = ["quantize", str(tiny_model_path(WIDE)), str(tmp_path / "out.gguf"), "Q4_0"]
    assert main(arguments) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_while_it_is_read_is_an_error(
    tiny_model_path: TinyModelPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.gguf"
    source.write_bytes(tiny_model_path(WIDE).read_bytes())
    plan = rewrite._plan

    def cut(*arguments: object) -> object:
        plans = plan(*arguments)  # type: ignore[arg-type]
        with source.open("r+b") as file:
            file.truncate(source.stat().st_size // 2)
        return plans

    monkeypatch.setattr(rewrite, "_plan", cut)
    with pytest.raises(LlamadError, match="ended early"):
        quantize(source, tmp_path / "out.gguf", MIXES["Q4_0"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_the_parser_knows_the_options() -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["quantize", "a", "b", "q5_k", "--threads", "3"])
    assert (options.type.name, options.threads, options.pure) == ("Q5_K_M", 3, False)
