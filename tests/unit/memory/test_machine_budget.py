"""What this process may have with what it has locked: no page counts twice or not at all."""

from pathlib import Path

import pretend_machine
from llamad.memory.machine import Machine

KIB, MIB = 1 << 10, 1 << 20


def _v1_machine(folder: Path, *, unevictable: int) -> Machine:
    proc, cgroup = folder / "proc", folder / "cgroup" / "memory" / "a"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir(parents=True)
    (proc / "meminfo").write_text("MemAvailable: 1048576 kB\n")
    (proc / "self" / "status").write_text("RssAnon: 2048 kB\n")
    (proc / "self" / "cgroup").write_text("4:memory:/a\n")
    (cgroup / "memory.limit_in_bytes").write_text(f"{400 * MIB}\n")
    (cgroup / "memory.usage_in_bytes").write_text(f"{300 * MIB}\n")
    (cgroup / "memory.stat").write_text(
        f"total_inactive_file {20 * MIB}\ntotal_active_file 0\ntotal_unevictable {unevictable}\n"
    )
    return Machine(proc, folder / "cgroup")


def test_locked_pages_are_this_processs_own(tmp_path: Path) -> None:
    machine = _v1_machine(tmp_path, unevictable=250 * MIB)
    assert machine.budget_bytes() == (400 - 280 + 2) * MIB
    assert machine.budget_bytes(locked_bytes=250 * MIB) == (400 - 280 + 2 + 250) * MIB


def test_pages_that_another_cgroup_is_charged_for_leave_no_more_room_in_this_one(
    tmp_path: Path,
) -> None:
    machine = _v1_machine(tmp_path, unevictable=10 * MIB)
    assert machine.budget_bytes(locked_bytes=250 * MIB) == (400 - 280 + 2 + 10) * MIB


def test_without_a_cgroup_the_machines_memory_counts(tmp_path: Path) -> None:
    machine = pretend_machine.machine(tmp_path, available_kib=1024)
    assert machine.budget_bytes(locked_bytes=MIB) == 2 * MIB
    assert machine.limit_bytes() is None


def test_v1_says_a_huge_number_where_there_is_no_limit(tmp_path: Path) -> None:
    machine = _v1_machine(tmp_path, unevictable=0)
    assert machine.limit_bytes() == 400 * MIB
    limit = tmp_path / "cgroup" / "memory" / "a" / "memory.limit_in_bytes"
    limit.write_text(f"{(1 << 63) - 4096}\n")
    assert machine.limit_bytes() is None


def test_what_a_child_has_counts_as_this_processs_own(tmp_path: Path) -> None:
    machine = _v1_machine(tmp_path, unevictable=0)
    task = tmp_path / "proc" / "self" / "task" / "7"
    task.mkdir(parents=True)
    (task / "children").write_text("8 9")
    (tmp_path / "proc" / "8").mkdir()
    (tmp_path / "proc" / "8" / "status").write_text("RssAnon: 3072 kB\n")  # 9 has ended
    assert machine.budget_bytes() == (400 - 280 + 2 + 3) * MIB


def test_all_memory_is_the_machines_or_less_by_a_limit(tmp_path: Path) -> None:
    machine = _v1_machine(tmp_path, unevictable=0)
    assert machine.total_bytes() == 400 * MIB
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")
    assert machine.total_bytes() == 2 * MIB
