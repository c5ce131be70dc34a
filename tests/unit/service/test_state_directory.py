"""The state directory: one service holds it; what cannot be used is named and left as it is."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamad.service.state_directory import LOCK, VERSION_FILE, StateDirectory


def opened(path: Path) -> StateDirectory:
    directory = StateDirectory(path)
    directory.open()
    return directory


def test_a_directory_is_used_by_one_service_after_the_other(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.usable
    second = opened(tmp_path)
    assert second.fault == (
        f"state directory {tmp_path} is used by another service, process {os.getpid()}"
    )
    first.close()
    assert not first.usable
    assert opened(tmp_path).usable


def test_a_killed_service_leaves_it_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path;"
        "from llamad.service.state_directory import StateDirectory;"
        "d = StateDirectory(Path(sys.argv[1])); d.open(); print(d.usable, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    child = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=False)
    assert (child.returncode, child.stdout) == (-9, b"True\n")
    assert opened(tmp_path).usable


def test_one_that_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    directory = opened(tmp_path / "state")
    assert "does not exist" in directory.fault
    assert "service.state_directory" in directory.fault
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("refused", [LOCK, VERSION_FILE + ".new"])
def test_a_disk_that_refuses_is_named(
    tmp_path: Path, code: int, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if Path(path).name == refused and flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return allowed(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    directory = opened(tmp_path)
    assert directory.fault == f"state directory {tmp_path} cannot be written: {os.strerror(code)}"
    monkeypatch.undo()
    assert opened(tmp_path).usable  # it is not held


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "cannot be written: Not a directory" in opened(tmp_path / "state").fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"llamad state 2\n", "was written by a newer llamad, version 2; this one knows 1"),
        (b"llamad state 99999\n", "version 99999"),
        (b"", "is not a file of llamad"),
        (b"llamad state -1\n", "is not a file of llamad"),
        (b"\xff" * 100_000, "is not a file of llamad"),
    ],
)
def test_what_another_version_wrote_stays_as_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / VERSION_FILE).write_bytes(content)
    directory = opened(tmp_path)
    assert said in directory.fault
    assert (tmp_path / VERSION_FILE).read_bytes() == content


def test_links_in_it_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / LOCK).symlink_to(victim)
    assert "cannot be written" in opened(tmp_path).fault
    (tmp_path / LOCK).unlink()
    (tmp_path / VERSION_FILE).symlink_to(victim)
    assert "is not a file of llamad" in opened(tmp_path).fault
    assert victim.read_text() == "precious"
