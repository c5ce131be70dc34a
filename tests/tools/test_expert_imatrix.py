"""Importance of experts: each has the sums of the rows that chose it, quantized by its own."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.feeding import random_tokens
from family_models import FAMILY_MODELS
from llamad.__main__ import main
from llamad.engine.bindings import EngineModel
from llamad_tools.importance.file import read_imatrix, write_imatrix
from llamad_tools.importance.measure import measure
from reference import engine_rounding, load
from reference.model import Array, Weight
from reference.transformer import _Pass
from tiny_gguf import write_tiny_model
from tools.test_imatrix import measured, squares

SPECS = {
    "mixtral": FAMILY_MODELS["mixtral"],
    "qwen2moe": FAMILY_MODELS["qwen2moe"],  # has a shared expert
    "qwen3moe": replace(FAMILY_MODELS["qwen3moe"], weight_type="Q8_0"),
    "olmoe": FAMILY_MODELS["olmoe"],
    "gpt-oss": FAMILY_MODELS["gpt-oss"],  # has biases
    "gemma4-moe": FAMILY_MODELS[
        "gemma4-moe"
    ],  # has a dense feed-forward beside them, gate and up in one
    "lfm2moe": FAMILY_MODELS["lfm2moe"],  # states, and dense layers before
    "qwen35moe": FAMILY_MODELS["qwen35moe"],
}
WIDE = replace(FAMILY_MODELS["qwen3moe"], dim=256, expert_dim=256, n_experts=6, weight_type="F16")
TEXT = "the hinterland rests in the warm water of that one winter\n" * 12


class Recording(_Pass):
    """An oracle's pass that keeps the rows of every expert, by tensor: n_experts (n, n_cols)."""

    experts: dict[str, list[Array]]
    products: list[Array]

    def product(self, x: Array, weight: Weight, *, fine: bool = False) -> Array:
        self.products.append(x)
        return super().product(x, weight, fine=fine)

    def feed_forward(self, x: Array, layer: str) -> Array:
        return self._kept(super().feed_forward(x, layer), layer)

    def dense_and_experts(self, x: Array, layer: str) -> Array:
        return self._kept(super().dense_and_experts(x, layer), layer)

    def _kept(self, result: Array, layer: str) -> Array:
        """Keep what the mixture just multiplied: of each expert gate, up and down, in turn."""
        if self.model.find(f"{layer}ffn_gate_inp.weight") is None:
            return result  # a dense layer
        n = self.hp.n_experts
        shared = 3 if self.model.find(f"{layer}ffn_gate_shexp.weight") is not None else 0
        end = len(self.products) - shared
        calls = self.products[end - 3 * n : end]
        chosen = self.routes.chosen[-1]
        for name, part in ("gate", 0), ("up", 1), ("gate_up", 1), ("down", 2):
            self.experts[f"{layer}ffn_{name}_exps.weight"] = [
                calls[3 * i + part][np.any(chosen == i, axis=1)] for i in range(n)
            ]
        if shared:
            for name, x in zip(("gate", "up", "down"), self.products[end:], strict=True):
                self.experts[f"{layer}ffn_{name}_shexp.weight"] = [x]
        return result


def experts_of(path: Path, tokens: list[int]) -> dict[str, list[Array]]:
    recording = Recording(load(path), engine_rounding("f16"), np.float64)
    recording.experts, recording.products = {}, []
    recording.run(tokens)
    return recording.experts


@pytest.mark.parametrize("family", SPECS)
def test_the_sums_are_those_of_the_rows_that_chose_an_expert(tmp_path: Path, family: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", SPECS[family])
    windows = [random_tokens(4, 100), random_tokens(5, 33)]
    found = measured(path, windows)
    names = {
        tensor.name
        for tensor in gguf.GGUFReader(path).tensors
        if tensor.name.endswith(("_exps.weight", "_shexp.weight")) and "gate_inp" not in tensor.name
    }
    assert names
    assert names <= set(found)
    passes = [experts_of(path, window) for window in windows]
    for name in names:
        each = [[of[name][i] for of in passes] for i in range(len(passes[0][name]))]
        assert list(found[name].n_rows) == [sum(map(len, rows)) for rows in each], name
        expected = np.array([sum(squares(x) for x in rows) for rows in each])
        # roundings to int8 that fall to the other side move an input by a step of its block
        rtol, share = (1e-3, 1e-6) if SPECS[family].weight_type == "F32" else (0.02, 2e-3)
        sums = np.array(found[name].sums).reshape(expected.shape)
        atol = share * float(np.max(expected))
        np.testing.assert_allclose(sums, expected, rtol=rtol, atol=atol, err_msg=name)


def test_experts_that_stream_have_the_same_sums(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", SPECS["qwen3moe"])
    windows = [random_tokens(3, 96)]
    expected = measured(path, windows)
    with EngineModel(path) as model:
        streamed = [extent.role.name != "EXPERT" for extent in model.extents()]
        assert not all(streamed)
        model.set_residency(streamed, 8 << 20, expert_slots=SPECS["qwen3moe"].n_experts)
        for item in measure(model, windows, names=expected, n_threads=2).matrices:
            assert item.n_rows == expected[item.matrix].n_rows
            np.testing.assert_allclose(item.sums, expected[item.matrix].sums, rtol=1e-12)


def test_the_file_has_llama_cpps_form_and_comes_back(tmp_path: Path) -> None:
    path, out = write_tiny_model(tmp_path / "model.gguf", WIDE), tmp_path / "out.gguf"
    found = measured(path, [random_tokens(1, 64)])
    write_imatrix(out, list(found.values()), dataset="t", n_chunks=1, chunk_size=64)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    name = "blk.1.ffn_down_exps.weight"
    assert list(tensors[f"{name}.in_sum2"].shape) == [256, 6]
    assert list(tensors[f"{name}.counts"].shape) == [1, 6]
    assert list(tensors["blk.1.attn_q.weight.in_sum2"].shape) == [256]
    assert list(tensors["blk.1.attn_q.weight.counts"].shape) == [1]
    means = np.array(read_imatrix(out)[name]).reshape(6, 256)
    counts = np.maximum(found[name].n_rows, 1)[:, None]
    np.testing.assert_allclose(
        means, np.array(found[name].sums).reshape(6, 256) / counts, rtol=1e-6
    )


def test_quantize_errs_less_where_it_matters_to_each_expert(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "model.gguf", WIDE)
    text, matrix = tmp_path / "text", tmp_path / "matrix.gguf"
    plain, informed = tmp_path / "plain.gguf", tmp_path / "informed.gguf"
    text.write_text(TEXT, encoding="utf-8")
    assert main(["imatrix", str(source), str(text), str(matrix), "--ctx-size", "128"]) == 0
    assert main(["quantize", str(source), str(plain), "Q3_K_S"]) == 0
    assert main(["quantize", str(source), str(informed), "Q3_K_S", "--imatrix", str(matrix)]) == 0
    name, before = "blk.1.ffn_down_exps.weight", load(source).weight("blk.1.ffn_down_exps.weight")
    importance = np.array(read_imatrix(matrix)[name]).reshape(6, 1, 256)

    def errors(path: Path) -> Array:
        difference = load(path).weight(name).values - before.values
        result: Array = np.mean(difference**2 * importance, axis=(1, 2))
        return result

    used = importance.any(axis=(1, 2))
    assert used.sum() >= 3
    assert np.all(errors(informed)[used] < 0.97 * errors(plain)[used])


def quantized(source: Path, target: Path, matrix: Path) -> dict[str, bytes]:
    assert main(["quantize", str(source), str(target), "Q3_K_S", "--imatrix", str(matrix)]) == 0
    return {t.name: t.data.tobytes() for t in gguf.GGUFReader(target).tensors}


def test_each_expert_is_quantized_as_alone_and_one_without_rows_with_even_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another expert's importance changes no byte of an expert, whatever the size of a piece."""
    source, name = write_tiny_model(tmp_path / "model.gguf", WIDE), "blk.1.ffn_down_exps.weight"
    random = np.random.default_rng(1)
    matrix, weights = tmp_path / "matrix.gguf", random.random((6, 256)) ** 4

    def bytes_of(weights: Array, counts: list[int]) -> list[bytes]:
        write(matrix, name, weights, counts)
        data = quantized(source, tmp_path / "out.gguf", matrix)[name]
        return [data[i * len(data) // 6 : (i + 1) * len(data) // 6] for i in range(6)]

    all_used = bytes_of(weights, [1] * 6)
    assert "experts" not in capsys.readouterr().err
    without = bytes_of(np.where(np.arange(6)[:, None] == 4, 0, weights), [1, 1, 1, 1, 0, 1])
    assert f"llamad: {name}: 1 of 6 experts were chosen by no token" in capsys.readouterr().err
    even = bytes_of(np.ones((6, 256)), [1] * 6)
    assert [a == b for a, b in zip(all_used, without, strict=True)] == [i != 4 for i in range(6)]
    assert without[4] == even[4] != all_used[4]
    monkeypatch.setattr("llamad_tools.quantize.rewrite.PIECE_BYTES", 7 * 512)  # 7 rows
    assert bytes_of(weights, [1] * 6) == all_used


def write(path: Path, name: str, weights: Array, counts: list[int]) -> None:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_tensor(f"{name}.in_sum2", weights.astype(np.float32))
    writer.add_tensor(f"{name}.counts", np.array(counts, np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_importance_of_another_number_of_experts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tiny_model(tmp_path / "model.gguf", WIDE)
    out, matrix = tmp_path / "out.gguf", tmp_path / "matrix.gguf"
    write(matrix, "blk.1.ffn_down_exps.weight", np.ones((5, 256)), [1] * 5)
    assert main(["quantize", str(source), str(out), "Q4_K", "--imatrix", str(matrix)]) == 1
    said = (
        "importance of blk.1.ffn_down_exps.weight has 1280 columns, the tensor has 256 in each of"
    )
    assert f"{said} 6 experts" in capsys.readouterr().err
    assert not out.exists()
