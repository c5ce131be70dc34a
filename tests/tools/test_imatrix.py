"""``llamad imatrix``: the sums are those of the oracle's inputs, and quantize takes the file."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.feeding import random_tokens
from family_models import FAMILY_MODELS
from llamad.__main__ import main
from llamad.engine.bindings import EngineError, EngineModel
from llamad.errors import LlamadError
from llamad.text import load_tokenizer
from llamad_tools.importance.file import InputSums, read_imatrix, write_imatrix
from llamad_tools.importance.measure import OUTPUT_SAMPLE, measure, split
from reference import engine_rounding, load
from reference.model import Array
from reference.transformer import _Pass
from tiny_gguf import TinyModelPath, TinySpec

WIDE = TinySpec(dim=256, hidden_dim=512, n_layers=2, n_heads=4, n_kv_heads=2, weight_type="F16")
TEXT = "the hinterland rests in the warm water of that one winter\n" * 12


class RecordingPass(_Pass):
    """An oracle's pass that keeps the inputs of every matrix, (n_tokens, n_cols), by its name."""

    def linear(self, x: Array, name: str, *, fine: bool = False) -> Array:
        self.inputs[f"{name}.weight"] = x
        return super().linear(x, name, fine=fine)

    inputs: dict[str, Array]


def inputs_of(path: Path, tokens: list[int]) -> dict[str, Array]:
    recording = RecordingPass(load(path), engine_rounding("f16"), np.float64)
    recording.inputs = {}
    recording.run(tokens)
    return recording.inputs


def measured(path: Path, windows: list[list[int]], *, n_threads: int = 2) -> dict[str, InputSums]:
    names = {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    with EngineModel(path) as model:
        result = measure(model, windows, names=names, n_threads=n_threads)
    return {found.matrix: found for found in result.matrices}


def squares(x: Array) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.sum(np.asarray(x, np.float64) ** 2, axis=0)
    return result


@pytest.mark.parametrize(
    "spec",
    [
        TinySpec(),
        TinySpec(weight_type="Q8_0"),
        TinySpec(architecture="qwen3", head_dim=32),
        TinySpec(architecture="phi3"),
        TinySpec(architecture="arcee"),
        TinySpec(weight_type="Q4_K", dim=256, hidden_dim=768, tied_output=True),
        *(FAMILY_MODELS[name] for name in ("lfm2", "qwen35", "granitehybrid", "mamba2")),
    ],
    ids=lambda spec: f"{spec.architecture}-{spec.weight_type}",
)
def test_the_sums_are_those_of_the_oracles_inputs(
    tiny_model_path: TinyModelPath, spec: TinySpec
) -> None:
    path, windows = tiny_model_path(spec), [random_tokens(1, 100), random_tokens(2, 33)]
    output = "token_embd" if spec.tied_output else "output"
    found = measured(path, windows)
    passes = [inputs_of(path, window) for window in windows]
    assert set(found) == set(passes[0])
    for name, item in found.items():
        rows = [inputs[name] for inputs in passes]
        if name == f"{output}.weight":
            rows = [x[OUTPUT_SAMPLE - 1 :: OUTPUT_SAMPLE] for x in rows]
        assert item.n_rows == [sum(map(len, rows))], name
        expected = sum(squares(x) for x in rows)
        # roundings to int8 that fall to the other side move an input by a step of its block
        rtol, share = (1e-3, 1e-6) if spec.weight_type == "F32" else (0.02, 2e-3)
        atol = share * float(np.max(expected))
        np.testing.assert_allclose(item.sums, expected, rtol=rtol, atol=atol, err_msg=name)


def test_a_layer_that_mixes_in_two_ways_is_refused(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(FAMILY_MODELS["falcon-h1"])
    with pytest.raises(EngineError, match="has one mixer, in 'falcon-h1' it has two"):
        measured(path, [random_tokens(1, 8)])


def test_threads_and_steps_change_nothing_but_the_order_of_sums(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, windows = tiny_model_path(TinySpec(weight_type="Q8_0")), [random_tokens(3, 96)]
    expected = measured(path, windows, n_threads=1)
    monkeypatch.setattr("llamad_tools.importance.measure.ROWS_A_STEP", 16)
    for name, item in measured(path, windows, n_threads=3).items():
        assert item.n_rows == expected[name].n_rows
        np.testing.assert_allclose(item.sums, expected[name].sums, rtol=1e-12)


def test_every_window_begins_as_the_model_wants_it(tiny_model_path: TinyModelPath) -> None:
    tokenizer = load_tokenizer(tiny_model_path(TinySpec()))
    whole = tokenizer.encode(TEXT, add_bos=False)
    windows = split(tokenizer, TEXT, 33)
    assert {window[0] for window in windows} == {tokenizer.bos_id}
    assert [token for window in windows for token in window[1:]] == whole
    assert {len(window) for window in windows[:-1]} == {33}
    unmarked = load_tokenizer(
        tiny_model_path(TinySpec(metadata={"tokenizer.ggml.add_bos_token": False}))
    )
    assert split(unmarked, TEXT, len(whole)) == [whole]
    with pytest.raises(LlamadError, match="context of 1 tokens holds no text"):
        split(tokenizer, TEXT, 1)


def test_the_file_has_llama_cpps_form(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out.gguf"
    text.write_text(TEXT, encoding="utf-8")
    path = tiny_model_path(TinySpec())
    options = ["--threads", "2", "--ctx-size", "64", "--chunks", "2"]
    assert main(["imatrix", str(path), str(text), str(out), *options]) == 0
    printed, progress = capsys.readouterr()
    assert printed == f"{out}: 15 matrices over 128 tokens in 2 windows\n"
    assert progress == ""
    reader = gguf.GGUFReader(out)
    entries = {name: field.contents() for name, field in reader.fields.items()}
    assert entries["general.type"] == "imatrix"
    assert entries["imatrix.datasets"] == ["text.txt"]
    assert (entries["imatrix.chunk_count"], entries["imatrix.chunk_size"]) == (2, 64)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(tensors) == 2 * 15
    assert tensors["blk.1.ffn_down.weight.in_sum2"].shape == (96,)
    assert list(tensors["blk.1.ffn_down.weight.counts"]) == [128.0]
    means = read_imatrix(out)
    for name, mean in means.items():
        sums, count = tensors[f"{name}.in_sum2"], tensors[f"{name}.counts"][0]
        np.testing.assert_allclose(np.array(mean), sums / count, rtol=1e-6)


def test_quantize_takes_it_and_errs_less_where_it_matters(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    source, text, matrix = tiny_model_path(WIDE), tmp_path / "text", tmp_path / "matrix.gguf"
    plain, informed = tmp_path / "plain.gguf", tmp_path / "informed.gguf"
    text.write_text(TEXT, encoding="utf-8")
    assert main(["imatrix", str(source), str(text), str(matrix), "--ctx-size", "128"]) == 0
    assert main(["quantize", str(source), str(plain), "Q3_K_S"]) == 0
    assert main(["quantize", str(source), str(informed), "Q3_K_S", "--imatrix", str(matrix)]) == 0
    name, before = "blk.1.ffn_down.weight", load(source)
    importance = np.array(read_imatrix(matrix)[name])

    def error(path: Path) -> float:
        difference = load(path).weight(name).values - before.weight(name).values
        return float(np.mean(difference**2 * importance))

    assert error(informed) < 0.95 * error(plain)


def test_sums_that_are_not_finite_are_an_error_and_no_file(tmp_path: Path) -> None:
    broken = InputSums("blk.0.attn_q.weight", [1.0, float("inf")], [3])
    with pytest.raises(LlamadError, match=r"blk\.0\.attn_q\.weight sum to no finite number"):
        write_imatrix(tmp_path / "out.gguf", [broken], dataset="t", n_chunks=1, chunk_size=3)
    assert list(tmp_path.iterdir()) == []


def test_faults_of_the_user_are_one_line(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text, out = tiny_model_path(TinySpec()), tmp_path / "text", tmp_path / "out.gguf"
    text.write_bytes(b"")
    assert main(["imatrix", str(model), str(text), str(out)]) == 1
    assert capsys.readouterr().err == "llamad: the text has no tokens\n"
    text.write_bytes(b"abc\xff")
    assert main(["imatrix", str(model), str(text), str(out)]) == 1
    assert capsys.readouterr().err == f"llamad: {text}: byte 3 is not UTF-8\n"
    text.write_text("winter", encoding="utf-8")
    assert main(["imatrix", str(model), str(text), str(text)]) == 1
    assert "is the input" in capsys.readouterr().err
    assert text.read_text(encoding="utf-8") == "winter"
    assert not out.exists()


@pytest.mark.parametrize("option", ["--threads=0", "--ctx-size=1", "--chunks=none"])
def test_wrong_options_are_exit_code_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["imatrix", "model", "text", "out", option])
    assert raised.value.code == 2
    assert "are possible" in capsys.readouterr().err
