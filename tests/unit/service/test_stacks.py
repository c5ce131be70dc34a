"""Where the threads of this process stand, as the journal hears it."""

import re
import threading
from pathlib import Path

import pytest

from llamad.service import stacks


def test_every_thread_has_a_line() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        lines = stacks.threads()
    finally:
        end.set()
        other.join()
    told = {int(line.split()[1]) for line in lines}
    assert {threading.main_thread().native_id, other.native_id} <= told
    pattern = r"thread \d+ '.*' state=[A-Z] cpu_ticks=\d+ waits_in=\S+"
    assert all(re.fullmatch(pattern, line, re.IGNORECASE) for line in lines), lines


def test_a_name_may_have_brackets_and_a_thread_may_have_ended(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "stat").write_text("9 (a ) b) D" + " 0" * 10 + " 30 4" + " 0" * 20)
    (tmp_path / "9" / "wchan").write_text("fuse_wait\0")
    assert stacks.threads(tmp_path) == ["thread 9 'a ) b' state=D cpu_ticks=34 waits_in=fuse_wait"]


def test_the_stacks_of_python_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    stacks.write()
    assert "in test_the_stacks_of_python_go_to_standard_error" in capfd.readouterr().err
