"""Whose standard input is: the prompt's, or that of a loop around llamactl."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, running_service
from clients.test_llamactl import prompts, run
from unit.schedule.fakes import TIMEOUT_SECONDS, saying


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def run_script(service: RunningService, script: str) -> list[bytes]:
    """Run a shell script in which `ask` is llamactl ask; return the prompts it led to."""
    ask = f'ask() {{ "{sys.executable}" -m llamactl ask "$@"; }}\n'
    done = subprocess.run(
        ["sh", "-c", ask + script],
        capture_output=True,
        env=environment(LLAMAD_SOCKET=str(service.path)),
        timeout=TIMEOUT_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return prompts(service)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions"
    path.write_text("one\ntwo\nthree\n", encoding="utf-8")
    return path


def test_a_loop_over_a_file_asks_every_question(service: RunningService, questions: Path) -> None:
    script = f'while read -r q; do ask "$q"; done < "{questions}"'
    assert run_script(service, script) == [b"user:one|", b"user:two|", b"user:three|"]


def test_a_loop_over_a_pipe_asks_every_question_with_no_stdin(
    service: RunningService, questions: Path
) -> None:
    script = f'cat "{questions}" | while read -r q; do ask --no-stdin "$q"; done'
    assert run_script(service, script) == [b"user:one|", b"user:two|", b"user:three|"]


def test_a_file_that_nothing_was_read_of_joins_the_words(
    service: RunningService, questions: Path
) -> None:
    assert run_script(service, f'ask "Sum up:" < "{questions}"') == [
        b"user:Sum up:\n\none\ntwo\nthree|"
    ]


def test_without_words_the_rest_of_a_file_is_the_prompt(
    service: RunningService, questions: Path
) -> None:
    script = f'{{ read -r first; ask; }} < "{questions}"'
    assert run_script(service, script) == [b"user:two\nthree|"]


def test_no_stdin_leaves_a_pipe_alone(service: RunningService) -> None:
    assert run(service.path, "ask", "--no-stdin", "q", stdin=b"more\n").returncode == 0
    assert prompts(service) == [b"user:q|"]


def test_no_stdin_without_words_is_no_prompt(service: RunningService) -> None:
    done = run(service.path, "ask", "--no-stdin", stdin=b"text\n")
    assert done.returncode == 2
    assert b"no prompt" in done.stderr


def test_a_pipe_that_stays_silent_is_told_of(service: RunningService) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "llamactl", "--socket", str(service.path), "ask", "q"],
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(reading)
    assert process.stderr is not None
    note = process.stderr.readline()
    os.close(writing)
    out, rest = process.communicate(timeout=TIMEOUT_SECONDS)
    assert note == b"llamactl: waiting for standard input (--no-stdin does without)\n"
    assert (process.returncode, out, rest) == (0, b"An answer.\n", b"")
