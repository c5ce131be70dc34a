"""Standard streams as cron, services, full disks and careless parents leave them."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from llamactl.command_line import QUIET
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
COMMANDS = {
    "ask": "ask q",
    "ask --json": "--json ask q",
    "chat": "chat",
    "status": "status",
    "models": "models",
    "models --catalogue": "models --catalogue",
    "jobs": "jobs",
    "embed": "embed t",
    "tokenize": "tokenize t",
    "health": "health",
    "version": "version",
    "cancel": "cancel {job}",
}


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def run_in_shell(
    service: RunningService, arguments: str, redirections: str, stdin: bytes = b"q\n"
) -> subprocess.CompletedProcess[bytes]:
    """Run llamactl with what a shell makes of its streams."""
    program = " ".join(llamactl_command("--socket", str(service.path)))
    return subprocess.run(
        ["sh", "-c", f"exec {program} {arguments} {redirections}"],
        input=stdin,
        capture_output=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def a_job(service: RunningService) -> str:
    done = run_in_shell(service, "--json ask q", "</dev/null")
    return str(json.loads(done.stdout.splitlines()[0])["job_id"])


def said(command: str) -> str:
    """Return the command's module name."""
    return command.split()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_standard_output_is_said_where_output_is_the_point(
    service: RunningService, command: str
) -> None:
    quiet = said(command) in {module.__name__.rsplit(".", 1)[1] for module in QUIET}
    done = run_in_shell(service, COMMANDS[command].format(job=a_job(service)), ">&-")
    assert done.returncode == (0 if quiet else 5)
    [*line] = done.stderr.decode().splitlines()
    if quiet:
        assert line == []
    elif "json" in command:
        assert json.loads(line[0])["reason"] == "OUTPUT_FAILED"
    else:
        assert line == ["llamactl: standard output is closed"]


@needs_full_device
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_behind_standard_output_is_one_line(
    service: RunningService, command: str
) -> None:
    done = run_in_shell(service, COMMANDS[command].format(job=a_job(service)), ">/dev/full")
    assert done.returncode == 5
    [line] = done.stderr.decode().splitlines()
    assert "standard output: No space left on device" in line


@needs_full_device
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
@pytest.mark.parametrize("command", ["ask --stats q", "status", "version"])
def test_standard_error_is_not_needed_for_an_answer(
    service: RunningService, command: str, redirection: str
) -> None:
    done = run_in_shell(service, command, redirection, stdin=b"")
    assert done.returncode == 0
    assert done.stdout
    done = run_in_shell(service, "cancel none", redirection)
    assert (done.returncode, done.stdout) == (4, b"")


def test_all_streams_may_be_closed(service: RunningService) -> None:
    assert run_in_shell(service, "health", "<&- >&- 2>&-").returncode == 0
    assert run_in_shell(service, "ask q", "<&- >&- 2>&-").returncode == 5


@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null", "</dev/null"])
def test_a_standard_input_that_nobody_can_read_is_empty(
    service: RunningService, redirection: str
) -> None:
    done = run_in_shell(service, "ask q", redirection)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"An answer.\n", b"")
    done = run_in_shell(service, "chat", redirection)
    note = b"llamactl: standard input has no message: nothing was asked\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", note)
    assert run_in_shell(service, "ask", redirection).returncode == 2


@pytest.mark.parametrize("command", ["ask q", "chat"])
def test_a_standard_input_that_fails_is_one_line(service: RunningService, command: str) -> None:
    with socket.socket(socket.AF_UNIX) as unconnected:
        done = subprocess.run(
            [*llamactl_command("--socket", str(service.path)), *command.split()],
            stdin=unconnected.fileno(),
            capture_output=True,
            env=environment(),
            timeout=TIMEOUT_SECONDS,
        )
    assert (done.returncode, done.stdout) == (4, b"")
    [line] = done.stderr.decode().splitlines()
    assert line.endswith("standard input: Invalid argument")


def test_a_standard_input_that_does_not_block_is_waited_for(service: RunningService) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = subprocess.Popen(
        [*llamactl_command("--socket", str(service.path)), "ask"],
        stdin=reader,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    os.close(reader)
    os.write(writer, b"half a ")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    os.write(writer, b"question")
    os.close(writer)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, output) == (0, b"An answer.\n")


def test_a_standard_output_that_does_not_block_gets_everything(service: RunningService) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "x" * 200_000  # more than the pipe holds
    program = "import sys; from llamactl import streams; streams.open_streams();"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program} print('x' * {len(text)}, flush=True)"],
        stdout=writer,
        env=environment(),
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == text.encode() + b"\n"
    assert process.wait(TIMEOUT_SECONDS) == 0


def test_a_broken_pipe_ends_it_quietly_and_cancels_the_job() -> None:
    closed, steps = threading.Event(), itertools.count()

    def hold() -> None:
        if next(steps) == 3:
            assert closed.wait(TIMEOUT_SECONDS)

    with running_service() as service:
        service.engine.rule = lambda history, seed, draw: 97
        service.engine.before_step = hold
        process = subprocess.Popen(
            llamactl_command("--socket", str(service.path), "ask", "q"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        closed.set()
        assert process.wait(TIMEOUT_SECONDS) == 141
        assert process.stderr.read() == b""
        process.stderr.close()
        service.wait_until_idle()


def test_nothing_else_gets_the_number_of_a_closed_stream() -> None:
    program = (
        "import os; from llamactl import streams; streams.reserve_descriptors();"
        "os._exit(os.open('/', os.O_RDONLY))"
    )
    shell = f'exec {sys.executable} -c "{program}" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell], env=environment(), timeout=TIMEOUT_SECONDS)
    assert done.returncode > 2


def test_a_pipe_of_chat_may_hold_any_bytes(service: RunningService) -> None:
    done = run_in_shell(service, "chat", "", stdin=b"\xff\xfe\nfine\n")
    assert (done.returncode, done.stdout) == (4, b"An answer.\n")
    assert b"no valid UTF-8" in done.stderr
