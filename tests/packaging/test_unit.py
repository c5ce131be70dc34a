"""The unit and the package agree with the service: paths, signals, times, versions."""

import re
from pathlib import Path

from llamad import __version__
from llamad.config import DEFAULT_PATH, Config
from llamad.memory.plan import MIB
from llamad.service import last_end
from llamad.service.stacks import WATCHDOG_SIGNAL
from llamad_tools.advice.recommendation import SYSTEM_BYTES

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "systemd" / "llamad.service"
DEBIAN = ROOT / "packaging" / "debian"


def _settings() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            settings.setdefault(match[1], []).append(match[2])
    return settings


def test_the_folders_of_the_unit_are_those_of_the_default_configuration() -> None:
    settings, config = _settings(), Config()
    state = [f"/var/lib/{name}" for name in settings["StateDirectory"][0].split()]
    assert state == [config.service.state_directory, config.model.directory]
    assert str(Path(config.service.socket).parent) == "/run/" + settings["RuntimeDirectory"][0]
    assert str(DEFAULT_PATH.parent) == "/etc/" + settings["ConfigurationDirectory"][0]


def test_a_stop_waits_longer_than_running_requests_may_take() -> None:
    assert int(_settings()["TimeoutStopSec"][0]) > 2 * Config().limits.drain_seconds


def test_the_unit_may_hold_what_fit_promises_for_a_small_board() -> None:
    """Of 4 GiB the kernel of a Raspberry Pi 4 counts all but 304 MiB, and MemoryHigh is a share."""
    share = float(_settings()["MemoryHigh"][0].removesuffix("%")) / 100
    assert share * (4096 - 304) * MIB >= 4096 * MIB - SYSTEM_BYTES


def test_the_service_can_say_that_it_is_ready_and_alive() -> None:
    settings = _settings()
    assert settings["Type"] == ["notify"]
    assert int(settings["WatchdogSec"][0]) > 0
    assert settings["WatchdogSignal"] == [WATCHDOG_SIGNAL.name]
    assert settings["Restart"] == ["on-failure"]


def test_the_unit_writes_down_how_the_service_ended_where_the_service_looks() -> None:
    [command] = _settings()["ExecStopPost"]
    directory = Path(Config().service.state_directory)
    note = str(directory / last_end.FILE).replace("/var/lib", "%S")  # systemd.unit(5)
    assert command == f'-/bin/sh -c "echo ${{SERVICE_RESULT}} ${{EXIT_STATUS}} >{note}"'


def test_a_reload_checks_the_configuration_that_the_service_reads_before_it_takes_it() -> None:
    settings = _settings()
    check, take = settings["ExecReload"]
    assert check == settings["ExecStart"][0] + " --check"
    assert "kill -HUP $MAINPID" in take


def test_the_user_of_the_unit_is_the_one_the_package_makes() -> None:
    kind, name, *_ = (DEBIAN / "llamad.sysusers").read_text().split()
    assert (kind, [name]) == ("u", _settings()["User"])


def test_the_package_has_the_version_of_the_program() -> None:
    match = re.match(r"llamad \(([^)]+)\)", (DEBIAN / "changelog").read_text())
    assert match is not None
    assert match[1] == __version__


def test_every_python_package_is_in_exactly_one_debian_package() -> None:
    installed = [
        line.split("/")[-1]
        for path in sorted(DEBIAN.glob("*.install"))
        for line in path.read_text().splitlines()
        if re.fullmatch(r"usr/lib/python3\*/dist-packages/\w+", line)
    ]
    pyproject = (ROOT / "pyproject.toml").read_text()
    folders = re.search(r"\[tool\.setuptools\.package-dir\]\n((?:\w+ = .*\n)+)", pyproject)
    assert folders is not None
    assert sorted(installed) == sorted(re.findall(r"^\w+", folders[1], re.MULTILINE))
