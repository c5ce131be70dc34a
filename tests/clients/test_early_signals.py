"""Signals that come while ``llamad serve`` starts, before it has handlers for them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clients.running import environment
from unit.schedule.fakes import TIMEOUT_SECONDS

# Sends itself signals when it first reads its configuration.
PROGRAM = """
import os, sys
from llamad import config
from llamad.__main__ import main

load_config = config.load_config
numbers = NUMBERS

def signalled(*arguments):
    while numbers:
        os.kill(os.getpid(), numbers.pop(0))
    return load_config(*arguments)

config.load_config = signalled
sys.exit(main(sys.argv[1:]))
"""


def end_of_serve(folder: Path, *numbers: signal.Signals) -> tuple[int, str]:
    """Return the exit code and the log of a service that gets signals before it can handle them."""
    serve = ["serve", "--socket", str(folder / "llamad.sock"), "--config", str(folder / "toml")]
    (folder / "toml").write_text(f'[model]\ndirectory = "{folder}"\n')
    program = PROGRAM.replace("NUMBERS", repr([int(number) for number in numbers]))
    process = subprocess.run(
        [sys.executable, "-c", program, *serve],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_service_is_ready_ends_it_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    code, log = end_of_serve(tmp_path, number)
    assert code == 0, log
    assert f"signal name={number.name}" in log
    assert "service stopped" in log


def test_a_reload_before_the_service_is_ready_is_made_and_ends_nothing(tmp_path: Path) -> None:
    code, log = end_of_serve(tmp_path, signal.SIGHUP, signal.SIGTERM)
    assert code == 0, log
    assert "configuration reloaded" in log
