"""The installed service inside a machine, as an administrator and the users there see it.

Works on any machine that runs commands: a container (``machine.py``) or an emulated board
(``pi_machine.py``). Owns the names of the packages and users, and no step of a test.
"""

import re
from pathlib import Path
from typing import Protocol

from e2e.machine import Result, until

PACKAGES = ("llamad", "llamactl", "python3-llamad-client", "llamad-http", "llamad-wyoming")
MEMBER, ADMIN, OUTSIDER = "alice", "carol", "bob"  # of llamad; of llamad-admin too; of neither
STATE = Path("/var/lib/llamad/models")
ASK_SECONDS = 300.0


class Commands(Protocol):
    """A machine that runs commands."""

    def run(
        self, *command: str, user: str = "root", check: bool = True, seconds: float = 300.0
    ) -> Result:
        """Run a command to its end; with ``check``, another exit code than 0 is a failure."""


class Service:
    """What is asked of systemd, apt and llamactl."""

    def __init__(self, machine: Commands) -> None:
        """Take a machine that runs."""
        self._machine = machine

    def apt(self, verb: str, *names: str) -> None:
        """Install, remove or purge packages. There is no network: they are in apt's cache."""
        self._machine.run(*apt_command(verb, *names), seconds=1200.0)

    def package(self, field: str, name: str) -> str:
        """Return a field that dpkg knows of a package, as dpkg-query writes it."""
        return self._machine.run("dpkg-query", "--show", f"--showformat={field}", name).stdout

    def add_users(self) -> None:
        """Make a member of the group, an administrator and a user who is neither."""
        self._machine.run("useradd", "--groups=llamad", MEMBER)
        self._machine.run("useradd", "--groups=llamad,llamad-admin", ADMIN)
        self._machine.run("useradd", OUTSIDER)

    def property(self, name: str) -> str:
        """Return a property of the unit."""
        command = ("systemctl", "show", "llamad", f"--property={name}", "--value")
        return self._machine.run(*command).stdout.strip()

    def journal(self) -> str:
        """Return what the unit logged since the machine was made."""
        return self._machine.run("journalctl", "--unit=llamad", "--no-pager").stdout

    def until_active(self) -> None:
        """Wait until the unit is active; AssertionError when it fails."""

        def active() -> bool:
            state = self.property("ActiveState")
            assert state != "failed", state
            return state == "active"

        until(active, "the service is active", 300.0)

    def llamactl(self, *arguments: str, user: str = MEMBER, check: bool = True) -> Result:
        """Run the command as a user."""
        return self._machine.run(
            "llamactl", *arguments, user=user, check=check, seconds=ASK_SECONDS
        )

    def status_field(self, name: str) -> str:
        """Return a field of ``llamactl --json status`` as it is written there."""
        text = self.llamactl("--json", "status").stdout
        match = re.search(rf'"{name}": ("[^"]*"|[^,}}]+)', text)
        assert match is not None, text
        return match[1].strip('"')

    def ask(self) -> None:
        """Ask as an ordinary user of the group; the demo model knows how to go on."""
        greedy = ("--raw", "--temperature", "0", "--max-tokens", "4")
        text = self.llamactl("ask", *greedy, "The capital of France is").stdout
        assert "Paris" in text, text

    def process_fields(self) -> dict[str, str]:
        """Return /proc/PID/status of the service, by the names there."""
        text = self._machine.run("cat", f"/proc/{self.property('MainPID')}/status").stdout
        pairs = (line.partition(":") for line in text.splitlines())
        return {name: value.strip() for name, _, value in pairs}


def apt_command(verb: str, *names: str) -> tuple[str, ...]:
    """Return the command that installs, removes or purges packages without a question."""
    options = ("--yes", "--quiet=2", "--no-install-recommends", "--allow-downgrades")
    return ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", verb, *options, *names)


def packages_in(folder: Path, architecture: str) -> list[Path]:
    """Return the packages for an architecture; AssertionError when one is missing."""
    patterns = [f"{p}_*_{architecture if p == 'llamad' else 'all'}.deb" for p in PACKAGES]
    found = [sorted(folder.glob(pattern)) for pattern in patterns]
    assert all(len(debs) == 1 for debs in found), f"{folder}: {found}, not one of each {patterns}"
    return [debs[0] for debs in found]
