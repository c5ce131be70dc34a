"""What of a model is in memory: locked, given back, or streamed with the same logits.

What is locked stands in /proc/self/smaps: the kernel splits the file's mapping at its borders.
"""

import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from engine.test_bad_model_files import run_python
from llamad.engine.bindings import (
    NO_LIMIT,
    Engine,
    EngineModel,
    Extent,
    GgufFile,
    Role,
    StopFlag,
)
from llamad.engine.single_sequence import SingleSequence
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.residency import choose_residency, least_memory_bytes
from tiny_gguf import TinyModelPath, TinySpec

PAGE = 4096
HUGE_PAGE = 2 << 20
# Tensors of many pages. All, beside a ring, are less than the 8 MiB that a user may lock on Debian.
SPEC = TinySpec(vocab_size=1000, dim=256, hidden_dim=512, n_layers=2, weight_type="F16")
BIG = TinySpec(vocab_size=4000, dim=512, hidden_dim=2048, n_layers=2)  # of many extents
RING = 4 << 20


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


def mapped_bytes(path: Path) -> int:
    """Return how much of a file is in this process's memory."""
    found, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = line.endswith(str(path))
        elif is_ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def tensor_range(path: Path, name: str) -> tuple[int, int]:
    with GgufFile(path) as file:
        tensor = next(t for t in file.tensors() if t.name == name)
        return tensor.file_offset, tensor.file_offset + tensor.n_bytes


def is_locked(path: Path, name: str) -> bool:
    """Whether the inner pages of a tensor are locked: those at its ends it may share."""
    begin, end = tensor_range(path, name)
    begin, end = begin + PAGE, end - PAGE
    return any(first <= begin and end <= last for first, last in locked_ranges(path))


def all_of(model: EngineModel) -> list[bool]:
    return [True] * len(model.extents())


def test_everything_is_locked_and_unlocked_at_close(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(SPEC)
    with EngineModel(path) as model:
        locked = model.set_residency(all_of(model), lock_bytes=NO_LIMIT)
        assert not locked.fault
        ranges = locked_ranges(path)
        assert sum(end - begin for begin, end in ranges) == locked.n_bytes
        assert 0 <= locked.n_bytes - model.info.weight_bytes < 2 * PAGE
        assert is_locked(path, "token_embd.weight")
    assert locked_ranges(path) == []


def test_extents_cover_each_tensor_once(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(BIG)
    with EngineModel(path) as model, GgufFile(path) as file:
        spans = sorted((e.file_offset, e.file_offset + e.n_bytes) for e in model.extents())
        tensors = sorted((t.file_offset, t.file_offset + t.n_bytes) for t in file.tensors())
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
        assert sum(end - begin for begin, end in spans) == sum(end - at for at, end in tensors)
        assert {begin for begin, _ in tensors} <= {begin for begin, _ in spans}
        assert max(e.n_bytes for e in model.extents()) <= 2 << 20 < max(e - b for b, e in tensors)


def test_what_leaves_is_unlocked_and_dropped_and_comes_back(
    tiny_model_path: TinyModelPath,
) -> None:
    path = tiny_model_path(SPEC)
    with EngineModel(path) as model:
        everything = model.set_residency(all_of(model), lock_bytes=NO_LIMIT)
        feed = [extent.role is not Role.FEED for extent in model.extents()]
        part = model.set_residency(feed, RING, lock_bytes=NO_LIMIT)
        assert sum(end - begin for begin, end in locked_ranges(path)) == part.n_bytes
        assert not is_locked(path, "blk.1.ffn_down.weight")
        assert is_locked(path, "blk.1.attn_q.weight")
        again = model.set_residency(all_of(model), lock_bytes=NO_LIMIT)
        assert again.n_bytes == everything.n_bytes
        assert is_locked(path, "blk.1.ffn_down.weight")


def test_what_leaves_takes_no_memory_and_is_not_measured(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(BIG)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # what is not on the disk yet cannot leave memory
    with EngineModel(path) as model:
        model.populate()
        whole = mapped_bytes(path)
        stays = [extent.role is not Role.FEED for extent in model.extents()]
        left = sum(e.n_bytes for e, s in zip(model.extents(), stays, strict=True) if not s)
        model.set_residency(stays, 3 * RING)
        part = mapped_bytes(path)
        near = 16 * PAGE  # which a fault maps where it finds them in memory (tmpfs)
        assert abs(whole - part - left) <= 2 * near * len(stays)
        assert model.read_bandwidth(2) > 0.0
        assert mapped_bytes(path) == part


def test_nothing_is_locked_when_nothing_may_be(tiny_model_path: TinyModelPath) -> None:
    with EngineModel(tiny_model_path(SPEC)) as model:
        assert model.set_residency(all_of(model)).n_bytes == 0
        assert model.set_residency(all_of(model), lock_bytes=PAGE - 1).n_bytes == 0
        assert model.residency().populated_bytes >= model.residency().resident_bytes


TOKENS = [[1, 5, 9, 40, 7, 300, 12, 8], [3], [77], [5]]  # of one text, in four steps


def logits_of(engine: Engine) -> list[bytes]:
    """Return the last logits of each step, of a text in the steps of TOKENS."""
    sequence, rows = SingleSequence(engine), []
    for tokens in TOKENS:
        sequence.feed(tokens, 1)
        rows.append(bytes(engine.logits(0)))
    return rows


STREAMED = [replace(BIG, weight_type=t) for t in ("F32", "F16", "Q4_0", "Q4_K", "Q6_K", "IQ4_XS")]
STREAMED.append(replace(BIG, architecture="phi3", weight_type="Q4_0"))  # views of fused tensors
STREAMED.append(replace(BIG, architecture="arcee", weight_type="Q8_0"))  # no gate


@pytest.mark.parametrize("spec", STREAMED, ids=lambda s: f"{s.architecture}-{s.weight_type}")
@pytest.mark.parametrize("tied", [True, False])
def test_a_streamed_model_gives_the_same_bits_and_reads_what_streams_once_a_step(
    tiny_model_path: TinyModelPath, spec: TinySpec, tied: bool
) -> None:
    path = tiny_model_path(replace(spec, tied_output=tied))
    with (
        EngineModel(path) as model,
        Engine(model, n_threads=2, n_ctx=64, n_batch=8, n_logits=1) as engine,
    ):
        expected = logits_of(engine)
        file_bytes = model.info.file_bytes
        least = least_memory_bytes(model.extents(), file_bytes)
        for room in (least, (least + file_bytes) // 2, file_bytes - file_bytes // 8):
            chosen = choose_residency(model.extents(), file_bytes, room)
            assert chosen is not None
            model.set_residency(chosen.resident, chosen.ring_bytes, lock_bytes=NO_LIMIT)
            before = model.residency()
            assert logits_of(engine) == expected
            after = model.residency()
            assert after.resident_bytes == chosen.resident_bytes
            assert after.streamed_bytes == chosen.streamed_bytes
            if not chosen.streamed_bytes:
                continue
            assert after.passes - before.passes == len(TOKENS)
            a_step = sum(
                pages_of(extent)
                for extent, stays in zip(model.extents(), chosen.resident, strict=True)
                if not stays and extent.role is not Role.EMBEDDING
            )
            read = after.read_bytes - before.read_bytes - len(TOKENS) * a_step
            assert abs(read) <= chosen.ring_bytes  # what was read ahead, before or behind
            assert a_step <= chosen.streamed_bytes + 2 * PAGE * len(model.extents())


def pages_of(extent: Extent) -> int:
    """Return the bytes of the pages that an extent lies in."""
    end = extent.file_offset + extent.n_bytes
    return (-(-end // PAGE) - extent.file_offset // PAGE) * PAGE


def test_a_raised_flag_ends_the_locking_at_once(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(SPEC)
    stop = StopFlag()
    stop.set()
    with EngineModel(path) as model:
        for work in (model.populate, model.use_huge_pages):
            with pytest.raises(LlamadError) as caught:
                work(stop)
            assert caught.value.kind is ErrorKind.CANCELLED
        assert locked_ranges(path) == []


# In a process of its own: what the session has in huge pages comes and goes.
LOCK_HUGE_PAGES = """
import re, sys
from pathlib import Path
from llamad.engine.bindings import EngineModel

def huge_page_bytes():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"AnonHugePages: +(\\d+) kB", rollup)[1]) * 1024

with EngineModel(sys.argv[1]) as model:
    model.use_huge_pages()
    copied = huge_page_bytes()
    model.set_residency([True] * len(model.extents()), lock_bytes=1 << 40)
    print(copied, huge_page_bytes())
"""


def test_locking_splits_no_huge_page_but_at_the_ends(tiny_model_path: TinyModelPath) -> None:
    copied, left = map(int, run_python(LOCK_HUGE_PAGES, tiny_model_path(BIG)).split())
    assert left >= copied - 3 * HUGE_PAGE  # ends, and a limit


LOCK_WITH_A_LIMIT = """
import os, resource, sys
from llamad.engine.bindings import EngineModel
resource.setrlimit(resource.RLIMIT_MEMLOCK, (16384, 16384))
model = EngineModel(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)  # whom the limit counts for
locked = model.set_residency([True] * len(model.extents()), lock_bytes=1 << 40)
print(locked.n_bytes, locked.fault)
"""


def test_the_limit_of_the_process_is_named(tiny_model_path: TinyModelPath) -> None:
    printed = run_python(LOCK_WITH_A_LIMIT, tiny_model_path(SPEC))
    n_bytes, fault = printed.split(" ", 1)
    assert int(n_bytes) <= 16384
    assert "RLIMIT_MEMLOCK is 16384 bytes" in fault


LOCK_BESIDE_A_RING = """
import os, resource, sys
from llamad.engine.bindings import EngineModel, Role
model = EngineModel(sys.argv[1])
extents = model.extents()
resident = [extent.role is not Role.FEED for extent in extents]
kept = sum(extent.n_bytes for extent, stays in zip(extents, resident) if stays)
limit = kept + (2 << 20)  # enough for the file's part alone, and for the ring alone
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
if os.getuid() == 0:
    os.setuid(65534)  # whom the limit counts for
for _ in range(2):  # at first the file is locked before the ring, later the ring before the file
    locked = model.set_residency(resident, 4 << 20, lock_bytes=1 << 40)
    print(kept, limit, locked.n_bytes, locked.fault)
    resident = [extent.role is not Role.ATTENTION for extent in extents]
"""


def test_the_limit_is_named_where_the_ring_took_a_part_of_it(
    tiny_model_path: TinyModelPath,
) -> None:
    printed = run_python(LOCK_BESIDE_A_RING, tiny_model_path(replace(BIG, weight_type="Q8_0")))
    lines = [line.split(" ", 3) for line in printed.splitlines()]
    assert len(lines) == 2
    for _, limit, n_bytes, fault in lines:
        assert 0 < int(n_bytes) <= int(limit)
        assert f"RLIMIT_MEMLOCK is {limit} bytes" in fault
