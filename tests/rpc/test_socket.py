"""The socket as a file: permissions, leftovers, and things that are not ours."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamad.door.unix_socket import group_id, make_room
from llamad.errors import LlamadError
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import serving
from unit.schedule.fakes import asynchronous


@pytest.fixture
def free_path() -> Iterator[Path]:
    """Return a free path short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "s.sock"


def refusal(path: Path) -> LlamadError:
    with pytest.raises(LlamadError) as caught:
        make_room(path)
    assert str(path) in caught.value.message
    return caught.value


@asynchronous
async def test_the_socket_is_for_owner_and_group_and_goes_away_at_the_end() -> None:
    async with serving() as service:
        mode = service.path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
    assert not service.path.exists()


@asynchronous
async def test_the_mask_of_the_process_is_as_before_after_binding() -> None:
    before = os.umask(0o022)
    try:
        async with serving():
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@asynchronous
async def test_a_second_service_on_a_live_socket_is_refused_and_the_first_goes_on() -> None:
    async with serving() as service, service.stub() as stub:
        assert refusal(service.path).reason == "SOCKET_IN_USE"
        assert (await stub.GetVersion(pb.GetVersionRequest())).api_version == "v1"


def test_a_stale_socket_is_removed(free_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(free_path))
    make_room(free_path)
    assert not free_path.exists()


def test_a_file_is_not_removed(free_path: Path) -> None:
    free_path.write_text("precious")
    error = refusal(free_path)
    assert (error.reason, "a file is there" in error.message) == ("SOCKET_PATH_TAKEN", True)
    assert free_path.read_text() == "precious"


def test_a_directory_is_not_removed(free_path: Path) -> None:
    free_path.mkdir()
    assert "a directory is there" in refusal(free_path).message
    assert free_path.is_dir()


def test_a_link_is_not_followed_and_not_removed(free_path: Path) -> None:
    target = free_path.with_name("other.sock")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(target))
    free_path.symlink_to(target)
    assert "a symbolic link is there" in refusal(free_path).message
    assert free_path.is_symlink()
    assert target.exists()


def test_a_fifo_is_not_removed(free_path: Path) -> None:
    os.mkfifo(free_path)
    assert "a FIFO is there" in refusal(free_path).message


def test_a_missing_directory_is_named(free_path: Path) -> None:
    path = free_path.parent / "missing" / "s.sock"
    assert str(path.parent) in refusal(path).message


def test_a_path_too_long_for_a_socket_is_refused(free_path: Path) -> None:
    path = free_path.with_name("x" * 120)
    assert "at most 107" in refusal(path).message


def test_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(LlamadError, match="no group 'no-such-group'"):
        group_id("no-such-group")
    assert group_id("") == -1
