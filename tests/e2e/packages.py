"""The packages on a real systemd: install, ask, break, upgrade, reboot, remove, purge.

    PYTHONPATH=tests python3 -m e2e.packages [--model FILE] [--debs FOLDER] [SUITE-ARCH...]

Every step is asserted, and the steps build on one another, so the first failure ends the run with
what the journal says. Without names: Debian 12 and Debian 13 on amd64. Needs root.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from e2e.machine import Machine, until

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"
STORY = "Write a long story about a lighthouse keeper and her cat."
PACKAGES = ("llamad", "llamactl", "python3-llamad-client")
MEMBER, OUTSIDER = "alice", "bob"
DEFAULT_MACHINES = ["bookworm-amd64", "trixie-amd64"]
STATE = Path("/var/lib/llamad/models")
WORST_EXPOSURE = 1.5  # of systemd-analyze security, 0 to 10
ASK_SECONDS = 300.0


class Run:
    """The steps on one machine, in the order of ``STEPS``."""

    def __init__(self, machine: Machine, debs: list[Path], model: Path, *, emulated: bool) -> None:
        self._machine = machine
        self._debs = debs
        self._model = model
        self._emulated = emulated

    # ---- the steps -------------------------------------------------------------------------------

    def install(self) -> None:
        """Apt resolves the dependencies from its cache; users appear; nothing is broken."""
        for deb in self._debs:
            self._machine.put(deb, f"/srv/debs/{deb.name}")
        if self._emulated:  # qemu-user has no network namespaces for a unit
            self._drop_in("emulated", "PrivateNetwork=no")
        self._apt("install", *(f"/srv/debs/{deb.name}" for deb in self._debs))
        for name in PACKAGES:
            assert self._query("${db:Status-Abbrev}", name) == "ii ", name
        self._machine.run("useradd", "--groups=llamad", MEMBER)
        self._machine.run("useradd", OUTSIDER)

    def run_without_a_model(self) -> None:
        """The service runs, says what it waits for, and does not restart."""
        self._until_active()
        advice = f"put a .gguf file into {STATE}"
        assert self._property("StatusText").startswith(advice), self._property("StatusText")
        assert self._property("NRestarts") == "0"
        text = self._llamactl("status").stdout
        assert f"no_model ({advice}" in text, text
        refused = self._llamactl("ask", QUESTION, check=False)
        assert refused.returncode == 4, refused

    def check_the_unit(self) -> None:
        """The unit is what systemd takes without a warning, closed, and started at boot."""
        verify = ("systemd-analyze", "verify", "--man=no", "llamad.service")  # no man(1) there
        verified = self._machine.run(*verify).stdout
        assert "llamad" not in verified, verified
        report = self._machine.run("systemd-analyze", "security", "--no-pager", "llamad").stdout
        exposure = re.search(r"exposure level for llamad.service: ([0-9.]+)", report)
        assert exposure is not None, report
        assert float(exposure[1]) <= WORST_EXPOSURE, report
        print(f"    exposure {exposure[1]}")
        assert self._machine.run("systemctl", "is-enabled", "llamad").stdout == "enabled\n"
        for path, owner in (
            ("/run/llamad/llamad.sock", "660 llamad llamad"),
            (str(STATE), "755 llamad llamad"),
            ("/etc/llamad/llamad.toml", "644 root root"),
        ):
            assert self._machine.run("stat", "-c", "%a %U %G", path).stdout.strip() == owner, path

    def keep_others_out(self) -> None:
        """A user outside the group is told which group to join."""
        result = self._llamactl("ask", QUESTION, user=OUTSIDER, check=False)
        assert result.returncode == 3, result
        assert "no permission to use /run/llamad/llamad.sock" in result.stdout, result.stdout
        assert "usermod -aG llamad" in result.stdout, result.stdout

    def answer(self) -> None:
        """A model in its folder and a restart are all it takes."""
        self._machine.put(self._model, str(STATE / self._model.name))
        self._machine.run("systemctl", "restart", "llamad")
        self._ask()
        status = self._llamactl("status").stdout
        assert re.search(r"state: +ready", status), status
        assert self._model.stem in status, status

    def reload(self) -> None:
        """A reload takes limits without a restart, and refuses a file with a mistake."""
        file = self._machine.root / "etc/llamad/llamad.toml"
        shipped, pid = file.read_text(), self._property("MainPID")
        file.write_text("[limits]\nmax_prompt_bytes = 8\n")
        self._machine.run("systemctl", "reload", "llamad")
        until(lambda: self._llamactl("ask", QUESTION, check=False).returncode == 4, "the limit")
        file.write_text("[limits]\nmax_prompt_bytes = -8\n")
        self._machine.run("systemctl", "reload", "llamad")
        until(lambda: "configuration not reloaded" in self._journal(), "the refusal")
        file.write_text(shipped)
        self._machine.run("systemctl", "reload", "llamad")
        until(lambda: self._journal().count("configuration reloaded") == 2, "the second reload")
        self._ask()
        assert self._property("MainPID") == pid

    def survive_kill(self) -> None:
        """Systemd starts the service again, and it answers."""
        self._machine.run("systemctl", "kill", "--signal=SIGKILL", "llamad")
        until(lambda: self._property("NRestarts") == "1", "one restart")
        self._until_active()
        self._ask()

    def survive_being_stuck(self) -> None:
        """The watchdog ends a service that no longer moves."""
        self._drop_in("watchdog", "WatchdogSec=4")
        self._machine.run("systemctl", "daemon-reload")
        self._machine.run("systemctl", "restart", "llamad")
        self._machine.run("systemctl", "kill", "--signal=SIGSTOP", "llamad")
        until(lambda: self._property("NRestarts") == "1", "a restart by the watchdog")
        self._until_active()
        assert "Watchdog timeout" in self._journal(), self._journal()
        self._ask()

    def upgrade(self) -> None:
        """An upgrade lets the running request end first, and the new version answers."""
        version = self._query("${Version}", "llamad")
        with tempfile.TemporaryDirectory() as folder:
            for deb in self._debs:
                newer = _with_version(deb, version, f"{version}+e2e", Path(folder))
                self._machine.put(newer, f"/srv/newer/{newer.name}")
        tokens = ("--temperature", "0", "--max-tokens", "250")
        asking = self._machine.start("llamactl", "ask", *tokens, STORY, user=MEMBER)
        until(lambda: '"jobs_running": 1' in self._status_json(), "the request runs")
        self._apt("install", *(f"/srv/newer/{d.name}" for d in self._debs))
        text, _ = asking.communicate(timeout=ASK_SECONDS)
        assert asking.returncode == 0, text
        assert len(text.split()) > 100, text
        journal = self._journal()
        asked_to_stop = journal.rindex("signal name=SIGTERM")
        assert journal.index("request finished", asked_to_stop), journal
        assert self._query("${Version}", "llamad") == f"{version}+e2e"
        self._until_active()
        self._ask()

    def reboot(self) -> None:
        """After a boot the service is there by itself."""
        self._machine.reboot()
        self._until_active()
        self._ask()

    def remove(self) -> None:
        """Removing stops the service and keeps models and configuration."""
        self._apt("remove", *PACKAGES)
        assert self._property("ActiveState") == "inactive"
        for kept in (f"{STATE}/{self._model.name}", "/etc/llamad/llamad.toml"):
            self._machine.run("test", "-e", kept)
        for gone in ("/usr/bin/llamad", "/usr/lib/python3/dist-packages/llamad", "/run/llamad"):
            assert self._machine.run("test", "-e", gone, check=False).returncode == 1, gone

    def purge(self) -> None:
        """Purging leaves no file; the locked system user stays, as Debian has it."""
        self._machine.run("rm", "-r", "/etc/systemd/system/llamad.service.d")
        self._apt("purge", *PACKAGES)
        places = ("/etc", "/run", "/usr", "/var/cache/llamad", "/var/lib")
        found = self._machine.run(
            "find", *places, "-xdev", "-name", "*llama*", check=False
        ).stdout.splitlines()
        assert [line for line in found if "No such file" not in line] == [], found

    # ---- what they are made of -------------------------------------------------------------------

    def _apt(self, verb: str, *names: str) -> None:
        options = ("--yes", "--quiet=2", "--no-install-recommends", "--allow-downgrades")
        self._machine.run(
            "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", verb, *options, *names, seconds=900
        )

    def _query(self, field: str, package: str) -> str:
        return self._machine.run("dpkg-query", "--show", f"--showformat={field}", package).stdout

    def _property(self, name: str) -> str:
        command = ("systemctl", "show", "llamad", f"--property={name}", "--value")
        return self._machine.run(*command).stdout.strip()

    def _journal(self) -> str:
        return self._machine.run("journalctl", "--unit=llamad", "--no-pager").stdout

    def _until_active(self) -> None:
        def active() -> bool:
            state = self._property("ActiveState")
            assert state != "failed", state
            return state == "active"

        until(active, "the service is active", 120.0)

    def _drop_in(self, name: str, setting: str) -> None:
        folder = self._machine.root / "etc/systemd/system/llamad.service.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.conf").write_text(f"[Service]\n{setting}\n")

    def _llamactl(
        self, *arguments: str, user: str = MEMBER, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        command = ("llamactl", *arguments)
        return self._machine.run(*command, user=user, check=check, seconds=ASK_SECONDS)

    def _status_json(self) -> str:
        return self._llamactl("--json", "status").stdout

    def _ask(self) -> None:
        """Ask as an ordinary user of the group; the demo model knows how to go on."""
        greedy = ("--raw", "--temperature", "0", "--max-tokens", "4")
        text = self._llamactl("ask", *greedy, "The capital of France is").stdout
        assert "Paris" in text, text


STEPS: tuple[Callable[[Run], None], ...] = (
    Run.install,
    Run.run_without_a_model,
    Run.check_the_unit,
    Run.keep_others_out,
    Run.answer,
    Run.reload,
    Run.survive_kill,
    Run.survive_being_stuck,
    Run.upgrade,
    Run.reboot,
    Run.remove,
    Run.purge,
)
# They need a machine that computes tokens and installs packages at an ordinary speed.
NOT_EMULATED = (Run.survive_being_stuck, Run.upgrade)


def _with_version(deb: Path, old: str, new: str, folder: Path) -> Path:
    """Return a copy of a package that says it is another version, and asks for it of the others."""
    tree = folder / deb.stem
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text().replace(f"Version: {old}\n", f"Version: {new}\n")
    control.write_text(text.replace(f"(= {old})", f"(= {new})"))
    target = folder / deb.name
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return target


def _packages(folder: Path, architecture: str) -> list[Path]:
    """Return the packages for an architecture; AssertionError when one is missing."""
    patterns = [f"{p}_*_{architecture if p == 'llamad' else 'all'}.deb" for p in PACKAGES]
    found = [sorted(folder.glob(pattern)) for pattern in patterns]
    assert all(len(debs) == 1 for debs in found), f"{folder}: {found}, not one of each {patterns}"
    return [debs[0] for debs in found]


def test_machine(name: str, debs: Path, model: Path) -> None:
    """Run every step on one machine; on failure, show the journal."""
    suite, _, architecture = name.partition("-")
    host = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    packages = _packages(debs, architecture)
    emulated = architecture != host
    steps = [step for step in STEPS if not (emulated and step in NOT_EMULATED)]
    with Machine(suite, architecture) as machine:
        run = Run(machine, packages, model, emulated=emulated)
        for step in steps:
            began = time.monotonic()
            try:
                step(run)
            except BaseException:
                print(f"{name}: {step.__name__}: FAILED; the journal of the unit:")
                print(machine.run("journalctl", "--unit=llamad", "-n60", check=False).stdout)
                raise
            title = step.__name__.replace("_", " ")
            print(f"{name}: {title}: ok, {time.monotonic() - began:.1f} s", flush=True)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Test the packages on a real systemd.")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="FILE")
    parser.add_argument("--debs", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("machines", nargs="*", default=DEFAULT_MACHINES, metavar="SUITE-ARCH")
    options = parser.parse_args()
    for name in options.machines:
        test_machine(name, options.debs, options.model)
    print(f"e2e: passed on {', '.join(options.machines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
