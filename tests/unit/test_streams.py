"""llamad with the standard streams that cron and full disks leave: an answer, or one line and 1."""

import subprocess
import sys
from pathlib import Path

import pytest

from clients.running import environment
from unit.schedule.fakes import TIMEOUT_SECONDS

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A GGUF file without metadata and tensors, which `inspect` reads."""
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    return path


def llamad(arguments: str, redirections: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m llamad {arguments} {redirections}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def test_a_closed_standard_output_is_one_line(vocabulary: Path) -> None:
    for command in (f"inspect {vocabulary}", f"fit {vocabulary}", "perplexity m t", "bench m"):
        done = llamad(command, ">&-")
        assert (done.returncode, done.stderr) == (1, "llamad: standard output is closed\n")


@needs_full_device
@pytest.mark.parametrize("flags", ["", "--json"])
def test_a_full_disk_behind_standard_output_is_one_line(vocabulary: Path, flags: str) -> None:
    done = llamad(f"inspect {flags} {vocabulary}", ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "llamad: standard output: No space left on device\n"


@needs_full_device
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_standard_error_is_not_needed(vocabulary: Path, redirection: str) -> None:
    done = llamad(f"inspect {vocabulary}", redirection)
    assert (done.returncode, "GGUF" in done.stdout) == (0, True)
    done = llamad("inspect none", redirection)
    assert (done.returncode, done.stdout) == (1, "")


def test_all_streams_may_be_closed(vocabulary: Path) -> None:
    assert llamad(f"inspect {vocabulary}", "<&- >&- 2>&-").returncode == 1
    assert llamad("--version", "<&- >&- 2>&-").returncode == 0
