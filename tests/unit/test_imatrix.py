"""Reading importance matrices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from llamad.engine.gguf_value import ValueType
from llamad.errors import LlamadError
from llamad.models.gguf_writer import GgufWriter
from llamad.models.imatrix import read_imatrix


def write(path: Path, tensors: Mapping[str, tuple[str, list[float]]]) -> Path:
    with GgufWriter(path) as writer:
        writer.add("general.type", "imatrix", ValueType.STRING)
        for name, (type_name, values) in tensors.items():
            writer.add_tensor(name, type_name, (len(values),))
        writer.begin()
        for type_name, values in tensors.values():
            writer.write(np.array(values, "<f4" if type_name == "F32" else "<f2").tobytes())
        writer.finish()
    return path


def test_importance_is_the_mean_square_of_each_column(tmp_path: Path) -> None:
    tensors = {
        "blk.0.attn_q.weight.in_sum2": ("F32", [8.0, 0.0, 2.0]),
        "blk.0.attn_q.weight.counts": ("F32", [4.0]),
        "blk.0.ffn_up.weight.counts": ("F32", [0.0]),
        "blk.0.ffn_up.weight.in_sum2": ("F32", [0.0, 0.0]),
    }
    found = read_imatrix(write(tmp_path / "i.gguf", tensors))
    assert {name: list(values) for name, values in found.items()} == {
        "blk.0.attn_q.weight": [2.0, 0.0, 0.5],
        "blk.0.ffn_up.weight": [0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"a.weight": ("F32", [1.0])}, "holds no importance matrix"),
        ({"a.in_sum2": ("F32", [1.0])}, "a has no counts"),
        ({"a.in_sum2": ("F16", [1.0]), "a.counts": ("F32", [1.0])}, "is F16, expected F32"),
        ({"a.in_sum2": ("F32", [1.0]), "a.counts": ("F32", [1.0, 1.0])}, "has 2 experts"),
        ({"a.in_sum2": ("F32", [-1.0]), "a.counts": ("F32", [1.0])}, "negative or not finite"),
        ({"a.in_sum2": ("F32", [np.nan]), "a.counts": ("F32", [1.0])}, "negative or not finite"),
    ],
)
def test_what_is_no_importance_matrix_is_named(
    tmp_path: Path, tensors: dict[str, tuple[str, list[float]]], fault: str
) -> None:
    with pytest.raises(LlamadError, match=fault):
        read_imatrix(write(tmp_path / "i.gguf", tensors))
