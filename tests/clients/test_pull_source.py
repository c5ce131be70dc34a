"""Local files as sources, and what the word behind ``llamactl pull`` means."""

import os
import random
from pathlib import Path

import pytest

from llamactl.source import LocalFile, model_name, path_of
from llamad_client import Failed, Refused

CONTENT = random.Random(5).randbytes(700_000)
MAX_BYTES = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("offset", [0, 1, 650_000, len(CONTENT)])
def test_a_file_is_read_from_an_offset_on(path: Path, offset: int) -> None:
    source = LocalFile(path, max_bytes=MAX_BYTES)
    start, pieces = source.open_at(offset)
    assert (start, b"".join(pieces)) == (offset, CONTENT[offset:])
    assert (source.file_bytes, source.sha256) == (len(CONTENT), "")


def test_an_offset_behind_the_end_begins_again(path: Path) -> None:
    start, pieces = LocalFile(path, max_bytes=MAX_BYTES).open_at(len(CONTENT) + 1)
    assert (start, b"".join(pieces)) == (0, CONTENT)


def test_another_content_has_another_identity(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = LocalFile(path, max_bytes=MAX_BYTES).identity
    monkeypatch.chdir(path.parent)
    assert LocalFile(Path("model.gguf"), max_bytes=MAX_BYTES).identity == first
    os.utime(path, ns=(1, 1))
    assert LocalFile(path, max_bytes=MAX_BYTES).identity != first


def test_a_file_that_changes_while_it_is_read_is_an_error(path: Path) -> None:
    source = LocalFile(path, max_bytes=MAX_BYTES)
    _, pieces = source.open_at(0)
    next(pieces)
    os.utime(path, ns=(1, 1))
    with pytest.raises(Failed, match="changed while it was read"):
        list(pieces)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(path: Path) -> None:
    source = LocalFile(path, max_bytes=MAX_BYTES)
    _, pieces = source.open_at(0)
    os.truncate(path, 1000)
    with pytest.raises(Failed, match="changed while it was read"):
        list(pieces)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(Refused, match="is no regular file"):
            LocalFile(path, max_bytes=MAX_BYTES)
    with pytest.raises(Refused, match="No such file or directory"):
        LocalFile(tmp_path / "nothing", max_bytes=MAX_BYTES)


def test_a_file_above_the_limit_is_refused(path: Path) -> None:
    with pytest.raises(Refused, match="has 700000 bytes, allowed are 699999"):
        LocalFile(path, max_bytes=699_999)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file:///a/b%20c.gguf", "/a/b c.gguf"),
        ("FILE://localhost/a", "/a"),
        ("./x", "x"),
        ("/a/b", "/a/b"),
        ("m.gguf", "m.gguf"),
    ],
)
def test_what_is_a_path(text: str, expected: str) -> None:
    assert path_of(text) == Path(expected)


@pytest.mark.parametrize("text", ["demo", "qwen2.5-0.5b", "https://h/m.gguf", "ftp://h/m"])
def test_what_is_no_path(text: str) -> None:
    assert path_of(text) is None


@pytest.mark.parametrize("text", ["file://host/a", "file:a", "file://"])
def test_a_file_url_of_another_machine_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="a file of this machine is file:///PATH"):
        path_of(text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b/Qwen3-4B-Q4_K_M.gguf", "Qwen3-4B-Q4_K_M"),
        ("/a/m%20x.GGUF", "m-x"),
        ("/a/model.bin/", "model.bin"),
        ("/..gguf", ""),
        ("/.hidden.gguf", "hidden"),
        ("/", ""),
        ("/" + "x" * 200 + ".gguf", "x" * 128),
        ("/größe.gguf", "gr-e"),
    ],
)
def test_the_name_a_path_suggests(path: str, expected: str) -> None:
    assert model_name(path) == expected
