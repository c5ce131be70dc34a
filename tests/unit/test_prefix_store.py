"""Files of blocks and pins: no damaged byte is used, bounds are kept, a full disk is told once."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llamad.store import prefix_store, write_budget
from llamad.store.block_file import (
    BlockFileError,
    BlockName,
    Identity,
    file_bytes,
    file_name,
    read_block,
    write_block,
)
from llamad.store.pin_file import Pin, PinFileError, read_pin, write_pin
from llamad.store.prefix_store import PrefixStore
from llamad.store.write_budget import WriteBudget

IDENTITY = Identity("d" * 32, "f16", "1.0", 64)
NONE = bytes(16)
GIB = 1 << 30


def _name(i: int) -> BlockName:
    return BlockName(bytes([i]) * 16, NONE, b"s" * 16)


def _content(i: int) -> bytes:
    return bytes([i]) * 64


def _store(root: Path, *, blocks: int = 100, day: int = GIB, model: str = "d" * 32) -> PrefixStore:
    identity = Identity(model, "f16", "1.0", 64)
    size = file_bytes(identity)
    store = PrefixStore(root, identity, max_bytes=blocks * size, bytes_per_day=day)
    store.open()
    return store


def test_a_power_cut_costs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, set[str]]] = []
    monkeypatch.setattr(
        prefix_store, "sync_directory", lambda p: synced.append((p, {f.name for f in p.iterdir()}))
    )
    store = _store(tmp_path / "prefixes")
    assert synced == [(tmp_path, {"prefixes"}), (tmp_path / "prefixes", {store.directory.name})]


def test_every_flipped_byte_and_every_length_is_found(tmp_path: Path) -> None:
    write_block(tmp_path, IDENTITY, _name(1), _content(1))
    path = tmp_path / file_name(_name(1).key, IDENTITY)
    whole = path.read_bytes()
    assert read_block(path, IDENTITY) == _content(1)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        with pytest.raises(BlockFileError, match="checksum"):
            read_block(path, IDENTITY)
    for data in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(data)
        with pytest.raises(BlockFileError, match="bytes, must have"):
            read_block(path, IDENTITY)


def test_a_block_of_another_engine_or_under_another_key_is_not_used(tmp_path: Path) -> None:
    other = Identity("d" * 32, "f16", "1.1", 64)
    write_block(tmp_path, other, _name(1), _content(1))
    path = tmp_path / file_name(_name(1).key, IDENTITY)
    (tmp_path / file_name(_name(1).key, other)).rename(path)
    with pytest.raises(BlockFileError, match="another model, KV type or engine"):
        read_block(path, IDENTITY)
    assert replace(IDENTITY, rope="long").digest() != IDENTITY.digest()
    write_block(tmp_path, IDENTITY, _name(2), _content(2))
    (tmp_path / file_name(_name(2).key, IDENTITY)).rename(path)
    with pytest.raises(BlockFileError, match="the key of another file"):
        read_block(path, IDENTITY)


def test_a_block_is_saved_with_its_local_block_or_without(tmp_path: Path) -> None:
    identity = replace(IDENTITY, local_bytes=20)
    assert identity.digest() != IDENTITY.digest()
    local = b"l" * 20
    sizes = [file_bytes(identity, local=has_local) for has_local in (False, True)]
    store = PrefixStore(tmp_path, identity, max_bytes=sum(sizes), bytes_per_day=GIB)
    store.open()
    assert store.write(_name(1), _content(1), ())
    assert store.write(_name(2), _content(2) + local, ())
    for again in (store, PrefixStore(tmp_path, identity, max_bytes=GIB, bytes_per_day=GIB)):
        again.open()
        assert again.read(_name(1).key) == (_content(1), b"")
        assert again.read(_name(2).key) == (_content(2), local)
        assert [again.has_local(_name(i).key) for i in (1, 2, 3)] == [False, True, False]
        assert again.bytes_on_disk == sum(sizes) == again.bytes_of(_name(i).key for i in (1, 2, 3))
    assert again.write(_name(2), _content(2), ())  # which is there already, with more
    assert again.bytes_written == 0
    assert again.write(_name(1), _content(1) + local, ())  # is added to it
    assert again.read(_name(1).key) == (_content(1), local)
    assert again.bytes_on_disk == 2 * sizes[1]
    assert again.remove([_name(1).key]) == sizes[1]
    assert again.bytes_on_disk == sizes[1]
    path = tmp_path / identity.model_digest / file_name(_name(2).key, identity)
    path.write_bytes(path.read_bytes()[: sizes[0]])
    with pytest.raises(BlockFileError, match="content does not match"):
        read_block(path, identity)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BlockFileError, match=f"must have {sizes[0]} or {sizes[1]}"):
        read_block(path, identity)


def test_every_flipped_byte_of_a_pin_is_found(tmp_path: Path) -> None:
    pin = Pin("house", "public", tuple(range(64)), 1e9)
    write_pin(tmp_path, pin)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert read_pin(path) == pin
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        with pytest.raises(PinFileError):
            read_pin(path)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"version": 2}',
        b"[" * 100_000,
        b'{"version":1,"name":1,"owner":"o","tokens":[1],"made_at":1,"configured":false}',
        b'{"version":1,"name":"n","owner":"o","tokens":[-1],"made_at":1,"configured":false}',
        b'{"version":1,"name":"n","owner":"o","tokens":7,"made_at":1,"configured":false}',
        b'{"version":1,"name":"n","owner":"o","tokens":[1],"made_at":1,"configured":false}',
    ],
)
def test_a_hostile_pin_with_a_right_checksum_is_refused(tmp_path: Path, body: bytes) -> None:
    from llamad.store import pin_file

    path = tmp_path / "x.pin"
    path.write_bytes(pin_file._sum(body) + b"\n" + body)
    with pytest.raises(PinFileError):
        read_pin(path)


def test_what_was_written_is_there_after_a_restart_and_leftovers_are_not(tmp_path: Path) -> None:
    store = _store(tmp_path / "p")
    for i in (1, 2):
        assert store.write(_name(i), _content(i), ())
    store.sync()
    store.add_pin(Pin("house", "public", (1, 2), 1e9))
    half = store.directory / "half.kv.new"
    half.write_bytes(b"half")
    damaged = store.directory / f"{'0' * 32}.pin"
    damaged.write_bytes(b"no pin")
    foreign = store.directory / "something.kv"
    foreign.write_bytes(b"no block")
    store = _store(tmp_path / "p")
    assert not half.exists()
    assert not damaged.exists()
    assert not foreign.exists()
    assert store.newest() == [_name(2).key, _name(1).key]
    assert store.read(_name(1).key) == (_content(1), b"")
    assert list(store.pins) == [("public", "house")]
    assert [name.scope for name in store.names()] == [b"s" * 16] * 2
    assert store.remove([_name(1).key]) == file_bytes(IDENTITY)
    assert not store.has(_name(1).key)


def test_a_damaged_block_is_removed_with_a_line_in_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _store(tmp_path / "p")
    store.write(_name(1), _content(1), ())
    path = store.directory / file_name(_name(1).key, IDENTITY)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert store.read(_name(1).key) is None
    assert not path.exists()
    assert not store.has(_name(1).key)
    assert "prefix removed" in caplog.text
    assert "checksum" in caplog.text


def test_the_block_that_was_used_longest_ago_makes_room_but_no_pinned_one(tmp_path: Path) -> None:
    other = _store(tmp_path / "p", model="e" * 32)
    other.write(_name(9), _content(9), ())
    store = _store(tmp_path / "p", blocks=3)
    for i in (1, 2, 3):
        assert store.write(_name(i), _content(i), ())
    assert list(other.directory.iterdir()) == []  # another model's gave way first
    store.touch([_name(1).key])
    pinned = {_name(2).key}
    assert store.write(_name(4), _content(4), pinned)
    assert not store.has(_name(3).key)
    pinned |= {_name(1).key, _name(4).key}
    assert not store.write(_name(5), _content(5), pinned)
    assert "prefix_cache.max_bytes" in store.fault
    assert store.bytes_on_disk == 3 * file_bytes(IDENTITY)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_told_once_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    store = _store(tmp_path / "p")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert not store.write(_name(1), _content(1), ())
        assert not store.write(_name(2), _content(2), ())
        now[0] += prefix_store.RETRY_SECONDS + 1
        assert not store.write(_name(1), _content(1), ())
    assert caplog.text.count("prefix not saved") == 1
    assert os.strerror(code) in store.fault
    assert list(store.directory.iterdir()) == []
    now[0] += prefix_store.RETRY_SECONDS + 1
    assert store.write(_name(1), _content(1), ())
    assert store.fault == ""


def test_a_disk_with_little_room_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_store, "LEAST_FREE_BYTES", 1 << 62)
    store = _store(tmp_path / "p")
    assert not store.write(_name(1), _content(1), ())
    assert "of the disk is free" in store.fault


def test_the_bytes_of_a_day_are_counted_over_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(write_budget, "ADVANCE_BYTES", 100)
    file = tmp_path / "written"

    def budget() -> Callable[[int], bool]:
        return WriteBudget(file, 1000).take

    take = budget()
    assert [take(300), take(300)] == [True, True]
    take = budget()  # what was advanced counts as written
    assert [take(400), take(1), take(1)] == [True, False, False]
    now[0] += write_budget.SECONDS_PER_DAY
    assert take(1000)
    file.write_bytes(b"day x")
    assert budget()(1000)
