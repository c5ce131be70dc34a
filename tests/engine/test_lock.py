"""Weights locked in memory: in order of use, up to a limit, until they are told to stop.

What is locked stands in /proc/self/smaps: the kernel splits the file's mapping at its borders.
"""

import re
from pathlib import Path

import pytest

from engine.test_bad_model_files import run_python
from llamad.engine.bindings import EngineModel, GgufFile, StopFlag
from llamad.errors import ErrorKind, LlamadError
from tiny_gguf import TinyModelPath, TinySpec

PAGE = 4096
SPEC = TinySpec(vocab_size=2000, dim=256, hidden_dim=512, n_layers=3)  # tensors of many pages


def locked_ranges(path: Path) -> list[tuple[int, int]]:
    """Return the (begin, end) in the file, bytes, of what is locked of its mappings."""
    ranges: list[tuple[int, int]] = []
    span: tuple[int, int] | None = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+ +(.*)", line)
        if match is not None:
            begin, end, offset = (int(match[i], 16) for i in (1, 2, 3))
            span = (offset, offset + end - begin) if match[4] == str(path) else None
        elif line.startswith("VmFlags:") and span is not None and " lo" in line:
            ranges.append(span)
    return ranges


def tensor_range(path: Path, name: str) -> tuple[int, int]:
    with GgufFile(path) as file:
        tensor = next(t for t in file.tensors() if t.name == name)
        return tensor.file_offset, tensor.file_offset + tensor.n_bytes


def is_locked(path: Path, name: str) -> bool:
    """Whether the inner pages of a tensor are locked: those at its ends it may share."""
    begin, end = tensor_range(path, name)
    begin, end = begin + PAGE, end - PAGE
    return any(first <= begin and end <= last for first, last in locked_ranges(path))


def test_everything_is_locked_and_unlocked_at_close(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(SPEC)
    with EngineModel(path) as model:
        locked = model.lock(1 << 40)
        assert not locked.fault
        ranges = locked_ranges(path)
        assert sum(end - begin for begin, end in ranges) == locked.n_bytes
        assert 0 <= locked.n_bytes - model.info.weight_bytes < 2 * PAGE
        assert is_locked(path, "token_embd.weight")
    assert locked_ranges(path) == []


def test_the_embedding_is_locked_last_and_the_output_first(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(SPEC)
    begin, end = tensor_range(path, "output.weight")
    with EngineModel(path) as model:
        locked = model.lock(end - begin + PAGE)
        assert locked.n_bytes <= end - begin + PAGE
        assert is_locked(path, "output.weight")
        assert not is_locked(path, "blk.2.ffn_down.weight")
    begin, end = tensor_range(path, "token_embd.weight")
    with EngineModel(path) as model:
        model.lock(model.info.weight_bytes - (end - begin))
        assert is_locked(path, "blk.1.ffn_down.weight")
        assert not is_locked(path, "token_embd.weight")


def test_nothing_is_locked_when_nothing_may_be(tiny_model_path: TinyModelPath) -> None:
    with EngineModel(tiny_model_path(SPEC)) as model:
        assert model.lock(0).n_bytes == 0
        assert model.lock(PAGE - 1).n_bytes == 0


def test_a_raised_flag_ends_the_locking_at_once(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(SPEC)
    stop = StopFlag()
    stop.set()
    with EngineModel(path) as model:
        for work in (model.populate, model.use_huge_pages, lambda flag: model.lock(1 << 40, flag)):
            with pytest.raises(LlamadError) as caught:
                work(stop)
            assert caught.value.kind is ErrorKind.CANCELLED
        assert locked_ranges(path) == []


LOCK_WITH_A_LIMIT = """
import os, resource, sys
from llamad.engine.bindings import EngineModel
resource.setrlimit(resource.RLIMIT_MEMLOCK, (16384, 16384))
model = EngineModel(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)  # whom the limit counts for
locked = model.lock(1 << 40)
print(locked.n_bytes, locked.fault)
"""


def test_the_limit_of_the_process_is_named(tiny_model_path: TinyModelPath) -> None:
    printed = run_python(LOCK_WITH_A_LIMIT, tiny_model_path(SPEC))
    n_bytes, fault = printed.split(" ", 1)
    assert int(n_bytes) <= 16384
    assert "RLIMIT_MEMLOCK is 16384 bytes" in fault
