"""llamactl top: its lines, and the screen as a person sees it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from clients.terminal_screen import TerminalScreen, terminal_screen
from llamactl.activity import Activity
from llamactl.speeds import ENOUGH, Speeds
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Job, Refused, Status
from llamad_client.values import value_of
from unit.schedule.fakes import TIMEOUT_SECONDS


def test_a_speed_is_a_mean_of_the_last_seconds() -> None:
    speeds = Speeds()
    for second in range(21):
        speeds.look(float(second), {"fast": 100 * second if second > 10 else 0, "slow": second})
    assert speeds.of("fast") == 100
    assert speeds.of("slow") == 1  # looked at for longer, until ENOUGH
    assert speeds.of("absent") is None


def test_a_speed_needs_two_looks_and_forgets_what_began_anew() -> None:
    speeds = Speeds()
    assert speeds.of("n") is None
    speeds.look(0.0, {"n": 50})
    assert speeds.of("n") is None
    speeds.look(2.0, {"n": 50 + 2 * ENOUGH})
    assert speeds.of("n") == ENOUGH
    speeds.look(3.0, {"n": 0})  # the service was started again
    assert speeds.of("n") is None


class _Client:
    """A service that says what the test says."""

    def __init__(self) -> None:
        self.response = pb.GetStatusResponse(
            state=pb.GetStatusResponse.STATE_READY, detail="serving fake", sequence_slots=4
        )
        self.response.model.locked_bytes = 900
        self.running: list[pb.Job] = []
        self.error: Refused | None = None

    def status(self) -> Status:
        if self.error is not None:
            raise self.error
        return value_of(Status, self.response)

    def jobs(self) -> list[Job]:
        return [value_of(Job, job) for job in self.running]


def _job(**fields: Any) -> pb.Job:
    base: dict[str, Any] = {"id": "j1", "priority": pb.PRIORITY_BATCH, "prompt_tokens": 200}
    return pb.Job(**base | fields)


def test_a_job_has_user_class_state_progress_and_speed() -> None:
    client, clock = _Client(), SimpleNamespace(now=0.0)
    activity = Activity(client, lambda: clock.now)  # type: ignore[arg-type]
    client.running = [
        _job(state=pb.JOB_STATE_PREFILL, processed_prompt_tokens=50, owner_uid=0),
        _job(
            id="j2",
            state=pb.JOB_STATE_QUEUED,
            queue_position=2,
            wait_seconds=90.0,
            on_behalf_of="ann\x1b",
        ),
    ]
    activity.lines()
    clock.now = 2.0
    client.running[0] = _job(
        state=pb.JOB_STATE_DECODE,
        processed_prompt_tokens=200,
        completion_tokens=25,
        max_tokens=100,
        owner_uid=0,
        age_seconds=61.0,
    )
    lines = [line.text for line in activity.lines()]
    header, first, second = lines[lines.index("") + 1 :]
    assert header.split()[:3] == ["ID", "USER", "CLASS"]
    assert " ".join(first.split()) == "j1 root batch decode answer 25 % 25 87.5 1 min 1 s"
    waits = r"j2 ann\x1b batch queued 2 in front, ~1 min 30 s 0 0 s"
    assert " ".join(second.split()) == waits


def test_a_weak_power_supply_is_loud_and_so_is_a_service_that_is_away() -> None:
    client = _Client()
    client.response.board.under_voltage = True
    activity = Activity(client)  # type: ignore[arg-type]
    [warning] = [line for line in activity.lines() if "power supply" in line.text]
    assert warning.loud
    client.error = Refused("SOME_REASON", "it is away\nfor now")
    [said, _] = activity.lines_or_error()
    assert (said.text, said.loud) == (r"it is away\nfor now", True)


# ---- the screen ----------------------------------------------------------------------------------


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[TerminalScreen]:
    with terminal_screen(tmp_path) as terminal:
        yield terminal


def test_it_shows_what_runs_follows_the_window_and_leaves_by_q(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    screen.start(llamactl_command("--socket", str(service.path), "top"), environment())
    screen.wait_for("No request runs or waits.")
    entered = service.pause_step(1)
    ask = [
        "--socket",
        str(service.path),
        "ask",
        "--priority",
        "batch",
        "--max-tokens",
        "50",
        "Why?",
    ]
    asking = subprocess.Popen(llamactl_command(*ask), env=environment(), stdout=subprocess.DEVNULL)
    assert entered.wait(TIMEOUT_SECONDS)
    text = screen.wait_for("answer 2 %")
    assert "1 of 4 run (1 batch)" in text
    assert "TOKENS/S" in text
    screen.resize(40, 6)
    screen.wait(lambda shown: "more" in shown and "TOKENS/S" not in shown)
    screen.resize(100, 30)
    screen.wait_for("answer 2 %")
    asking.terminate()
    asking.wait(TIMEOUT_SECONDS)
    screen.wait_for("No request runs or waits.")
    screen.type("x")  # means nothing
    screen.type("q")
    screen.wait_for_end()


def test_it_follows_the_window_without_a_signal(
    screen: TerminalScreen, service: RunningService
) -> None:
    """Linux sends the signal before the size changes: who asks at once may hear the old one."""
    command = llamactl_command("--socket", str(service.path), "top")
    screen.start(["env", "--block-signal=WINCH", *command], environment())
    screen.wait_for("No request runs or waits.")
    screen.resize(40, 4)
    screen.wait(lambda shown: "more" in shown and "No request" not in shown)
    screen.type("q")
    screen.wait_for_end()


def test_a_service_that_goes_away_is_told_and_waited_for(
    screen: TerminalScreen, tmp_path: Path
) -> None:
    with running_service() as service:
        path = service.path
        screen.start(llamactl_command("--socket", str(path), "top"), environment())
        screen.wait_for("llamad: ready")
    screen.wait_for("Trying again every second.")
    screen.press("C-c")
    screen.wait_for_end()


def _top(service: RunningService, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        llamactl_command("--socket", str(service.path), *flags, "top"),
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def test_without_a_terminal_it_is_shown_once(service: RunningService) -> None:
    done = _top(service)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("llamad: ready (serving fake)")
    assert done.stdout.endswith("\nNo request runs or waits.\n")
    [found] = [json.loads(line) for line in _top(service, "--json").stdout.splitlines()]
    assert (found["status"]["state"], found["jobs"]) == ("ready", [])


def test_a_service_that_does_not_run_is_3(tmp_path: Path) -> None:
    done = subprocess.run(
        llamactl_command("--socket", str(tmp_path / "none.sock"), "top"),
        env=environment(),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 3


def test_a_terminal_that_cannot_move_its_cursor_gets_it_once(
    screen: TerminalScreen, service: RunningService
) -> None:
    command = f"{' '.join(llamactl_command('--socket', str(service.path), 'top'))}; read x"
    screen.start(["sh", "-c", f"TERM=dumb {command}"], environment())
    screen.wait_for("No request runs or waits.")
    screen.press("Enter")
    screen.wait_for_end()
