"""What is shown of a transfer: a line on a terminal, lines in a log, JSON lines."""

import json
from collections.abc import Iterator

import pytest

from llamactl.progress import Progress

MEGABYTE = 1_000_000


class Clock:
    """A clock that goes on by what it is told each time it is looked at."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def pieces(count: int, n_bytes: int = MEGABYTE) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(n_bytes)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was written over each other on the terminal's line."""
    return capsys.readouterr().err.split("\r\x1b[K")[1:]


def test_a_terminal_shows_rate_and_rest_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    progress = Progress(as_json=False, clock=Clock(step=0.5))
    assert len(list(progress.watch(0, 100 * MEGABYTE, pieces(45)))) == 45
    lines = shown(capsys)
    assert lines[0] == "0 % of 100.0 MB"
    assert lines[-1] == "45 % of 100.0 MB, 2.0 MB/s, 28 s left"
    assert not any("\n" in line for line in lines)
    progress.erase()
    assert shown(capsys) == [""]


def test_the_rate_is_that_of_the_last_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    clock = Clock(step=1.0)
    progress = Progress(as_json=False, clock=clock)
    watched = progress.watch(0, 1000 * MEGABYTE, pieces(60))
    for _ in range(30):
        next(watched)
    clock.step = 10.0
    list(watched)
    assert shown(capsys)[-1] == "6 % of 1.0 GB, 100.0 kB/s, 2 h 36 min left"


def test_the_terminal_is_not_written_for_every_piece(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    list(Progress(as_json=False, clock=Clock(step=0.01)).watch(0, None, pieces(100)))
    assert 4 <= len(shown(capsys)) <= 6


def test_a_narrow_terminal_gets_no_second_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "20")
    list(Progress(as_json=False, clock=Clock(step=1)).watch(0, 100 * MEGABYTE, pieces(50)))
    assert max(map(len, shown(capsys))) == 19


def test_a_note_takes_the_place_of_the_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    progress = Progress(as_json=False, clock=Clock(step=1))
    list(progress.watch(0, 100 * MEGABYTE, pieces(1)))
    progress.note("trying \x1b]8;;again")
    assert shown(capsys)[-1] == "llamactl: trying \\x1b]8;;again\n"


def test_a_log_gets_each_tenth_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False, clock=Clock(step=30.0))
    list(progress.watch(55 * MEGABYTE, 100 * MEGABYTE, pieces(45)))
    assert capsys.readouterr().err.splitlines() == [
        "60 % of 100.0 MB, 33.3 kB/s, 20 min 00 s left",
        "70 % of 100.0 MB, 33.3 kB/s, 15 min 00 s left",
        "80 % of 100.0 MB, 33.3 kB/s, 10 min 00 s left",
        "90 % of 100.0 MB, 33.3 kB/s, 5 min 00 s left",
        "100 % of 100.0 MB, 33.3 kB/s",
    ]


def test_without_a_size_a_log_gets_each_hundred_megabytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    list(Progress(as_json=False, clock=Clock(step=1)).watch(0, None, pieces(250)))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["100.0 MB", "200.0 MB"]


def test_json_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=True, clock=Clock(step=1))
    list(progress.watch(0, 2 * MEGABYTE, pieces(2)))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"type": "progress", "bytes": 1_000_000, "file_bytes": 2_000_000},
        {"type": "progress", "bytes": 2_000_000, "file_bytes": 2_000_000},
    ]
    progress.note("said")
    assert json.loads(capsys.readouterr().err) == {"type": "note", "message": "said"}


def test_a_transfer_that_begins_again_counts_from_there() -> None:
    progress = Progress(as_json=True)
    list(progress.watch(0, 5 * MEGABYTE, pieces(3)))
    assert progress.done_bytes == 3 * MEGABYTE
    list(progress.watch(0, 5 * MEGABYTE, pieces(1)))
    assert progress.done_bytes == MEGABYTE
