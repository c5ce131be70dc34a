"""Folders with experts: stacked without holding them, and what is refused.

That each family has the logits of transformers itself ``tests/tools/test_transformers.py`` says.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.converting import convert, read_tensors, refused
from checkpoints.huggingface_folder import (
    Weights,
    config_of,
    their_name,
    write_folder,
    write_sharded,
)
from family_models import FAMILY_MODELS
from llamad.errors import LlamadError
from llamad_tools.checkpoints.huggingface_experts import stack_experts
from llamad_tools.checkpoints.source import Rows, SourceTensor
from tiny_gguf import TinyModelPath

SPEC = replace(FAMILY_MODELS["qwen3moe"], n_layers=2)
CONFIG = config_of(SPEC, "qwen3_moe") | {
    "num_experts": SPEC.n_experts,
    "num_experts_per_tok": SPEC.n_experts_used,
    "moe_intermediate_size": SPEC.expert_dim,
    "norm_topk_prob": True,
}


def split(weights: Weights) -> dict[str, np.ndarray]:
    """Return the weights of a GGUF file as a folder has them: a tensor for each expert."""
    result: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        layer = ".".join(name.split(".")[:2]).replace("blk", "model.layers")
        if "_exps." in name:
            part = name.split("ffn_")[1].split("_")[0]
            for i, matrix in enumerate(values):
                result[f"{layer}.mlp.experts.{i}.{part}_proj.weight"] = matrix
        elif "ffn_gate_inp" in name:
            result[f"{layer}.mlp.gate.weight"] = values
        else:
            result[their_name(name)] = values
    return result


@pytest.fixture
def weights(tiny_model_path: TinyModelPath) -> dict[str, np.ndarray]:
    return {name: values for name, (_, values) in read_tensors(tiny_model_path(SPEC)).items()}


@pytest.mark.parametrize("n_shards", [1, 3])
def test_experts_of_any_shards_are_stacked(
    tmp_path: Path, weights: dict[str, np.ndarray], n_shards: int
) -> None:
    folder = write_folder(tmp_path / "theirs", split(weights), CONFIG)
    if n_shards > 1:
        (folder / "model.safetensors").unlink()
        write_sharded(folder, split(weights), n_shards, "F32")
    written = read_tensors(convert(folder, tmp_path / "out.gguf"))
    assert written.keys() == weights.keys()
    for name, values in weights.items():
        assert np.array_equal(written[name][1], values), name


FIRST = "model.layers.1.mlp.experts.0.up_proj.weight"
LAST = "model.layers.1.mlp.experts.7.up_proj.weight"
THIRD = "model.layers.1.mlp.experts.2.up_proj.weight"
BROKEN: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "one between": (lambda w: w.pop(THIRD), "expert 2 of 8 is missing"),
    "the last": (lambda w: w.pop(LAST), "ffn_up_exps.weight has shape"),
    "one too many": (
        lambda w: w.update({LAST.replace(".7.", ".8."): w[LAST]}),
        "ffn_up_exps.weight has shape",
    ),
    "another shape": (lambda w: w.update({THIRD: w[THIRD][:-1]}), "expert 2 is F32"),
    "an unknown matrix": (
        lambda w: w.update({THIRD.replace("up", "side"): w[THIRD]}),
        "is none of a qwen3_moe model",
    ),
    "no router": (lambda w: w.pop("model.layers.0.mlp.gate.weight"), "ffn_gate_inp.weight is miss"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_experts_that_are_not_those_of_the_model_are_refused(
    tmp_path: Path, weights: dict[str, np.ndarray], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = BROKEN[what]
    theirs = split(weights)
    change(theirs)
    folder = write_folder(tmp_path / "theirs", theirs, CONFIG)
    assert message in refused(capsys, folder, tmp_path / "out.gguf")


KEYS: dict[str, tuple[Any, ...]] = {
    "num_experts": (0, -1, 1025, 1 << 31, "eight", 2),
    "num_experts_per_tok": (0, 9, 1 << 31, None),
    "moe_intermediate_size": (0, "wide"),
    "norm_topk_prob": (False, None),
    "decoder_sparse_step": (2,),
    "mlp_only_layers": ([1],),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_a_file_cannot_say_is_named(
    tmp_path: Path, weights: dict[str, np.ndarray], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "theirs", split(weights), CONFIG)
    for value in KEYS[key]:
        (folder / "config.json").write_text(json.dumps(CONFIG | {key: value}))
        assert key in refused(capsys, folder, tmp_path / "out.gguf"), value


def test_no_more_than_what_is_written_is_read() -> None:
    asked: list[tuple[int, int, int]] = []

    def expert(number: int) -> SourceTensor:
        def read_rows(start: int, stop: int) -> Rows:
            asked.append((number, start, stop))
            return np.full((stop - start, 8), number, np.uint8)

        return SourceTensor(f"blk.0.ffn_up_exps.{number}.weight", (4, 2), "F32", read_rows)

    (stacked,) = stack_experts(Path("folder"), [expert(n) for n in (2, 0, 1)])
    assert (stacked.name, stacked.shape, stacked.n_rows) == (
        "blk.0.ffn_up_exps.weight",
        (3, 4, 2),
        12,
    )
    assert not asked
    assert stacked.read_rows(6, 10)[:, 0].tolist() == [1, 1, 2, 2]
    assert asked == [(1, 2, 4), (2, 0, 2)]


def test_experts_of_two_types_are_refused() -> None:
    def expert(number: int, type_name: str) -> SourceTensor:
        name = f"blk.0.ffn_up_exps.{number}.weight"
        return SourceTensor(name, (4, 2), type_name, lambda start, stop: np.zeros((0, 8), np.uint8))

    with pytest.raises(LlamadError, match=r"expert 1 is F16 \(4, 2\), expert 0 F32"):
        stack_experts(Path("folder"), [expert(0, "F32"), expert(1, "F16")])
