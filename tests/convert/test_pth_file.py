"""A .pth is read without running anything, and a broken one is refused with a reason.

What torch itself writes is compared where torch is installed; the files of ``pth_file.py`` are
written by hand in the same layout.
"""

import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamad.convert.pickle_tensors import PickledTensor, read_tensors
from llamad.convert.pth_file import PthFile
from llamad.errors import ErrorKind, LlamadError
from pth_file import PthTensor, encode, pickled_state, write_pth

VALUES = np.random.default_rng(1).normal(0, 1, (6, 8)).astype(np.float32)
TENSORS = {
    "a.weight": PthTensor("F16", (6, 8), encode(VALUES, "F16")),
    "b.weight": PthTensor("BF16", (48,), encode(VALUES, "BF16")),
}
HERE = Path("model.pth")


def refusal(action: Callable[[], object]) -> LlamadError:
    with pytest.raises(LlamadError) as caught:
        action()
    return caught.value


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_a_tensor_is_read_in_pieces(tmp_path: Path, type_name: str) -> None:
    data = encode(VALUES, type_name)
    path = write_pth(tmp_path / "model.pth", {"a": PthTensor(type_name, (6, 8), data)})
    tensor = PthFile(path).tensor("a")
    assert (tensor.shape, tensor.type_name) == ((6, 8), type_name)
    pieces = [tensor.read_rows(0, 1), tensor.read_rows(1, 5), tensor.read_rows(5, 6)]
    assert b"".join(piece.tobytes() for piece in pieces) == data


def test_what_torch_writes_reads_back_identical(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(6, 8)
    for dtype, type_name in ((torch.float16, "F16"), (torch.bfloat16, "BF16")):
        path = tmp_path / f"{type_name}.pth"
        torch.save({"a": values.to(dtype), "b": torch.nn.Parameter(values.to(dtype))}, path)
        file = PthFile(path)
        for name in ("a", "b"):
            tensor = file.tensor(name)
            assert tensor.type_name == type_name
            truth = values.to(dtype).view(torch.int16).numpy().tobytes()
            assert tensor.read_rows(0, 6).tobytes() == truth


# ---- the pickle --------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of a function, the way an attack is written."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"\.system"),
        (eval, r"\.eval"),
        (getattr, r"\.getattr"),
        (__import__, r"\.__import__"),
        (pickle.loads, r"pickle\.loads"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_forbidden_global_is_named_and_not_called(
    tmp_path: Path, function: Callable[..., object], name: str, protocol: int
) -> None:
    trace = tmp_path / "ran"
    attack = pickle.dumps({"a": Calls(function, f"touch {trace}")}, protocol)
    path = write_pth(tmp_path / "model.pth", TENSORS, pickled=attack)
    error = refusal(lambda: PthFile(path))
    assert error.kind is ErrorKind.STATE
    assert re.search(name, error.message)
    assert not trace.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        pickle.dumps([1, 2]),
        pickle.dumps({"a": 1}),
        pickle.dumps({1: None}),
        pickled_state(TENSORS)[:-5],
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",  # BUILD on ours
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",  # called without arguments
        b"\x80\x02r\xff\xff\xff\xff.",  # a memo entry of four thousand million
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray of eight exabytes
    ],
)
def test_a_pickle_that_is_no_state_dictionary_is_refused(pickled: bytes) -> None:
    error = refusal(lambda: read_tensors(pickled, HERE))
    assert str(HERE) in error.message


def test_attributes_of_a_state_dictionary_are_ignored() -> None:
    pickled = pickled_state(TENSORS)
    with_metadata = pickled[:-1] + b"}X\x09\x00\x00\x00_metadata}sb."
    assert list(read_tensors(with_metadata, HERE)) == list(TENSORS)


@pytest.mark.parametrize("seed", range(60))
def test_a_changed_byte_of_the_pickle_gives_tensors_or_a_refusal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pickled = bytearray(pickled_state(TENSORS))
    for _ in range(3):
        pickled[int(rng.integers(len(pickled)))] = int(rng.integers(256))
    try:
        found = read_tensors(bytes(pickled), HERE)
    except LlamadError:
        return  # any other exception fails the test
    assert all(isinstance(tensor, PickledTensor) for tensor in found.values())


# ---- the archive -------------------------------------------------------------------------------


def test_a_truncated_archive_is_refused_at_every_length(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        assert str(path) in refusal(lambda: PthFile(path)).message


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    content = bytearray(path.read_bytes())
    content[content.find(TENSORS["a.weight"].data) + 11] ^= 1
    path.write_bytes(content)
    tensor = PthFile(path).tensor("a.weight")
    tensor.read_rows(0, 3)
    error = refusal(lambda: tensor.read_rows(3, 6))
    assert error.kind is ErrorKind.CORRUPT
    assert "checksum" in error.message


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    tensor = PthFile(path).tensor("a.weight")
    os.truncate(path, 100)
    assert "ends at byte" in refusal(lambda: tensor.read_rows(0, 6)).message


def test_torch_files_from_before_the_zip_get_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    assert "before 1.6" in refusal(lambda: PthFile(path)).message


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "torch.save" in refusal(lambda: PthFile(path)).message


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], method: int) -> Path:
    """Write the archive's members again, changed or left out, with another compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize(
    ("changed", "data", "word"),
    [
        ("archive/data/0", None, "storage 0 of a.weight is missing"),
        ("archive/data/0", b"\0" * 94, "has 94 bytes, not 96"),
        ("archive/data.pkl", None, "data.pkl"),
        ("archive/byteorder", b"big", "little-endian"),
    ],
)
def test_members_that_do_not_fit_are_named(
    tmp_path: Path, changed: str, data: bytes | None, word: str
) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    rewritten(path, lambda name, old: data if name == changed else old, zipfile.ZIP_STORED)
    assert word in refusal(lambda: PthFile(path).tensor("a.weight")).message


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    rewritten(path, lambda name, old: old, zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(lambda: PthFile(path)).message


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"K\x06K\x08\x86", b"K\x07K\x08\x86", "beyond its storage"),  # the shape
        (b"K\x08K\x01\x86", b"K\x01K\x06\x86", "strides"),
        (b"HalfStorage", b"LongStorage", "not weights"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(
    tmp_path: Path, old: bytes, new: bytes, word: str
) -> None:
    pickled = pickled_state({"a.weight": TENSORS["a.weight"]})
    assert pickled.count(old) == 1
    path = write_pth(tmp_path / "model.pth", TENSORS, pickled=pickled.replace(old, new))
    assert word in refusal(lambda: PthFile(path).tensor("a.weight")).message


def test_a_local_header_that_is_gone_is_noticed(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        struct.pack_into("<I", content, archive.getinfo("archive/data/1").header_offset, 0)
    path.write_bytes(content)
    assert "local header" in refusal(lambda: PthFile(path)).message
