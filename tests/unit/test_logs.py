"""Log lines: event first, key=value, and a journald level on every line."""

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamad import logs


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def logged(journald: bool, level: str = "info") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    logs.configure(level, journald, stream)
    return stream, logging.getLogger("test")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "hi"', r'"say \"hi\""'),
        ("a=b", '"a=b"'),
        ("line\nbreak", r'"line\nbreak"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("end\u2028of line", r'"end\u2028of line"'),
        ("\x7f", r'"\u007f"'),
        ("x" * 1001, "x" * 1000 + "…"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.500"),
    ],
)
def test_a_value_is_one_word_or_quoted(value: logs.Value, shown: str) -> None:
    assert logs.fields("event", key=value) == f"event key={shown}"


def test_the_event_is_first_and_absent_values_are_left_out() -> None:
    line = logs.fields("job finished", job="j1", error=None, tokens=3)
    assert line == "job finished job=j1 tokens=3"


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
    ],
)
def test_a_record_for_the_journal_starts_with_its_level(level: int, number: int) -> None:
    stream, log = logged(True, "debug")
    log.log(level, "event")
    assert stream.getvalue() == f"<{number}>event\n"


def test_every_line_of_a_traceback_carries_the_level() -> None:
    stream, log = logged(True)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("call failed")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "<3>call failed"
    assert lines[-2:] == ["<3>ValueError: first", "<3>second"]
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("journald", [True, False])
def test_what_an_exception_says_commands_no_terminal(journald: bool) -> None:
    stream, log = logged(journald)
    try:
        raise ValueError("\x1b[2J\x85<0>forged")
    except ValueError:
        log.exception("call failed")
    assert all(line.isprintable() for line in stream.getvalue().split("\n"))
    assert not any(line.startswith("<0>") for line in stream.getvalue().split("\n") if journald)


def test_without_a_journal_a_line_has_time_and_level() -> None:
    stream, log = logged(False)
    log.warning("event key=1")
    time, level, rest = stream.getvalue().split(maxsplit=2)
    assert time[4] == time[7] == "-"
    assert (level, rest) == ("WARNING", "event key=1\n")


def test_records_below_the_level_are_dropped() -> None:
    stream, log = logged(True, "warning")
    log.info("quiet")
    assert stream.getvalue() == ""


def test_the_journal_is_recognized_by_device_and_inode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stream").open("w") as stream:
        stat = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        assert logs.under_journald(stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino + 1}")
        assert not logs.under_journald(stream)
        monkeypatch.setenv("JOURNAL_STREAM", "nonsense")
        assert not logs.under_journald(stream)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not logs.under_journald(stream)


def test_stderr_without_a_descriptor_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not logs.under_journald(io.StringIO())
