"""Prefill progress on a terminal, and the numbers of --stats."""

import io
import itertools
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from llamactl import answer
from llamad_client import PrefillProgress, Queued, Result, TextDelta, Timings


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class PlayedCompletion:
    """A completion that plays back events."""

    def __init__(self, *events: object) -> None:
        self.result: Result | None = result()
        self._events = events

    def events(self) -> Iterator[object]:
        yield from self._events

    def __enter__(self) -> "PlayedCompletion":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to cancel."""


def result(finish_reason: str = "stop") -> Result:
    timings = Timings(0.5, 2.0, 4.0, 2.5, 0.4, 1.5)
    return Result(finish_reason, 100, 11, 20, 0, timings, 7, "j1", "tiny", "", 0, False, False)


EVENTS = (
    PrefillProgress(processed_tokens=25, prompt_tokens=100),
    PrefillProgress(processed_tokens=50, prompt_tokens=100),
    TextDelta(text="Hi", tokens=1),
)


def shown(
    monkeypatch: pytest.MonkeyPatch,
    stderr: io.StringIO,
    seconds_per_look: float,
    events: Sequence[object] = EVENTS,
) -> tuple[str, str]:
    """Play EVENTS with a clock that moves at every look; return stdout and stderr."""
    stdout = io.StringIO()
    clock = itertools.count(0.0, seconds_per_look)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    answer.show(PlayedCompletion(*events), as_json=False, stats=False)  # type: ignore[arg-type]
    return stdout.getvalue(), stderr.getvalue()


def test_progress_is_shown_after_a_second_and_erased_before_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout, stderr = shown(monkeypatch, Terminal(), 0.6)
    assert stdout == "Hi\n"
    assert stderr == "\r\x1b[Kreading the prompt: 50 % of 100 tokens\r\x1b[K"


def test_a_quick_prefill_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), 0.1) == ("Hi\n", "")


def test_progress_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), 5.0) == ("Hi\n", "")


def test_stats_name_rates_of_prefill_and_decode(capsys: pytest.CaptureFixture[str]) -> None:
    answer.print_stats(result())
    assert capsys.readouterr().err.splitlines() == [
        "load:    1.50 s",
        "queue:   0.50 s",
        "prefill: 80 tokens in 2.00 s (40.0 tokens/s)",
        "decode:  10 tokens in 4.00 s (2.5 tokens/s)",
        "first token after 2.50 s",
        "finish:  stop",
        "seed:    7",
    ]


@pytest.mark.parametrize(
    ("position", "wait", "text"),
    [
        (3, 20.0, "waiting, 3 in front, about 20 s"),
        (3, None, "waiting, 3 in front"),
        (0, 90.0, "waiting, 0 in front, about 1 min 30 s"),
        (1, 0.2, "waiting, 1 in front, about 1 s"),
        (0, 0.4, ""),
        (0, None, ""),
    ],
)
def test_a_wait_says_who_is_in_front_and_how_long_it_takes(
    position: int, wait: float | None, text: str
) -> None:
    event = Queued("j", position, 5, 0, "", wait)
    assert answer.waiting_text(event) == text


def test_a_place_in_the_queue_is_shown_again_when_it_changes_and_notes_are_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [Queued("j", n, 5, 2, "", 10.0 * n) for n in (2, 1)]
    _, stderr = shown(monkeypatch, Terminal(), 0.1, (*events, *EVENTS[1:]))
    assert stderr.count("2 messages were left out") == 1
    assert "waiting, 2 in front, about 20 s" in stderr
    assert "waiting, 1 in front, about 10 s" in stderr


def test_reading_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [PrefillProgress(40, 100, 12.0), *EVENTS[-2:]]
    _, stderr = shown(monkeypatch, Terminal(), 1.5, events)
    assert "reading the prompt: 40 % of 100 tokens, about 12 s left" in stderr
