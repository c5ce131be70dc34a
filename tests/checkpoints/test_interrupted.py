"""A conversion that is interrupted, killed or has no room: what it leaves, and how it goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints.converting import convert, refused
from checkpoints.llama_folder import LAYERS, write
from llamad.__main__ import main
from llamad.gguf.writer import GgufWriter
from llamad_tools.advice.recommendation import fit
from llamad_tools.advice.source import read_shape
from pretend_machine import machine
from unit.schedule.fakes import TIMEOUT_SECONDS

# A conversion in a process of its own that gets a signal at one of its pieces, or has a limit of
# bytes to a file; every tensor goes to the journal.
SCRIPT = """
import os, resource, sys
from llamad.__main__ import main
from llamad.gguf import writer as gguf_writer

source, out, signal, at, limit = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
real, pieces = gguf_writer.GgufWriter.write, []

def write(writer, data):
    if len(pieces) == at:
        os.kill(os.getpid(), signal)
    pieces.append(len(data))
    real(writer, data)

gguf_writer.JOURNAL_BYTES = 0
gguf_writer.GgufWriter.write = write
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.exit(main(["convert", source, out]))
"""
N_PIECES = 3 + 9 * LAYERS  # one to a tensor


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    folder = write(tmp_path)
    real = os.write
    calls: list[int] = []

    def full_after_a_while(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full_after_a_while)
    assert "No space left" in refused(capsys, folder, out)
    assert len(calls) > 9


def test_an_interrupt_leaves_no_file(tmp_path: Path, out: Path, monkeypatch: Any) -> None:
    folder = write(tmp_path)
    written = []

    def interrupted(writer: Any, data: Any) -> None:
        written.append(writer.temporary_path.exists())
        raise KeyboardInterrupt

    monkeypatch.setattr("llamad.gguf.writer.GgufWriter.write", interrupted)
    assert main(["convert", str(folder), str(out)]) == 130
    assert written == [True]
    assert list(out.parent.iterdir()) == []


def run_apart(
    folder: Path, out: Path, *, signalled: int = 0, at: int = -1, limit: int = 1 << 30
) -> subprocess.CompletedProcess[str]:
    arguments = [str(folder), str(out), str(signalled), str(at), str(limit)]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [3, 16])
def test_a_process_that_is_ended_leaves_what_the_next_one_goes_on_from(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], signalled: int, at: int
) -> None:
    folder = write(tmp_path)
    whole = convert(folder, tmp_path / "whole.gguf").read_bytes()
    ended = run_apart(folder, out, signalled=signalled, at=at)
    is_interrupt = signalled == signal.SIGINT
    assert ended.returncode == (130 if is_interrupt else -signalled)
    assert ("the same command goes on from here" in ended.stderr) == is_interrupt
    assert not out.exists()
    assert convert(folder, out).read_bytes() == whole
    assert f"{at} of {N_PIECES} tensors are there" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_limit_of_the_file_size_leaves_no_file(tmp_path: Path, out: Path) -> None:
    folder = write(tmp_path)
    n_bytes = convert(folder, tmp_path / "whole.gguf").stat().st_size
    ended = run_apart(folder, out, limit=n_bytes - 10_000)
    assert ended.returncode == 1
    assert f"{out}: File too large with 0.0 of {n_bytes / 1e6:.1f} MB" in ended.stderr
    assert list(out.parent.iterdir()) == []


class Interrupted:
    """Counts the pieces a writer gets, and interrupts at one of them."""

    def __init__(self, monkeypatch: Any, at: int | None) -> None:
        self.n_pieces = 0
        real = GgufWriter.write

        def write_piece(writer: GgufWriter, data: Any) -> None:
            if self.n_pieces == at:
                raise KeyboardInterrupt
            self.n_pieces += 1
            real(writer, data)

        monkeypatch.setattr(GgufWriter, "write", write_piece)


def interrupt(folder: Path, out: Path, at: int, type_name: str | None = None) -> None:
    """Convert until the piece ``at``; the journal knows every tensor before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamad.gguf.writer.JOURNAL_BYTES", 0)
        Interrupted(patch, at)
        arguments = ["convert", str(folder), str(out)]
        assert main([*arguments, "--type", type_name] if type_name else arguments) == 130
    assert not out.exists()


@pytest.mark.parametrize("at", [1, 7, 20])
def test_an_interrupted_conversion_goes_on_where_it_was(
    tmp_path: Path, out: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    folder = write(tmp_path)
    whole = convert(folder, tmp_path / "whole.gguf").read_bytes()
    interrupt(folder, out, at)
    assert "the same command" in capsys.readouterr().err
    counted = Interrupted(monkeypatch, None)
    assert convert(folder, out).read_bytes() == whole
    assert counted.n_pieces == N_PIECES - at
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    "change",
    ["source", "type", "torn journal", "changed journal", "no journal", "cut data", "changed data"],
)
def test_what_is_left_of_something_else_is_not_trusted(
    tmp_path: Path, out: Path, monkeypatch: Any, change: str
) -> None:
    folder, type_name = write(tmp_path), None
    interrupt(folder, out, 7)
    part = out.with_name(f".{out.name}.part")
    journal = part.with_name(part.name + ".journal")
    match change:
        case "source":
            os.utime(folder / "consolidated.00.pth", ns=(1, 1))
        case "type":
            type_name = "F32"
        case "torn journal":
            journal.write_bytes(journal.read_bytes()[:100])
        case "changed journal":
            journal.write_bytes(journal.read_bytes().replace(b'"tensors": 7', b'"tensors": 6'))
        case "no journal":
            journal.unlink()
        case "cut data":
            os.truncate(part, part.stat().st_size // 2)
        case "changed data":
            content = bytearray(part.read_bytes())
            content[len(content) // 2] ^= 1
            part.write_bytes(content)
    counted = Interrupted(monkeypatch, None)
    path = convert(folder, out, type_name)
    assert counted.n_pieces == N_PIECES
    whole = convert(folder, tmp_path / "whole.gguf", type_name)
    assert path.read_bytes() == whole.read_bytes()
    assert [found.name for found in out.parent.iterdir()] == [out.name]


def set_memory(monkeypatch: Any, tmp_path: Path, n_bytes: int) -> None:
    here = machine(tmp_path, available_kib=n_bytes >> 10)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: here)


def test_auto_goes_on_with_its_type_whatever_memory_there_is_now(
    tmp_path: Path, out: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    roomy = fit(read_shape(folder), 180 << 20)  # in which a service has its least limits
    sizes = {mix.name: mix.file_bytes for mix in roomy.mixes}
    chosen = roomy.recommendation.mix
    assert chosen is not None
    set_memory(monkeypatch, tmp_path, 1 << 30)
    interrupt(folder, out, 7, "auto")
    fixed = roomy.fixed_bytes + roomy.kv_bytes[512]["q8_0"]
    set_memory(monkeypatch, tmp_path, fixed + sizes[chosen] - 1024)
    capsys.readouterr()
    whole = convert(folder, tmp_path / "whole.gguf", chosen).read_bytes()
    assert convert(folder, out, "auto").read_bytes() == whole
    messages = capsys.readouterr().err.splitlines()
    assert messages[0] == f"llamad: auto: {chosen}: chosen before the interruption"
    assert f"7 of {N_PIECES} tensors are there" in messages[1]
    assert convert(folder, out, "auto").read_bytes() != whole
    message = capsys.readouterr().err
    assert message.startswith("llamad: auto: ")
    assert f"auto: {chosen}:" not in message


def test_auto_chooses_anew_when_what_was_left_is_removed(
    tmp_path: Path, out: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    set_memory(monkeypatch, tmp_path, 1 << 30)
    interrupt(folder, out, 7, "auto")
    out.with_name(f".{out.name}.part").unlink()
    capsys.readouterr()
    convert(folder, out, "auto")
    assert "chosen before" not in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_auto_does_not_go_on_with_a_type_that_somebody_named(
    tmp_path: Path, out: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    interrupt(folder, out, 7, "F32")
    set_memory(monkeypatch, tmp_path, 1 << 30)
    counted = Interrupted(monkeypatch, None)
    convert(folder, out, "auto")
    assert counted.n_pieces == N_PIECES
    assert "auto: F32" not in capsys.readouterr().err


def test_an_error_leaves_nothing_to_go_on_from(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("llamad.gguf.writer.JOURNAL_BYTES", 0)
    folder = write(tmp_path)
    content = bytearray((folder / "consolidated.00.pth").read_bytes())
    content[-3000] ^= 1
    (folder / "consolidated.00.pth").write_bytes(content)
    refused(capsys, folder, out)
