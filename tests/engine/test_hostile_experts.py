"""Files of mixtures that no converter writes: they compute as the oracle does, or are refused."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.feeding import feed, random_tokens
from engine.test_experts import logits_of
from engine.test_forward import F16_STEP, INT8_STEP, row_errors
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Role
from reference import engine_rounding, forward, load
from tiny_formats import FORMATS
from tiny_gguf import Tensor, TinySpec, _tensors, encode_gguf, metadata_of, write_tiny_model

QWEN = replace(FAMILY_MODELS["qwen3moe"], dim=256, expert_dim=256)
GPT_OSS = replace(FAMILY_MODELS["gpt-oss"], dim=256, expert_dim=256)
TOKENS = random_tokens(3, 24)


def with_tensors(path: Path, spec: TinySpec, changed: Mapping[str, Tensor]) -> Path:
    tensors = [changed.get(tensor.name, tensor) for tensor in _tensors(spec)]
    path.write_bytes(encode_gguf(metadata_of(spec), tensors))
    return path


def zeros(name: str, shape: tuple[int, ...], type_name: str = "F32") -> Tensor:
    form = FORMATS[type_name]
    return Tensor(name, type_name, shape, bytes(math.prod(shape) // form.block * form.block_bytes))


def error(path: Path) -> float:
    """Return the largest error of a row against the oracle, as test_forward.py bounds it."""
    expected = forward(load(path), TOKENS, engine_rounding("f16"))
    return float(row_errors(logits_of(path), expected).max())


# Every layer another type, and every matrix of a layer; slots hold the largest of them.
MIXED = {
    f"blk.{layer}.ffn_{name}_exps.weight": type_name
    for layer, types in enumerate(
        (("Q4_K", "Q8_0", "Q6_K"), ("F16", "IQ4_XS", "MXFP4"), ("Q2_K", "F32", "Q5_1"))
    )
    for name, type_name in zip(("gate", "up", "down"), types, strict=True)
}


def test_experts_of_another_type_in_each_layer_and_matrix_compute(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", replace(QWEN, tensor_types=MIXED))
    logits = logits_of(path)
    assert error(path) <= INT8_STEP
    with EngineModel(path) as model:
        resident = [extent.role is not Role.EXPERT for extent in model.extents()]
        model.set_residency(resident, 8 << 20, expert_slots=QWEN.n_experts)
        with Engine(model, n_threads=2, n_ctx=64, n_logits=64) as engine:
            for chunk in (len(TOKENS), 7, 1):
                assert np.array_equal(feed(engine, TOKENS, chunk=chunk), logits)


ROUTER = "blk.1.ffn_gate_inp.weight"
UP, DOWN = "blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (ROUTER, (9, 256)),
        (ROUTER, (7, 256)),
        (ROUTER, (8, 255)),
        (ROUTER, (256, 8)),
        (ROUTER, (2048,)),
        (ROUTER, (2, 8, 256)),
        (UP, (7, 256, 256)),
        (UP, (9, 256, 256)),
        (UP, (8, 255, 256)),
        (UP, (8 * 256, 256)),
        (UP, (256, 256)),
        (UP, (2, 4, 256, 256)),
        (DOWN, (8, 256, 128)),
        (DOWN, (1, 256, 256)),
    ],
)
def test_a_wrong_shape_is_refused_by_name(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = with_tensors(tmp_path / "model.gguf", QWEN, {name: zeros(name, shape)})
    with pytest.raises(EngineError, match=f"tensor '{name}' has shape"):
        EngineModel(path)


@pytest.mark.parametrize("type_name", ["I32", "F64"])
def test_a_type_that_no_product_has_is_refused_by_name(tmp_path: Path, type_name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", QWEN)
    content = path.read_bytes()
    at = content.index(ROUTER.encode()) + len(ROUTER) + 4 + 2 * 8
    wrong = gguf.GGMLQuantizationType[type_name].to_bytes(4, "little")
    path.write_bytes(content[:at] + wrong + content[at + 4 :])
    with pytest.raises(EngineError, match=rf"tensor '{ROUTER}'.*{type_name}"):
        EngineModel(path)


def test_a_quantized_router_chooses(tmp_path: Path) -> None:
    spec = replace(QWEN, tensor_types={f"blk.{i}.ffn_gate_inp.weight": "Q8_0" for i in range(3)})
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    assert error(path) <= INT8_STEP


@pytest.mark.parametrize("counts", [(1, 1), (8, 8), (2, 1)])
def test_one_expert_and_all_experts_of_a_token_compute(
    tmp_path: Path, counts: tuple[int, int]
) -> None:
    spec = replace(QWEN, n_experts=counts[0], n_experts_used=counts[1])
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    assert error(path) <= F16_STEP


@pytest.mark.parametrize("exponent", [0, 1, 2, 100, 254, 255])
def test_mxfp4_with_an_extreme_scale_computes_and_harms_no_other_expert(
    tmp_path: Path, exponent: int
) -> None:
    """A scale is 2^(e-127), 255 of which no number has; tokens that choose it may be infinite."""
    name = "blk.3.ffn_down_exps.weight"
    spec = replace(GPT_OSS, tensor_types={name: "MXFP4"})
    shape = (spec.n_experts, spec.dim, 256)
    good = next(tensor for tensor in _tensors(spec) if tensor.name == name)
    blocks = np.frombuffer(good.data, np.uint8).reshape(spec.n_experts, -1, 17).copy()
    blocks[0, :, 0] = exponent
    path = with_tensors(
        tmp_path / "model.gguf", spec, {name: Tensor(name, "MXFP4", shape, blocks.tobytes())}
    )
    usual = logits_of(write_tiny_model(tmp_path / "usual.gguf", spec))
    logits = logits_of(path)
    kept = np.all(logits == usual, axis=1)
    assert kept.any()
    assert not kept.all()
    assert np.isfinite(logits[kept]).all()
    if exponent <= 100:
        assert error(path) <= INT8_STEP
