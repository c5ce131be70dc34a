"""A .pth is read without running anything, and a broken one is refused with a reason.

The files of ``pth_file.py`` are written by hand in torch's layout; ``test_torch_files.py`` has what
torch itself writes.
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

from checkpoints.converting import IRREGULAR, make_irregular
from llamad.errors import ErrorKind, LlamadError
from llamad_tools.checkpoints.pickle_tensors import STORAGE_TYPES, PickledTensor, read_tensors
from llamad_tools.checkpoints.pth_file import PthFile
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
        b"\x80\x05\x96" + struct.pack("<Q", 64 << 30) + b".",  # of all memory
        b"\x80\x02})" + 64 * b"2\x86" + b"Ns.",  # a key of 2 ** 64 nested tuples
        b"\x80\x02}()" + 64 * b"2\x86" + b"Nu.",
        b"\x80\x02()" + 64 * b"2\x86" + b"Nd.",
        b"\x80\x02ccollections\nOrderedDict\n]]K\x01K\x02e\x85R.",  # made of pairs
        b"\x80\x02\x8f(K\x01\x90.",  # a set
        b"\x80\x02ctorch\nHalfStorage\n)\x81.",  # an instance
        b"\x80\x02\x82\x01.",  # a global by its number in copyreg
    ],
)
def test_a_pickle_that_is_no_state_dictionary_is_refused(pickled: bytes) -> None:
    error = refusal(lambda: read_tensors(pickled, HERE))
    assert str(HERE) in error.message


def test_deep_nesting_is_refused() -> None:
    pickled = b"\x80\x02" + 300_000 * b"]" + 299_999 * b"a" + b"."
    assert "holds a list" in refusal(lambda: read_tensors(pickled, HERE)).message


def test_what_the_globals_stand_for_cannot_be_changed() -> None:
    """A frozen dataclass with slots takes its fields from BUILD, unless that is refused."""
    kinds = dict(STORAGE_TYPES)
    error = refusal(
        lambda: read_tensors(b"\x80\x02ctorch\nHalfStorage\n(X\x02\0\0\0U8M\0\1lb.", HERE)
    )
    assert "attributes" in error.message
    assert kinds == STORAGE_TYPES


def test_a_name_in_a_message_cannot_write_to_the_terminal() -> None:
    attack = b"\x80\x04\x8c\x06\x1b[2Jos\x94\x8c\x07sy\nstem\x94\x93."
    message = refusal(lambda: read_tensors(attack, HERE)).message
    assert message.isprintable()
    assert "[2Jos" in message


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


def test_a_directory_as_large_as_the_file_is_not_read(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    n_bytes = 3 << 30  # sparse
    with path.open("r+b") as file:
        file.truncate(n_bytes)
        file.seek(n_bytes)
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, n_bytes, 0, 0))
    assert "larger than" in refusal(lambda: PthFile(path)).message


@pytest.mark.parametrize("seed", range(40))
def test_changed_bytes_of_the_directory_give_tensors_or_a_refusal(
    tmp_path: Path, seed: int
) -> None:
    path = write_pth(tmp_path / "model.pth", TENSORS)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for _ in range(2):
        at = int(rng.integers(content.find(b"PK\1\2"), len(content)))
        content[at] = int(rng.integers(256))
    path.write_bytes(content)
    try:
        file = PthFile(path)
        found = [file.tensor(name).read_rows(0, 1).nbytes for name in file.names()]
    except LlamadError:
        return  # any other exception fails the test
    assert found == [16, 96]


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pth"
    make_irregular(path, kind)
    assert "no regular file" in refusal(lambda: PthFile(path)).message


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
