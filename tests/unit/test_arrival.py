"""A model file on its way into the model directory: every rule, kills and full disks included."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.running import environment
from llamad.errors import ErrorKind, LlamadError
from llamad.models import kept_part
from llamad.models.arrival import SPARE_BYTES, Announced, Arrival, Arrived
from llamad.models.kept_part import remove_old_parts
from llamad.models.registry import ModelRegistry
from tiny_gguf import TinyModelPath, TinySpec

LIMIT = 1 << 40
SYNC_BYTES = 4096  # in these tests, so that tiny files are synced several times


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept_part, "SYNC_BYTES", SYNC_BYTES)
    return tmp_path / "models"


@pytest.fixture
def model(tiny_model_path: TinyModelPath) -> bytes:
    return tiny_model_path(TinySpec()).read_bytes()


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def announce(model: bytes, **changes: Any) -> Announced:
    return replace(Announced("m", len(model), hash_of(model), "http://a/m#1"), **changes)


def arrival(
    folder: Path, announced: Announced, *, max_bytes: int = LIMIT, loaded: bool = False
) -> Arrival:
    return Arrival(
        ModelRegistry(folder), announced, max_bytes=max_bytes, in_use=lambda name: loaded
    )


def receive(
    folder: Path, announced: Announced, data: bytes, *, piece: int = 3000, **settings: Any
) -> Arrived:
    """Let a whole transfer run: data is the whole file, sent from where the service asks."""
    transfer = arrival(folder, announced, **settings)
    try:
        present = transfer.present()
        if present is not None:
            return present
        offset = transfer.open()
        send(transfer, data, offset, piece=piece)
        return transfer.finish()
    finally:
        transfer.close()


def send(transfer: Arrival, data: bytes, offset: int = 0, *, piece: int = 3000) -> None:
    for first in range(offset, len(data), piece):
        transfer.write(first, data[first : first + piece])


def break_off(folder: Path, announced: Announced, data: bytes) -> None:
    """Send data, and leave as a vanished client does."""
    transfer = arrival(folder, announced)
    transfer.open()
    send(transfer, data)
    transfer.keep()
    transfer.close()


def kept(folder: Path, announced: Announced) -> int:
    """Return what a transfer would go on from; it changes nothing when that is something."""
    transfer = arrival(folder, announced)
    try:
        return transfer.open()
    finally:
        transfer.close()


def error_of(action: Callable[[], object]) -> LlamadError:
    with pytest.raises(LlamadError) as error:
        action()
    return error.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- whole files -----------------------------------------------------------------------------


def test_a_whole_file_gets_its_name_and_nothing_else_is_left(folder: Path, model: bytes) -> None:
    arrived = receive(folder, announce(model), model)
    path = folder / "m.gguf"
    assert (arrived.file.name, arrived.file.path, arrived.file.file_bytes) == (
        "m",
        path,
        len(model),
    )
    assert (arrived.sha256, arrived.unchanged) == (hash_of(model), False)
    assert path.read_bytes() == model
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(folder) == ["m.gguf"]


@pytest.mark.parametrize("piece", [1000, 4096, 1 << 22])
def test_a_source_that_says_nothing_is_taken_and_hashed(
    folder: Path, model: bytes, piece: int
) -> None:
    arrived = receive(folder, Announced("m"), model, piece=piece)
    assert arrived.sha256 == hash_of(model)
    assert (folder / "m.gguf").read_bytes() == model


def test_the_first_bytes_may_come_one_by_one(folder: Path, model: bytes) -> None:
    transfer = arrival(folder, announce(model))
    transfer.open()
    for i in range(6):
        transfer.write(i, model[i : i + 1])
    send(transfer, model, 6)
    assert transfer.finish().sha256 == hash_of(model)
    transfer.close()


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 3, 4, 50])
def test_what_does_not_begin_as_a_model_is_refused_at_once_and_not_kept(
    folder: Path, cut: int
) -> None:
    page = b"<!DOCTYPE html><html>404</html>" * 10
    transfer = arrival(folder, Announced("m", source="s"))
    transfer.open()

    error = error_of(lambda: send(transfer, page, piece=cut))
    transfer.close()
    assert (error.kind, error.reason) == (ErrorKind.CORRUPT, "MODEL_CORRUPT")
    assert "begins with '<" in error.message
    assert names(folder) == []


def test_another_hash_than_announced_deletes_the_part_and_names_both(
    folder: Path, model: bytes
) -> None:
    wrong = "0" * 64
    error = error_of(lambda: receive(folder, announce(model, sha256=wrong), model))
    assert (error.kind, error.reason) == (ErrorKind.CORRUPT, "CHECKSUM_MISMATCH")
    assert wrong in error.message
    assert hash_of(model) in error.message
    assert names(folder) == []


def test_a_header_that_is_broken_never_gets_a_name(folder: Path, model: bytes) -> None:
    broken = model[:8] + b"\xff" * 16 + model[24:]
    error = error_of(lambda: receive(folder, Announced("m"), broken))
    assert error.kind is ErrorKind.CORRUPT
    assert ".part" not in error.message
    assert names(folder) == []


def test_a_file_cut_short_is_no_model_even_when_nothing_was_announced(
    folder: Path, model: bytes
) -> None:
    error = error_of(lambda: receive(folder, Announced("m"), model[: len(model) // 2]))
    assert error.kind is ErrorKind.CORRUPT
    assert names(folder) == []


def test_more_bytes_than_announced_are_refused(folder: Path, model: bytes) -> None:
    announced = announce(model, file_bytes=len(model) - 1)
    error = error_of(lambda: receive(folder, announced, model))
    assert error.reason == "INVALID_DATA"
    assert str(len(model) - 1) in error.message
    assert names(folder) == []


@pytest.mark.parametrize("offset", [1, 2999, 3001, 1 << 60])
def test_chunks_must_be_contiguous(folder: Path, model: bytes, offset: int) -> None:
    transfer = arrival(folder, announce(model))
    transfer.open()
    send(transfer, model[:3000])
    error = error_of(lambda: transfer.write(offset, b"x"))
    transfer.close()
    assert error.reason == "INVALID_OFFSET"
    assert "3000" in error.message


def test_a_size_above_the_limit_is_refused_when_announced_or_when_it_comes(
    folder: Path, model: bytes
) -> None:
    limit = len(model) - 1
    first = error_of(lambda: receive(folder, announce(model), model, max_bytes=limit))
    later = error_of(lambda: receive(folder, Announced("m"), model, max_bytes=limit))
    for error in (first, later):
        assert error.reason == "INVALID_FILE_BYTES"
        assert f"limits.max_model_bytes allows {limit}" in error.message
    assert not folder.exists() or names(folder) == []


# ---- going on --------------------------------------------------------------------------------


def test_too_few_bytes_are_kept_and_the_rest_completes_the_file(folder: Path, model: bytes) -> None:
    half = len(model) // 2
    transfer = arrival(folder, announce(model))
    transfer.open()
    send(transfer, model[:half])
    error = error_of(transfer.finish)
    transfer.close()
    assert (error.kind, error.reason) == (ErrorKind.STATE, "TRANSFER_INCOMPLETE")
    assert f"{half} bytes of {len(model)}, they are kept" in error.message
    assert error.retry_after_seconds is not None
    assert kept(folder, announce(model)) == half
    assert receive(folder, announce(model), model).sha256 == hash_of(model)
    assert names(folder) == ["m.gguf"]


def test_nothing_at_all_leaves_nothing(folder: Path, model: bytes) -> None:
    assert error_of(lambda: receive(folder, announce(model), b"")).reason == "TRANSFER_INCOMPLETE"
    assert names(folder) == []


def test_what_a_vanished_client_sent_is_gone_on_from(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    assert ModelRegistry(folder).scan() == []
    assert kept(folder, announce(model)) == 5000
    assert kept(folder, announce(model, sha256="")) == 5000
    assert receive(folder, announce(model), model).file.file_bytes == len(model)


@pytest.mark.parametrize(
    "change",
    [{"source": "http://a/m#2"}, {"source": ""}, {"file_bytes": 9999}, {"sha256": "1" * 64}],
    ids=lambda change: next(iter(change)),
)
def test_another_source_begins_anew(folder: Path, model: bytes, change: dict[str, Any]) -> None:
    break_off(folder, announce(model), model[:5000])
    assert kept(folder, announce(model, **change)) == 0


def test_a_source_without_identity_is_never_gone_on_from(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model, source=""), model[:5000])
    assert kept(folder, announce(model, source="")) == 0


def test_offset_zero_drops_what_was_kept(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    transfer = arrival(folder, announce(model))
    assert transfer.open() == 5000
    send(transfer, model, 0)
    assert transfer.finish().sha256 == hash_of(model)
    transfer.close()


def test_a_kept_part_is_hashed_again(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    part = folder / ".m.gguf.part"
    part.write_bytes(part.read_bytes()[:4999] + b"X")
    assert error_of(lambda: receive(folder, announce(model), model)).reason == "CHECKSUM_MISMATCH"
    assert names(folder) == []


def test_only_what_was_synced_is_trusted(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    with (folder / ".m.gguf.part").open("ab") as part:
        part.write(b"torn tail")
    assert kept(folder, announce(model)) == 5000
    assert receive(folder, announce(model), model).sha256 == hash_of(model)


def test_a_part_shorter_than_its_record_begins_anew(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    os.truncate(folder / ".m.gguf.part", 4000)
    assert kept(folder, announce(model)) == 0


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"source": 1}', b"[" * 60_000, b"x" * 100_000],
    ids=["empty", "torn", "list", "no text", "wrong type", "deep", "large"],
)
def test_a_broken_record_begins_anew(folder: Path, model: bytes, record: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    (folder / ".m.gguf.part.json").write_bytes(record)
    assert receive(folder, announce(model), model).sha256 == hash_of(model)


def test_a_part_that_is_a_link_is_not_followed(folder: Path, model: bytes, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder.mkdir()
    (folder / ".m.gguf.part").symlink_to(victim)
    assert error_of(lambda: receive(folder, announce(model), model)).reason == "DISK_ERROR"
    assert victim.read_bytes() == b"precious"


# ---- the name is taken -----------------------------------------------------------------------


def test_the_same_file_again_is_unchanged_and_nothing_is_asked_for(
    folder: Path, model: bytes
) -> None:
    receive(folder, announce(model), model)
    for announced in (
        announce(model),
        announce(model, sha256=""),
        announce(model, file_bytes=None),
        announce(model, replace=True),
    ):
        again = arrival(folder, announced, loaded=True).present()
        assert again is not None
        assert (again.unchanged, again.sha256) == (True, hash_of(model))


@pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"file_bytes": 5}])
def test_another_file_of_the_name_is_refused_with_what_to_do(
    folder: Path, model: bytes, change: dict[str, Any]
) -> None:
    receive(folder, announce(model), model)
    error = error_of(arrival(folder, announce(model, **change)).present)
    assert (error.kind, error.reason) == (ErrorKind.STATE, "MODEL_EXISTS")
    assert "llamactl rm m" in error.message


def test_a_file_that_is_not_described_is_not_taken_for_the_one_that_is_there(
    folder: Path, model: bytes
) -> None:
    receive(folder, announce(model), model)
    assert error_of(arrival(folder, Announced("m")).present).reason == "MODEL_EXISTS"


def test_a_model_may_be_replaced_unless_it_is_loaded(
    folder: Path, model: bytes, tiny_model_path: TinyModelPath
) -> None:
    other = tiny_model_path(TinySpec(seed=2)).read_bytes()
    receive(folder, announce(model), model)
    wanted = announce(other, source="http://a/other", replace=True)
    error = error_of(lambda: receive(folder, wanted, other, loaded=True))
    assert error.reason == "MODEL_IN_USE"
    assert (folder / "m.gguf").read_bytes() == model
    assert receive(folder, wanted, other).sha256 == hash_of(other)
    assert (folder / "m.gguf").read_bytes() == other


def test_a_model_that_appears_meanwhile_is_not_overwritten(folder: Path, model: bytes) -> None:
    transfer = arrival(folder, announce(model))
    transfer.open()
    send(transfer, model)
    (folder / "m.gguf").write_bytes(b"by hand")
    assert error_of(transfer.finish).reason == "MODEL_EXISTS"
    transfer.close()
    assert (folder / "m.gguf").read_bytes() == b"by hand"


def test_a_stop_ends_the_hashing_of_what_is_there(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    transfer = arrival(folder, announce(model))
    transfer.stop()
    assert error_of(transfer.open).kind is ErrorKind.CANCELLED
    transfer.close()
    assert kept(folder, announce(model)) == 5000


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
    error = error_of(lambda: receive(folder, announce(model), model))
    assert (error.kind, error.reason) == (ErrorKind.EXHAUSTED, "DISK_FULL")
    for part in (str(folder), str(len(model)), str(free)):
        assert part in error.message
    assert names(folder) == []


def test_what_is_kept_need_not_fit_again(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(folder, announce(model), model[:5000])
    free_disk(monkeypatch, lambda: len(model) - 5000 + SPARE_BYTES)
    assert kept(folder, announce(model)) == 5000


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1 << 40, 1 << 40, SPARE_BYTES])
    free_disk(monkeypatch, lambda: next(free))
    announced = announce(model, file_bytes=None)
    transfer = arrival(folder, announced)
    transfer.open()
    assert error_of(lambda: send(transfer, model)).reason == "DISK_FULL"
    transfer.keep()
    transfer.close()
    monkeypatch.undo()
    assert kept(folder, announced) == 6000


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
    transfer = arrival(folder, announce(model))
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
    assert kept(folder, announce(model)) == SYNC_BYTES


def test_a_full_disk_in_the_middle_of_a_write_leaves_a_part_to_go_on_from(
    folder: Path, model: bytes
) -> None:
    """The kernel refuses at 10000 bytes as a full disk does: a short write, then an error."""
    child = child_that_sends(folder, announce(model), model, before="limit()")
    out, _ = child.communicate(timeout=60)
    assert out.split() == [b"DISK_FULL"]
    assert 0 < kept(folder, announce(model)) <= 10_000
    assert receive(folder, announce(model), model).sha256 == hash_of(model)


def test_a_directory_that_cannot_be_written_is_an_error_that_names_it(
    tmp_path: Path, model: bytes
) -> None:
    (tmp_path / "models").write_bytes(b"a file")
    error = error_of(lambda: arrival(tmp_path / "models", announce(model)).open())
    assert error.reason == "DISK_ERROR"
    assert str(tmp_path / "models") in error.message


def test_what_was_received_does_not_stay_in_the_page_cache(
    folder: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, offset, size, advice: dropped.append((offset, size))
    )
    receive(folder, announce(model), model)
    ends = [offset + size for offset, size in dropped]
    assert [0, *ends[:-1]] == [offset for offset, _ in dropped]
    assert ends[-1] == len(model)
    assert max(size for _, size in dropped) < SYNC_BYTES + 3000


# ---- kills -----------------------------------------------------------------------------------

CHILD = """
import resource, sys
from pathlib import Path
from llamad.errors import LlamadError
from llamad.models import kept_part
from llamad.models.arrival import Announced, Arrival
from llamad.models.registry import ModelRegistry

def limit():
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

kept_part.SYNC_BYTES = {sync}
data = sys.stdin.buffer.read()
arrival = Arrival(
    ModelRegistry(Path({folder!r})), {announced!r}, max_bytes=1 << 40, in_use=lambda name: False
)
{before}
offset = arrival.open()
try:
    for first in range(offset, len(data), 1000):
        arrival.write(first, data[first:first + 1000])
        {after_write}
    arrival.finish()
except LlamadError as error:
    print(error.reason, flush=True)
"""


def child_that_sends(
    folder: Path, announced: Announced, data: bytes, *, before: str = "", after_write: str = "pass"
) -> "subprocess.Popen[bytes]":
    """Let a child process receive data; before and after_write are lines it runs."""
    script = textwrap.dedent(CHILD).format(
        sync=SYNC_BYTES,
        folder=str(folder),
        announced=announced,
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
        folder, announce(large), large, after_write="first == 200_000 and print(flush=True)"
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    assert not (folder / "m.gguf").exists() or (folder / "m.gguf").read_bytes() == large
    if not (folder / "m.gguf").exists():
        offset = kept(folder, announce(large))
        assert 200_000 - SYNC_BYTES - 1000 <= offset <= len(large)
        assert (folder / ".m.gguf.part").read_bytes() == large[:offset]
    assert receive(folder, announce(large), large).sha256 == hash_of(large)
    assert names(folder) == ["m.gguf"]


# A call, which one of them kills, and what is kept then. A record takes two fsyncs, 5000 bytes are
# between two records, and after the rename nothing is kept.
KILL_AT: dict[str, tuple[str, int, int]] = {
    "data": ("os.fdatasync", 3, 10_000),
    "record": ("os.fsync", 3, 5000),
    "name": ("kept_part.sync_directory", 1, 0),
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
    child = child_that_sends(folder, announce(model), model, before=body)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    path = folder / "m.gguf"
    assert path.exists() == (n_kept == 0)
    assert kept(folder, announce(model)) == n_kept
    assert receive(folder, announce(model), model).sha256 == hash_of(model)
    assert path.read_bytes() == model


# ---- old parts -------------------------------------------------------------------------------


def test_parts_that_nobody_went_on_with_for_a_month_are_deleted(folder: Path, model: bytes) -> None:
    break_off(folder, announce(model), model[:5000])
    break_off(folder, announce(model, name="new"), model[:5000])
    for path in folder.glob(".m.*"):
        os.utime(path, (0, 0))
    assert sorted(remove_old_parts(folder)) == [".m.gguf.part", ".m.gguf.part.json"]
    assert names(folder) == [".new.gguf.part", ".new.gguf.part.json"]
    assert remove_old_parts(folder / "none") == []
