"""The whole way with real processes: llamactl, gRPC, service, scheduler, C engine, tiny model."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.daemon_process import daemon
from clients.running import environment
from llamad_client import Client
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS


@pytest.fixture
def tiny(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(TinySpec())


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def finished(done: "subprocess.CompletedProcess[str]") -> tuple[str, dict[str, Any]]:
    """Return text and last event of ``ask --json``."""
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["type"] == "finished"
    return "".join(line["text"] for line in lines if line["type"] == "delta"), lines[-1]


def test_a_question_is_answered_and_the_same_seed_gives_the_same_answer(
    folder: Path, tiny: Path
) -> None:
    with daemon(folder, "--model", str(tiny), "--threads", "1") as service:
        service.wait_until_ready()
        ask = ("--json", "ask", "-n", "24", "--seed", "3", "--temperature", "1.5", "hello")
        text, end = finished(service.llamactl(*ask))
        again, _ = finished(service.llamactl(*ask))
        assert (end["seed"], end["completion_tokens"] <= 24) == (3, True)
        assert text == again
        with Client(service.socket) as client:
            ids = client.tokenize("hello", add_bos=False)
            assert client.detokenize(ids) == "hello"
            status = client.status()
            assert status.model is not None
            assert status.model.architecture == "llama"
            assert status.requests_finished == 2
        assert service.stop() == 0
        assert not service.socket.exists()
        log = service.log.read_text()
        assert log.count("request finished") == 2
        assert "hello" not in log


def test_a_model_that_cannot_be_loaded_ends_the_service_with_one_line(folder: Path) -> None:
    broken = folder / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with daemon(folder, "--model", str(broken)) as service:
        assert service.process.wait(TIMEOUT_SECONDS) == 1
        [line] = [li for li in service.log.read_text().splitlines() if li.startswith("llamad: ")]
        assert "broken.gguf" in line
        assert not service.socket.exists()


def test_a_service_without_a_model_says_what_to_do_and_answers_after_a_pull(
    folder: Path, tiny: Path
) -> None:
    models = folder / "models"
    models.mkdir()
    file = folder / "llamad.toml"
    file.write_text(f'[model]\ndirectory = "{models}"\n')
    with daemon(folder, "--config", str(file)) as service:
        with Client(service.socket) as client:
            while not service.socket.exists() or client.status().detail in (
                "starting",
                "loading the model",
            ):
                assert service.process.poll() is None, service.log.read_text()
        done = service.llamactl("ask", "hello")
        assert done.returncode == 4
        assert '"llamactl pull demo" fetches a small one' in done.stderr
        done = service.llamactl("pull", tiny.as_uri(), "--name", "first")
        assert done.returncode == 0, done.stderr
        [note] = [line for line in done.stderr.splitlines() if line.startswith("llamactl:")]
        assert "is on the disk twice now" in note
        assert done.stdout.startswith("first: added, ")
        assert "first: loaded in" in done.stdout
        assert (models / "first.gguf").read_bytes() == tiny.read_bytes()
        assert service.llamactl("ask", "--raw", "-n", "3", "hello").returncode == 0
        assert service.llamactl("pull", str(tiny), "--name", "first").returncode == 0
        assert service.stop() == 0


def test_lines_for_the_journal_all_carry_a_level(folder: Path, tiny: Path) -> None:
    log = folder / "log"
    log.touch()
    stat = log.stat()
    journal = f"{stat.st_dev}:{stat.st_ino}"
    with daemon(folder, "--model", str(tiny), JOURNAL_STREAM=journal) as service:
        service.wait_until_ready()
        assert service.stop() == 0
        lines = service.log.read_text().splitlines()
    assert lines
    assert all(re.match("<[2-7]>", line) for line in lines), lines


def test_a_second_service_on_the_socket_is_refused(folder: Path, tiny: Path) -> None:
    with daemon(folder, "--model", str(tiny)) as first:
        first.wait_until_ready()
        second = subprocess.run(
            [sys.executable, "-m", "llamad", "serve", "--socket", str(first.socket)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=TIMEOUT_SECONDS,
        )
        assert second.returncode == 1
        assert "another service is listening" in second.stderr
        assert first.llamactl("health").returncode == 0
        assert first.stop() == 0
