"""The GGUF writer: what it writes reads back, and what it does not finish leaves nothing."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from llamad.engine.bindings import GgufFile
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import RawEntry, ValueType
from llamad.gguf.writer import GgufWriter

SCALARS: list[tuple[ValueType, bool | int | float | str]] = [
    (ValueType.UINT8, 255),
    (ValueType.INT8, -128),
    (ValueType.UINT16, 65535),
    (ValueType.INT16, -32768),
    (ValueType.UINT32, 2**32 - 1),
    (ValueType.INT32, -(2**31)),
    (ValueType.FLOAT32, 0.5),
    (ValueType.BOOL, True),
    (ValueType.STRING, "Grüße"),
    (ValueType.UINT64, 2**64 - 1),
    (ValueType.INT64, -(2**63)),
    (ValueType.FLOAT64, 1e300),
]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write_one(path: Path, data: bytes = bytes(64), **options: object) -> GgufWriter:
    """Write a file of one F32 tensor up to, but not with, ``finish``."""
    writer = GgufWriter(path, **options)  # type: ignore[arg-type]
    writer.add("general.architecture", "llama", ValueType.STRING)
    writer.add_tensor("a.weight", "F32", (4, 4))
    writer.begin()
    writer.write(data)
    return writer


def test_every_value_type_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "all.gguf"
    with GgufWriter(path) as writer:
        for kind, value in SCALARS:
            writer.add(f"one.{kind.name}", value, kind)
            writer.add_array(f"many.{kind.name}", [value, value], kind)
            writer.add_array(f"none.{kind.name}", [], kind)
        writer.begin()
        writer.finish()
    with GgufFile(path) as file:
        metadata = file.metadata()
        types = {entry.key: (entry.type_id, entry.element_type_id) for entry in file.raw_metadata()}
    for kind, value in SCALARS:
        assert metadata[f"one.{kind.name}"] == value
        assert metadata[f"many.{kind.name}"] == [value, value]
        assert metadata[f"none.{kind.name}"] == []
        assert types[f"one.{kind.name}"][0] == kind
        assert types[f"many.{kind.name}"] == (ValueType.ARRAY, kind)


def test_the_gguf_package_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    weights = np.arange(64, dtype=np.float32)
    halves = np.arange(96, dtype=np.float16)
    with GgufWriter(path) as writer:
        writer.add("general.architecture", "llama", ValueType.STRING)
        writer.add_array("tokens", ["a", "", "ß"], ValueType.STRING)
        writer.add_tensor("a.weight", "F32", (16, 4))
        writer.add_tensor("b.weight", "F16", (3, 32))
        writer.begin()
        for data in (weights.tobytes(), halves.tobytes()):
            for start in range(0, len(data), 50):  # pieces that end inside elements
                writer.write(data[start : start + 50])
        writer.finish()
        assert writer.file_bytes == path.stat().st_size
    reader = gguf.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == ["a.weight", "b.weight"]
    assert np.array_equal(reader.tensors[0].data, weights.reshape(4, 16))
    assert np.array_equal(reader.tensors[1].data, halves.reshape(32, 3))
    assert reader.fields["tokens"].contents() == ["a", "", "ß"]


def test_a_copied_file_keeps_every_byte_of_its_metadata(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.gguf", tmp_path / "b.gguf"
    broken = b"\xff\xfe\x80".decode("utf-8", "surrogateescape")
    with GgufWriter(source) as writer:
        for kind, value in SCALARS:
            writer.add(f"one.{kind.name}", value, kind)
            writer.add_array(f"many.{kind.name}", [value] * 3, kind)
        writer.add("broken", broken, ValueType.STRING)
        writer.add_array("broken.many", [broken, "whole"], ValueType.STRING)
        writer.add_array("empty", [], ValueType.UINT8)
        writer.begin()
        writer.finish()
    with GgufFile(source) as file:
        entries = file.raw_metadata()
        assert file.metadata()["broken"] == broken
    with GgufWriter(copy) as writer:
        for entry in entries:
            writer.add_raw(entry)
        writer.begin()
        writer.finish()
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("alignment", [8, 32, 128])
def test_tensors_lie_aligned(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "a.gguf"
    with GgufWriter(path) as writer:
        writer.add_raw(
            RawEntry(
                "general.alignment",
                ValueType.UINT32,
                ValueType.UINT32,
                1,
                struct.pack("<I", alignment),
            )
        )
        for i in range(3):
            writer.add_tensor(f"{i}.weight", "F16", (3, 3))
        writer.begin()
        for i in range(3):
            writer.write(bytes([i]) * 18)
        writer.finish()
    content = path.read_bytes()
    with GgufFile(path) as file:
        for i, tensor in enumerate(file.tensors()):
            assert tensor.file_offset % alignment == 0
            assert content[tensor.file_offset :][:18] == bytes([i]) * 18


def test_nothing_has_the_name_before_the_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"the old file")
    writer = write_one(path)
    assert path.read_bytes() == b"the old file"
    writer.finish()
    assert path.read_bytes()[:4] == b"GGUF"
    assert names(tmp_path) == ["a.gguf"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_whatever_ends_the_writing_leaves_no_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def interrupted() -> None:
        with write_one(tmp_path / "a.gguf"):
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []


def test_leaving_without_finish_leaves_no_file(tmp_path: Path) -> None:
    with write_one(tmp_path / "a.gguf"):
        assert names(tmp_path) == [".a.gguf.part"]
    assert names(tmp_path) == []


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.gguf.part").write_bytes(bytes(100_000))
    writer = write_one(tmp_path / "a.gguf")
    writer.finish()
    assert (tmp_path / "a.gguf").stat().st_size == writer.file_bytes < 1000


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with write_one(tmp_path / "a.gguf") as first:
        with pytest.raises(LlamadError, match="being written by another process"):
            write_one(tmp_path / "a.gguf")
        first.finish()
    assert names(tmp_path) == ["a.gguf"]


def test_a_full_disk_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    small = list(real)
    small[0], small[1], small[4] = 1, 1, 100  # f_bsize, f_frsize, f_bavail: 100 bytes
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(small))

    def write() -> None:
        with GgufWriter(tmp_path / "a.gguf") as writer:
            writer.add_tensor("a.weight", "F32", (1024, 1024))
            writer.begin()

    with pytest.raises(
        LlamadError, match=r"a\.gguf needs 4\.2 MB, .* has 0\.0 MB available"
    ) as raised:
        write()
    assert raised.value.kind is ErrorKind.EXHAUSTED
    assert names(tmp_path) == []


def test_a_disk_that_fills_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with GgufWriter(tmp_path / "a.gguf") as writer:
            writer.add_tensor("a.weight", "F32", (4, 4))
            writer.begin()
            monkeypatch.setattr(os, "write", fail)
            writer.write(bytes(64))

    with pytest.raises(
        LlamadError, match=r"a\.gguf: No space left on device with 0\.0 of 0\.0 MB still to write"
    ) as raised:
        write()
    assert raised.value.reason == "DISK_FULL"
    assert names(tmp_path) == []


def interrupted(path: Path, data: bytes) -> None:
    """Leave the first of two tensors, as an interrupt does."""
    with GgufWriter(path, identity="job") as writer:
        declare_two(writer)
        writer.begin()
        writer.write(data)
        raise KeyboardInterrupt


def declare_two(writer: GgufWriter) -> None:
    writer.add_tensor("a.weight", "F32", (16, 16))
    writer.add_tensor("b.weight", "F32", (16, 16))


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary file of an interrupted writer of a.gguf."""
    monkeypatch.setattr("llamad.gguf.writer.JOURNAL_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a.gguf", bytes(range(256)) * 4)
    return tmp_path / ".a.gguf.part"


def test_too_little_room_for_the_rest_keeps_what_is_there(
    tmp_path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = part.read_bytes(), os.statvfs(tmp_path)
    small = [*real[:4], 0, *real[5:10]]  # f_bavail

    def go_on() -> None:
        with GgufWriter(tmp_path / "a.gguf", identity="job") as writer:
            declare_two(writer)
            writer.begin()

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: os.statvfs_result(small))
        with pytest.raises(LlamadError, match=r"needs 0\.0 MB"):
            go_on()
    assert part.read_bytes() == before
    with GgufWriter(tmp_path / "a.gguf", identity="job") as writer:
        declare_two(writer)
        writer.begin()
        assert writer.n_complete == 1
        writer.write(bytes(1024))
        writer.finish()
    assert names(tmp_path) == ["a.gguf"]


def test_the_check_of_what_is_there_is_reported(tmp_path: Path, part: Path) -> None:
    checked: list[int] = []
    with GgufWriter(tmp_path / "a.gguf", identity="job") as writer:
        declare_two(writer)
        assert writer.left_bytes == part.stat().st_size
        writer.begin(checked.append)
        assert sum(checked) == writer.left_bytes


def test_an_interrupt_of_the_check_keeps_what_is_there(tmp_path: Path, part: Path) -> None:
    def interrupt(n_bytes: int) -> None:
        raise KeyboardInterrupt

    def go_on() -> None:
        with GgufWriter(tmp_path / "a.gguf", identity="job") as writer:
            declare_two(writer)
            writer.begin(interrupt)

    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        go_on()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_temporary_name_that_is_an_input_is_refused(tmp_path: Path, part: Path) -> None:
    before = part.read_bytes()
    with pytest.raises(LlamadError, match="is the input"):
        GgufWriter(tmp_path / "a.gguf", inputs=[part])
    assert part.read_bytes() == before


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[int, memoryview], int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, memoryview(data)[:7]))
    write_one(tmp_path / "a.gguf", bytes(range(64))).finish()
    assert (tmp_path / "a.gguf").read_bytes()[-64:] == bytes(range(64))


def test_the_output_is_never_the_input(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"the model")
    (tmp_path / "link.gguf").symlink_to(path)
    (tmp_path / "same.gguf").hardlink_to(path)
    for name in ("a.gguf", "link.gguf", "same.gguf"):
        with pytest.raises(LlamadError, match="is the input"):
            GgufWriter(tmp_path / name, inputs=[path])
    assert path.read_bytes() == b"the model"


def test_places_where_no_file_can_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / ".a.gguf.part")
    for name, fault in (
        ("folder", "no regular file"),
        ("pipe", "no regular file"),
        ("a.gguf", r"\.a\.gguf\.part exists and is no regular file"),
        ("missing/a.gguf", "directory does not exist"),
        ("file/a.gguf", "Not a directory"),
    ):
        with pytest.raises(LlamadError, match=fault):
            GgufWriter(tmp_path / name)


def test_misuse_is_an_error(tmp_path: Path) -> None:
    with GgufWriter(tmp_path / "a.gguf") as writer:
        writer.add_tensor("a.weight", "Q4_0", (32, 2))
        with pytest.raises(ValueError, match="declared twice"):
            writer.add_tensor("a.weight", "F32", (4,))
        with pytest.raises(ValueError, match="cannot be Q4_K"):
            writer.add_tensor("b.weight", "Q4_K", (32, 2))
        with pytest.raises(ValueError, match="alignment is declared before"):
            writer.add("general.alignment", 64, ValueType.UINT32)
        writer.begin()
        with pytest.raises(ValueError, match="writing has begun"):
            writer.add("late", 1, ValueType.UINT8)
        writer.write(bytes(18))
        with pytest.raises(ValueError, match="0 of 1 tensors"):
            writer.finish()
        with pytest.raises(ValueError, match="has 36 bytes, more are written"):
            writer.write(bytes(19))


def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path: Path) -> None:
    with write_one(tmp_path / "a.gguf") as writer:
        with writer.temporary_path.open("r+b") as other:
            other.seek(writer.temporary_path.read_bytes().index(b"a.weight"))
            other.write(b"b")
        with pytest.raises(LlamadError, match="reads back otherwise"):
            writer.finish()
    assert names(tmp_path) == []
