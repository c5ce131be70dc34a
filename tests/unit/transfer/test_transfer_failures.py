"""A model file on its way onto a disk that is full or broken, and kills on that way."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.running import environment
from llamad.errors import ErrorKind
from llamad.store.transfer import SPARE_BYTES, TransferRequest
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS
from unit.transfer.transferring import (
    SYNC_BYTES,
    break_off,
    bytes_there,
    error_of,
    hash_of,
    names,
    new_transfer,
    receive,
    request_for,
    send,
)

# ---- disks -----------------------------------------------------------------------------------


def free_disk(monkeypatch: pytest.MonkeyPatch, free_bytes: Callable[[], int]) -> None:
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_bavail=free_bytes(), f_frsize=1)
    )


def test_a_file_that_would_fill_the_disk_is_refused_before_a_byte_is_taken(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(model) + SPARE_BYTES - 1
    free_disk(monkeypatch, lambda: free)
    error = error_of(lambda: receive(folder, request_for(model), model))
    assert (error.kind, error.reason) == (ErrorKind.EXHAUSTED, "DISK_FULL")
    for part in (str(folder), str(len(model)), str(free)):
        assert part in error.message
    assert names(folder) == []


def test_a_full_disk_names_what_unfinished_transfers_hold_of_it(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("m", 5000), ("b", 4000), ("a", 3000)):
        break_off(folder, request_for(model, name=name), model[:size])
    free_disk(monkeypatch, lambda: SPARE_BYTES)
    error = error_of(lambda: receive(folder, request_for(model), model))
    assert 'unfinished transfers hold 7000, "llamactl rm" deletes them: a, b' in error.message


def test_what_is_kept_need_not_fit_again(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(folder, request_for(model), model[:5000])
    free_disk(monkeypatch, lambda: len(model) - 5000 + SPARE_BYTES)
    assert bytes_there(folder, request_for(model)) == 5000


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1 << 40, 1 << 40, SPARE_BYTES])
    free_disk(monkeypatch, lambda: next(free))
    request = request_for(model, file_bytes=None)
    transfer = new_transfer(folder, request)
    transfer.open()
    assert error_of(lambda: send(transfer, model)).reason == "DISK_FULL"
    transfer.save()
    transfer.close()
    monkeypatch.undo()
    assert bytes_there(folder, request) == 6000


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "DISK_FULL"), (errno.EIO, "DISK_ERROR")]
)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_failing_disk_is_named_and_what_was_synced_is_kept(
    folder: Path,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    reason: str,
) -> None:
    transfer = new_transfer(folder, request_for(model))
    transfer.open()
    transfer.write(0, model[:SYNC_BYTES])

    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    error = error_of(lambda: send(transfer, model, SYNC_BYTES))
    monkeypatch.undo()
    transfer.close()
    assert error.reason == reason
    assert os.strerror(number) in error.message
    assert bytes_there(folder, request_for(model)) == SYNC_BYTES


def test_a_full_disk_in_the_middle_of_a_write_leaves_a_part_to_go_on_from(
    folder: Path, model: bytes
) -> None:
    """The kernel refuses at 10000 bytes as a full disk does: a short write, then an error."""
    child = child_that_sends(folder, request_for(model), model, before="limit()")
    out, _ = child.communicate(timeout=TIMEOUT_SECONDS)
    assert out.split() == [b"DISK_FULL"]
    assert 0 < bytes_there(folder, request_for(model)) <= 10_000
    assert receive(folder, request_for(model), model).sha256 == hash_of(model)


def test_a_directory_that_cannot_be_written_is_an_error_that_names_it(
    tmp_path: Path, model: bytes
) -> None:
    (tmp_path / "models").write_bytes(b"a file")
    error = error_of(lambda: new_transfer(tmp_path / "models", request_for(model)).open())
    assert error.reason == "DISK_ERROR"
    assert str(tmp_path / "models") in error.message


def test_what_was_received_does_not_stay_in_the_page_cache(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, offset, size, advice: dropped.append((offset, size))
    )
    receive(folder, request_for(model), model)
    ends = [offset + size for offset, size in dropped]
    assert [0, *ends[:-1]] == [offset for offset, _ in dropped]
    assert ends[-1] == len(model)
    assert max(size for _, size in dropped) < SYNC_BYTES + 3000


# ---- kills -----------------------------------------------------------------------------------

CHILD = """
import resource, sys
from pathlib import Path
from llamad.errors import LlamadError
from llamad.store import partial_file as partial_file
from llamad.store.transfer import TransferRequest, Transfer
from llamad.store.registry import ModelRegistry

def limit():
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

partial_file.SYNC_BYTES = {sync}
data = sys.stdin.buffer.read()
transfer = Transfer(
    ModelRegistry(Path({folder!r})), {request!r}, max_bytes=1 << 40, in_use=lambda name: False
)
{before}
offset = transfer.open()
try:
    for first in range(offset, len(data), 1000):
        transfer.write(first, data[first:first + 1000])
        {after_write}
    transfer.finish()
except LlamadError as error:
    print(error.reason, flush=True)
"""


def child_that_sends(
    folder: Path,
    request: TransferRequest,
    data: bytes,
    *,
    before: str = "",
    after_write: str = "pass",
) -> "subprocess.Popen[bytes]":
    """Let a child process receive data; before and after_write are lines it runs."""
    script = textwrap.dedent(CHILD).format(
        sync=SYNC_BYTES,
        folder=str(folder),
        request=request,
        before=before,
        after_write=after_write,
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert child.stdin is not None
    child.stdin.write(data)
    child.stdin.close()
    child.stdin = None
    return child


@pytest.fixture
def large(tiny_model_path: TinyModelPath) -> bytes:
    data = tiny_model_path(TinySpec(dim=128, hidden_dim=256)).read_bytes()
    assert len(data) > 1 << 19
    return data


def test_a_kill_in_the_middle_leaves_what_was_synced_and_no_model(
    folder: Path, large: bytes
) -> None:
    child = child_that_sends(
        folder, request_for(large), large, after_write="first == 200_000 and print(flush=True)"
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(TIMEOUT_SECONDS)
    child.stdout.close()
    assert not (folder / "m.gguf").exists() or (folder / "m.gguf").read_bytes() == large
    if not (folder / "m.gguf").exists():
        offset = bytes_there(folder, request_for(large))
        assert 200_000 - SYNC_BYTES - 1000 <= offset <= len(large)
        assert (folder / ".m.gguf.part").read_bytes() == large[:offset]
    assert receive(folder, request_for(large), large).sha256 == hash_of(large)
    assert names(folder) == ["m.gguf"]


# A call, which one of them kills, and what is kept then. A record takes two fsyncs, 5000 bytes are
# between two records, and after the rename nothing is kept.
KILL_AT: dict[str, tuple[str, int, int]] = {
    "data": ("os.fdatasync", 3, 10_000),
    "record": ("os.fsync", 3, 5000),
    "name": ("partial_file.sync_directory", 1, 0),
}


@pytest.mark.parametrize(("call", "count", "n_kept"), KILL_AT.values(), ids=KILL_AT)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_of_saving_leaves_the_old_or_the_new_state(
    folder: Path, model: bytes, call: str, count: int, n_kept: int, when: str
) -> None:
    target, name = call.split(".")
    body = (
        f"import os, signal; _real, _n = {call}, [0]\n"
        f"def _kill(*a):\n"
        f"    _n[0] += 1\n"
        f"    if {when == 'after'}: _real(*a)\n"
        f"    if _n[0] == {count}: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    return _real(*a)\n"
        f"{target}.{name} = _kill"
    )
    child = child_that_sends(folder, request_for(model), model, before=body)
    child.communicate(timeout=TIMEOUT_SECONDS)
    assert child.returncode == -signal.SIGKILL
    path = folder / "m.gguf"
    assert path.exists() == (n_kept == 0)
    assert bytes_there(folder, request_for(model)) == n_kept
    assert receive(folder, request_for(model), model).sha256 == hash_of(model)
    assert path.read_bytes() == model
