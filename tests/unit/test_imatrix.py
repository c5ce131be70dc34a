"""Reading importance matrices."""

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from llamad.errors import LlamadError
from llamad.gguf.value import ValueType
from llamad.gguf.writer import GgufWriter
from llamad_tools.importance.file import read_imatrix


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


def test_each_expert_has_its_own_mean_and_one_that_nothing_chose_has_zeros(tmp_path: Path) -> None:
    name = "blk.0.ffn_up_exps.weight"
    tensors = {
        f"{name}.in_sum2": ("F32", [8.0, 2.0, 9.0, 0.0, 0.0, 0.0]),
        f"{name}.counts": ("F32", [4.0, 3.0, 0.0]),
    }
    found = read_imatrix(write(tmp_path / "i.gguf", tensors))
    assert list(found[name]) == [2.0, 0.5, 3.0, 0.0, 0.0, 0.0]


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
        (
            {"a.in_sum2": ("F32", [1.0] * 3), "a.counts": ("F32", [1.0, 1.0])},
            "a has 3 sums, no multiple of 2 counts",
        ),
        (
            {"a.in_sum2": ("F32", [1.0, -1.0]), "a.counts": ("F32", [1.0, 1.0])},
            "negative or not finite",
        ),
        ({"a.in_sum2": ("F32", [-1.0]), "a.counts": ("F32", [1.0])}, "negative or not finite"),
        ({"a.in_sum2": ("F32", [np.nan]), "a.counts": ("F32", [1.0])}, "negative or not finite"),
    ],
)
def test_what_is_no_importance_matrix_is_named(
    tmp_path: Path, tensors: dict[str, tuple[str, list[float]]], fault: str
) -> None:
    with pytest.raises(LlamadError, match=fault):
        read_imatrix(write(tmp_path / "i.gguf", tensors))


def dat(entries: Mapping[str, tuple[int, list[float]]]) -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, (n_calls, sums) in entries.items():
        raw = name.encode()
        parts.append(struct.pack("<i", len(raw)) + raw + struct.pack("<ii", n_calls, len(sums)))
        parts.append(struct.pack(f"<{len(sums)}f", *sums))
    return b"".join(parts)


@pytest.mark.parametrize("trailer", [b"", struct.pack("<ii", 7, 5) + b"a.txt"])
def test_the_older_form_is_read_too(tmp_path: Path, trailer: bytes) -> None:
    path, entries = tmp_path / "imatrix.dat", {"a.weight": (4, [8.0, 2.0]), "b": (0, [3.0])}
    path.write_bytes(dat(entries) + trailer)
    found = {name: list(values) for name, values in read_imatrix(path).items()}
    assert found == {"a.weight": [2.0, 0.5], "b": [3.0]}


WHOLE = dat({"a.weight": (4, [8.0, 2.0])})


@pytest.mark.parametrize("n_bytes", [0, 3, 6, 12, 20, len(WHOLE) - 1])
def test_an_older_file_that_ends_early_is_refused(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(WHOLE[:n_bytes])
    with pytest.raises(LlamadError, match=r"imatrix\.dat is no imatrix\.dat: "):
        read_imatrix(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a text, for example", "no GGUF and no imatrix.dat"),
        (struct.pack("<i", 0), "no GGUF and no imatrix.dat"),
        (struct.pack("<ii", 1, -5) + bytes(64), "-5 bytes at 8, 64 left"),
        (dat({"a": (1, [math.nan])}), "negative or not finite"),
        (dat({"a": (1, [-1.0])}), "negative or not finite"),
    ],
)
def test_what_is_no_older_file_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(LlamadError, match=fault):
        read_imatrix(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LlamadError, match=r"none\.gguf: No such file"):
        read_imatrix(tmp_path / "none.gguf")
