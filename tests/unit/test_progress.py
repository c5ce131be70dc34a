"""The progress line: share, rate and time left on a terminal, nothing elsewhere."""

import io

from llamad_tools.progress_line import TOKENS, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_shows_share_rate_and_time_left() -> None:
    terminal, clock = Terminal(), Clock()
    with Progress(1_000_000_000, stream=terminal, clock=clock) as progress:
        clock.now += 2
        progress.advance(250_000_000, "blk.0.attn_q.weight")
        assert terminal.getvalue() == "\r 25 %  125 MB/s  0:06 left  blk.0.attn_q.weight"
        assert progress.bytes_per_second == 125e6
        clock.now += 0.1
        progress.advance(1, "too soon to draw")
        clock.now += 1
        progress.advance(1, "b")
        shown = terminal.getvalue().split("\r")[-1]
        assert shown.startswith(" 25 %  81 MB/s  0:09 left  b ")  # the longer line is covered
    assert terminal.getvalue().endswith("\r")


def test_hours_are_shown() -> None:
    terminal, clock = Terminal(), Clock()
    with Progress(4_000_000_000, stream=terminal, clock=clock) as progress:
        clock.now += 10
        progress.advance(10_000_000, "a")
        assert "1:06:30 left" in terminal.getvalue()


def test_a_label_commands_no_terminal() -> None:
    terminal, clock = Terminal(), Clock()
    with Progress(100, stream=terminal, clock=clock) as progress:
        clock.now += 1
        progress.advance(50, "a\n\x1b[2J" + 1000 * "b")
        shown = terminal.getvalue()
        assert "left  a\\n\\x1b[2Jbbb" in shown
        assert len(shown) < 100


def test_nothing_is_written_to_a_file() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, stream=stream, clock=clock) as progress:
        clock.now += 1
        progress.advance(100, "a")
    assert stream.getvalue() == ""


def test_what_begins_is_shown_before_any_of_it_is_done_and_makes_room() -> None:
    terminal, clock = Terminal(), Clock()
    with Progress(100, unit=TOKENS, stream=terminal, clock=clock).begin("a long\tname") as progress:
        assert terminal.getvalue() == "\ra long\\tname ..."
        clock.now += 1
        progress.advance(50, "b")
        assert terminal.getvalue().endswith("\r 50 %  50 tokens/s  0:01 left  b")
    assert terminal.getvalue().endswith(" \r")
    stream = io.StringIO()
    with Progress(0, stream=stream).begin("a"):
        assert stream.getvalue() == ""
