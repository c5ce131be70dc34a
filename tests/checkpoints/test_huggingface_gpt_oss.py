"""gpt-oss: blocks and scales of a folder become GGUF's MXFP4, and what is refused.

That a folder has the logits of transformers itself ``tests/tools/test_transformers.py`` says.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llamad.errors import LlamadError
from llamad_tools.checkpoints.huggingface_families import FAMILIES
from llamad_tools.checkpoints.huggingface_gpt_oss import arrange_gpt_oss, join_mxfp4
from llamad_tools.checkpoints.source import SourceTensor

FOLDER = Path("folder")
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # OCP MX 1.0, 5.3.3
CONFIG: dict[str, Any] = {
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 8,
}


def stored(name: str, values: NDArray[np.uint8] | NDArray[np.float32]) -> SourceTensor:
    """Return a tensor that a file might hold."""
    data = np.ascontiguousarray(values).reshape(-1, values.shape[-1]).view(np.uint8)
    type_name = "U8" if values.dtype == np.uint8 else "F32"
    return SourceTensor(name, values.shape, type_name, lambda start, stop: data[start:stop])


def experts(n_rows: int, n_blocks: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return blocks (3, n_rows, n_blocks, 16) and scales (3, n_rows, n_blocks)."""
    random = np.random.default_rng(n_rows)
    blocks = random.integers(0, 256, (3, n_rows, n_blocks, 16), np.uint8)
    return blocks, random.integers(120, 130, (3, n_rows, n_blocks)).astype(np.uint8)


def published(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the weights: a byte's lower half is the earlier of two."""
    values = np.array([*E2M1, *(-value for value in E2M1)])
    pairs = np.stack([values[blocks & 15], values[blocks >> 4]], axis=-1)
    weights = pairs.reshape(*blocks.shape[:-1], 32) * 2.0 ** (scales[..., None].astype(int) - 127)
    return weights.reshape(*blocks.shape[:2], -1)


def converted(*tensors: SourceTensor) -> dict[str, SourceTensor]:
    parts = [part for tensor in tensors for part in arrange_gpt_oss(FOLDER, CONFIG, tensor)]
    return {tensor.name: tensor for tensor in join_mxfp4(FOLDER, parts)}


def weights_of(tensor: SourceTensor) -> NDArray[np.float32]:
    """Return what another reader of GGUF makes of the rows, read in two pieces."""
    assert tensor.type_name == "MXFP4"
    rows = np.concatenate([tensor.read_rows(0, 5), tensor.read_rows(5, tensor.n_rows)])
    values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType.MXFP4)
    return values.reshape(tensor.shape)


def test_blocks_and_scales_become_rows_of_mxfp4() -> None:
    blocks, scales = experts(64, 3)
    found = converted(
        stored("blk.0.ffn_down_exps.blocks", blocks), stored("blk.0.ffn_down_exps.scales", scales)
    )
    assert list(found) == ["blk.0.ffn_down_exps.weight"]
    assert np.array_equal(
        weights_of(found["blk.0.ffn_down_exps.weight"]), published(blocks, scales)
    )


def test_rows_of_gate_and_up_alternate() -> None:
    blocks, scales = experts(192, 2)
    bias = np.arange(3 * 192, dtype=np.float32).reshape(3, 192)
    name = "blk.0.ffn_gate_up_exps"
    found = converted(
        stored(f"{name}.blocks", blocks),
        stored(f"{name}.scales", scales),
        stored(f"{name}.bias", bias),
    )
    expected = published(blocks, scales)
    for first, part in enumerate(("gate", "up")):
        assert np.array_equal(
            weights_of(found[f"blk.0.ffn_{part}_exps.weight"]), expected[:, first::2]
        )
        rows = found[f"blk.0.ffn_{part}_exps.bias"].read_rows(0, 3).view(np.float32)
        assert np.array_equal(rows, bias[:, first::2])
    assert len(found) == 4


def test_what_is_no_block_is_refused() -> None:
    blocks, scales = experts(64, 3)
    name = "blk.0.ffn_down_exps"
    whole = stored(f"{name}.blocks", blocks)
    for tensors, message in (
        ([whole], "has no scales"),
        ([whole, stored(f"{name}.scales", scales[:, :, :2])], "scales U8"),
        ([whole, stored(f"{name}.scales", scales.astype(np.float32))], "scales F32"),
        ([stored(f"{name}.blocks", blocks[..., :8])], "must end in blocks of 16 bytes"),
        ([stored(f"{name}.blocks", scales)], "must end in blocks of 16 bytes"),
        ([stored("blk.0.ffn_gate_up_exps.bias", np.ones((3, 5), np.float32))], "no gate and up"),
        ([stored("blk.0.attn_q.weight", scales[0])], "is U8, which is no type of weights"),
        ([stored(f"{name}.scales", scales)], "is U8, which is no type of weights"),
    ):
        with pytest.raises(LlamadError, match=message):
            converted(*tensors)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("swiglu_limit", 8.0),
        ("swiglu_alpha", 1.0),
        ("sliding_window", 0),
        ("num_local_experts", 1 << 31),
        ("num_experts_per_tok", 4),
        ("intermediate_size", "wide"),
        ("head_dim", None),
    ],
)
def test_a_key_that_a_file_cannot_say_is_named(key: str, value: object) -> None:
    family = FAMILIES["gpt_oss"]

    def read() -> None:
        family.keys(FOLDER, CONFIG | {key: value})
        family.layers(FOLDER, CONFIG | {key: value})

    with pytest.raises(LlamadError, match=key):
        read()
