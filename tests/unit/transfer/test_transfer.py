"""A model file on its way into the model directory: every rule of what is taken and kept."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from llamad.errors import ErrorKind
from llamad.store.partial_file import remove_old_partial_files
from llamad.store.registry import ModelRegistry
from llamad.store.transfer import TransferRequest
from tiny_gguf import TinyModelPath, TinySpec
from unit.transfer.transferring import (
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

# ---- whole files -----------------------------------------------------------------------------


def test_a_whole_file_gets_its_name_and_nothing_else_is_left(folder: Path, model: bytes) -> None:
    stored = receive(folder, request_for(model), model)
    path = folder / "m.gguf"
    assert (stored.file.name, stored.file.path, stored.file.file_bytes) == (
        "m",
        path,
        len(model),
    )
    assert (stored.sha256, stored.unchanged) == (hash_of(model), False)
    assert path.read_bytes() == model
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(folder) == ["m.gguf"]


@pytest.mark.parametrize("piece", [1000, 4096, 1 << 22])
def test_a_source_that_says_nothing_is_taken_and_hashed(
    folder: Path, model: bytes, piece: int
) -> None:
    stored = receive(folder, TransferRequest("m"), model, piece=piece)
    assert stored.sha256 == hash_of(model)
    assert (folder / "m.gguf").read_bytes() == model


def test_the_first_bytes_may_come_one_by_one(folder: Path, model: bytes) -> None:
    transfer = new_transfer(folder, request_for(model))
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
    transfer = new_transfer(folder, TransferRequest("m", source="s"))
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
    error = error_of(lambda: receive(folder, request_for(model, sha256=wrong), model))
    assert (error.kind, error.reason) == (ErrorKind.CORRUPT, "CHECKSUM_MISMATCH")
    assert wrong in error.message
    assert hash_of(model) in error.message
    assert names(folder) == []


def test_a_header_that_is_broken_never_gets_a_name(folder: Path, model: bytes) -> None:
    broken = model[:8] + b"\xff" * 16 + model[24:]
    error = error_of(lambda: receive(folder, TransferRequest("m"), broken))
    assert error.kind is ErrorKind.CORRUPT
    assert ".part" not in error.message
    assert names(folder) == []


def test_a_file_cut_short_is_no_model_even_when_nothing_was_announced(
    folder: Path, model: bytes
) -> None:
    error = error_of(lambda: receive(folder, TransferRequest("m"), model[: len(model) // 2]))
    assert error.kind is ErrorKind.CORRUPT
    assert names(folder) == []


def test_more_bytes_than_announced_are_refused(folder: Path, model: bytes) -> None:
    request = request_for(model, file_bytes=len(model) - 1)
    error = error_of(lambda: receive(folder, request, model))
    assert error.reason == "INVALID_DATA"
    assert str(len(model) - 1) in error.message
    assert names(folder) == []


@pytest.mark.parametrize("offset", [1, 2999, 3001, 1 << 60])
def test_chunks_must_be_contiguous(folder: Path, model: bytes, offset: int) -> None:
    transfer = new_transfer(folder, request_for(model))
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
    first = error_of(lambda: receive(folder, request_for(model), model, max_bytes=limit))
    later = error_of(lambda: receive(folder, TransferRequest("m"), model, max_bytes=limit))
    for error in (first, later):
        assert error.reason == "INVALID_FILE_BYTES"
        assert f"limits.max_model_bytes allows {limit}" in error.message
    assert not folder.exists() or names(folder) == []


# ---- going on --------------------------------------------------------------------------------


def test_too_few_bytes_are_kept_and_the_rest_completes_the_file(folder: Path, model: bytes) -> None:
    half = len(model) // 2
    transfer = new_transfer(folder, request_for(model))
    transfer.open()
    send(transfer, model[:half])
    error = error_of(transfer.finish)
    transfer.close()
    assert (error.kind, error.reason) == (ErrorKind.STATE, "TRANSFER_INCOMPLETE")
    assert f"{half} bytes of {len(model)}, they are kept" in error.message
    assert error.retry_after_seconds is not None
    assert bytes_there(folder, request_for(model)) == half
    assert receive(folder, request_for(model), model).sha256 == hash_of(model)
    assert names(folder) == ["m.gguf"]


def test_nothing_at_all_leaves_nothing(folder: Path, model: bytes) -> None:
    assert (
        error_of(lambda: receive(folder, request_for(model), b"")).reason == "TRANSFER_INCOMPLETE"
    )
    assert names(folder) == []


def test_what_a_vanished_client_sent_is_gone_on_from(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    assert ModelRegistry(folder).scan() == []
    assert bytes_there(folder, request_for(model)) == 5000
    assert bytes_there(folder, request_for(model, sha256="")) == 5000
    assert receive(folder, request_for(model), model).file.file_bytes == len(model)


@pytest.mark.parametrize(
    "change",
    [{"source": "http://a/m#2"}, {"source": ""}, {"file_bytes": 9999}, {"sha256": "1" * 64}],
    ids=lambda change: next(iter(change)),
)
def test_another_source_begins_anew(folder: Path, model: bytes, change: dict[str, Any]) -> None:
    break_off(folder, request_for(model), model[:5000])
    assert bytes_there(folder, request_for(model, **change)) == 0


def test_a_source_without_identity_is_never_gone_on_from(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model, source=""), model[:5000])
    assert bytes_there(folder, request_for(model, source="")) == 0


def test_offset_zero_drops_what_was_kept(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    transfer = new_transfer(folder, request_for(model))
    assert transfer.open() == 5000
    send(transfer, model, 0)
    assert transfer.finish().sha256 == hash_of(model)
    transfer.close()


def test_a_partial_file_is_hashed_again(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    part = folder / ".m.gguf.part"
    part.write_bytes(part.read_bytes()[:4999] + b"X")
    assert (
        error_of(lambda: receive(folder, request_for(model), model)).reason == "CHECKSUM_MISMATCH"
    )
    assert names(folder) == []


def test_only_what_was_synced_is_trusted(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    with (folder / ".m.gguf.part").open("ab") as part:
        part.write(b"torn tail")
    assert bytes_there(folder, request_for(model)) == 5000
    assert receive(folder, request_for(model), model).sha256 == hash_of(model)


def test_a_part_shorter_than_its_record_begins_anew(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    os.truncate(folder / ".m.gguf.part", 4000)
    assert bytes_there(folder, request_for(model)) == 0


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"source": 1}', b"[" * 60_000, b"x" * 100_000],
    ids=["empty", "torn", "list", "no text", "wrong type", "deep", "large"],
)
def test_a_broken_record_begins_anew(folder: Path, model: bytes, record: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    (folder / ".m.gguf.part.json").write_bytes(record)
    assert receive(folder, request_for(model), model).sha256 == hash_of(model)


def test_a_part_that_is_a_link_is_not_followed(folder: Path, model: bytes, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder.mkdir()
    (folder / ".m.gguf.part").symlink_to(victim)
    assert error_of(lambda: receive(folder, request_for(model), model)).reason == "DISK_ERROR"
    assert victim.read_bytes() == b"precious"


# ---- the name is taken -----------------------------------------------------------------------


def test_the_same_file_again_is_unchanged_and_nothing_is_asked_for(
    folder: Path, model: bytes
) -> None:
    receive(folder, request_for(model), model)
    for request in (
        request_for(model),
        request_for(model, file_bytes=None),
        request_for(model, replace=True),
    ):
        again = new_transfer(folder, request, loaded=True).present()
        assert again is not None
        assert (again.unchanged, again.sha256) == (True, hash_of(model))


@pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"file_bytes": 5}])
def test_another_file_of_the_name_is_refused_with_what_to_do(
    folder: Path, model: bytes, change: dict[str, Any]
) -> None:
    receive(folder, request_for(model), model)
    error = error_of(new_transfer(folder, request_for(model, **change)).present)
    assert (error.kind, error.reason) == (ErrorKind.STATE, "MODEL_EXISTS")
    assert "llamactl rm m" in error.message


def test_a_file_without_a_sha256_is_not_taken_for_the_one_that_is_there(
    folder: Path, model: bytes
) -> None:
    receive(folder, request_for(model), model)
    for request in (TransferRequest("m"), request_for(model, sha256="")):
        assert error_of(new_transfer(folder, request).present).reason == "MODEL_EXISTS"


def test_another_model_of_the_same_size_replaces(folder: Path, model: bytes) -> None:
    receive(folder, request_for(model), model)
    other = model[:-1] + bytes([model[-1] ^ 1])
    wanted = request_for(other, sha256="", replace=True)
    assert not receive(folder, wanted, other).unchanged
    assert (folder / "m.gguf").read_bytes() == other


def test_a_model_may_be_replaced_unless_it_is_loaded(
    folder: Path, model: bytes, tiny_model_path: TinyModelPath
) -> None:
    other = tiny_model_path(TinySpec(seed=2)).read_bytes()
    receive(folder, request_for(model), model)
    wanted = request_for(other, source="http://a/other", replace=True)
    error = error_of(lambda: receive(folder, wanted, other, loaded=True))
    assert error.reason == "MODEL_IN_USE"
    assert (folder / "m.gguf").read_bytes() == model
    assert receive(folder, wanted, other).sha256 == hash_of(other)
    assert (folder / "m.gguf").read_bytes() == other


def test_a_model_that_appears_meanwhile_is_not_overwritten(folder: Path, model: bytes) -> None:
    transfer = new_transfer(folder, request_for(model))
    transfer.open()
    send(transfer, model)
    (folder / "m.gguf").write_bytes(b"by hand")
    assert error_of(transfer.finish).reason == "MODEL_EXISTS"
    transfer.close()
    assert (folder / "m.gguf").read_bytes() == b"by hand"


def test_a_stop_ends_the_hashing_of_what_is_there(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    transfer = new_transfer(folder, request_for(model))
    transfer.stop()
    assert error_of(transfer.open).kind is ErrorKind.CANCELLED
    transfer.close()
    assert bytes_there(folder, request_for(model)) == 5000


# ---- old parts -------------------------------------------------------------------------------


def test_parts_that_nobody_went_on_with_for_a_month_are_deleted(folder: Path, model: bytes) -> None:
    break_off(folder, request_for(model), model[:5000])
    break_off(folder, request_for(model, name="new"), model[:5000])
    for path in folder.glob(".m.*"):
        os.utime(path, (0, 0))
    assert sorted(remove_old_partial_files(folder)) == [".m.gguf.part", ".m.gguf.part.json"]
    assert names(folder) == [".new.gguf.part", ".new.gguf.part.json"]
    assert remove_old_partial_files(folder / "none") == []
