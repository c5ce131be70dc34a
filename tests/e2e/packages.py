"""The packages on a real systemd: apt repository, ask, break, upgrade, reboot, remove, purge.

    PYTHONPATH=tests python3 -m e2e.packages [--model FILE] [--debs FOLDER] [SUITE-ARCH...]

Every step is asserted, and the steps build on one another, so the first failure ends the run with
what the journal says. Without names: Debian 12 and Debian 13 on amd64. Needs root.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from e2e.gateway import begin_stream, check_end_of_stream, check_gateway
from e2e.machine import HERE, Machine, until
from e2e.repository import Repository, newer_packages, served_repository
from e2e.service import (
    ADMIN,
    ASK_SECONDS,
    MEMBER,
    OUTSIDER,
    PACKAGES,
    STATE,
    Service,
    packages_in,
)
from e2e.steps import run_steps
from e2e.voice import check_voice

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"
STORY = "Write a long story about a lighthouse keeper and her cat."
DEFAULT_MACHINES = ["bookworm-amd64", "trixie-amd64"]
DEMO = "smollm2-135m"  # what the catalogue calls the model
CATALOGUE = "usr/share/llamad/catalogue.toml"
FILE_SERVER_PORT = 8000
IDLE_SECONDS = 10.0
GRPC_TIMERS = frozenset({"grpc_global_tim", "timer_manager"})
WORST_EXPOSURE = 0.5  # of systemd-analyze security, 0 to 10
EXPOSURE_OF_A_NETWORK = 0.5

# A program of a user that asks until it is answered; it prints why it had to wait.
RETRYING_CLIENT = """
import time
from llamad_client import Client, ServiceUnreachable
while True:
    try:
        with Client() as client:
            options = {"temperature": 0.0, "max_tokens": 4}
            print(client.generate("The capital of France is", **options).text())
        break
    except ServiceUnreachable as error:
        print(error.reason, error.retry_after_seconds, flush=True)
        time.sleep(error.retry_after_seconds or 0.2)
"""

SEEDED = ("--seed", "5", "--max-tokens", "40")

# The same request as `llamactl ask --raw` with SEEDED, stored; prints the job's id.
SUBMIT = """
import sys, grpc
from llamad_api.v1 import llamad_pb2 as pb, llamad_pb2_grpc
options = pb.Options(max_tokens=40, sampling=pb.Sampling(seed=5))
request = pb.SubmitJobRequest(generate=pb.GenerateRequest(prompt=sys.argv[1], options=options))
with grpc.insecure_channel("unix:/run/llamad/llamad.sock") as channel:
    job = llamad_pb2_grpc.LlamadStub(channel).SubmitJob(request).job
assert job.durable
print(job.id)
"""

# Waits for the end of a stored job, and prints its text.
RESULT = """
import sys, grpc
from llamad_api.v1 import llamad_pb2 as pb, llamad_pb2_grpc
with grpc.insecure_channel("unix:/run/llamad/llamad.sock") as channel:
    events = llamad_pb2_grpc.LlamadStub(channel).ResumeJob(pb.ResumeJobRequest(id=sys.argv[1]))
    print("".join(event.delta.text for event in events))
"""


FAILED = "the service failed: jobs that it computed"


class Run:
    """The steps on one machine."""

    def __init__(
        self,
        machine: Machine,
        repository: Repository,
        debs: list[Path],
        model: Path,
        *,
        emulated: bool,
    ) -> None:
        """Expect the packages of the machine's architecture."""
        self._machine = machine
        self._repository = repository
        self._service = Service(machine)
        self._debs = debs
        self._model = model
        self._emulated = emulated

    def steps(self) -> list[Callable[[], None]]:
        """Return the steps in their order.

        Some need a machine that computes tokens and installs packages at an ordinary speed.
        """
        native = not self._emulated
        return [
            self.refuse_other_repositories,
            self.install,
            self.run_without_a_model,
            self.check_the_unit,
            self.keep_others_out,
            self.pull_the_demo_model,
            self.answer,
            *([self.answer_a_satellite] if native else []),
            *([self.idle, self.use_and_remove_models] if native else []),
            self.reload,
            self.survive_kill,
            *([self.survive_being_stuck, self.survive_a_hanging_step] if native else []),
            *([self.survive_a_crash] if native else []),
            *([self.answer_over_http, self.upgrade] if native else []),
            self.reboot,
            self.remove,
            self.purge,
        ]

    def refuse_other_repositories(self) -> None:
        """Apt installs nothing from a repository that nobody, or somebody else, signed."""
        self._repository.publish(self._debs)
        self._repository.check_refusals()

    def install(self) -> None:
        """Apt gets the packages from the repository, what they need from its cache."""
        if self._emulated:  # qemu-user has no network namespaces for a unit
            self._drop_in("emulated", "PrivateNetwork=no")
        self._repository.add()
        self._service.apt("install", "llamad", "llamactl", "llamad-http", "llamad-wyoming")
        for name in PACKAGES:
            assert self._service.package("${db:Status-Abbrev}", name) == "ii ", name
        self._service.add_users()

    def run_without_a_model(self) -> None:
        """The service runs, says what it waits for, and does not restart."""
        self._service.until_active()
        advice = 'no model yet: "llamactl pull demo" fetches a small one'
        said = self._service.property("StatusText")
        assert said.startswith(advice), said
        assert self._service.property("NRestarts") == "0"
        text = self._service.llamactl("status").stdout
        assert f"no_model ({advice}" in text, text
        refused = self._service.llamactl("ask", QUESTION, check=False)
        assert refused.returncode == 4, refused

    def check_the_unit(self) -> None:
        """The unit is what systemd takes without a warning, closed, and started at boot."""
        verify = ("systemd-analyze", "verify", "--man=no", "llamad.service")  # no man(1) there
        verified = self._machine.run(*verify).stdout
        assert "llamad" not in verified, verified
        report = self._machine.run("systemd-analyze", "security", "--no-pager", "llamad").stdout
        exposure = re.search(r"exposure level for llamad.service: ([0-9.]+)", report)
        assert exposure is not None, report
        worst = WORST_EXPOSURE + (EXPOSURE_OF_A_NETWORK if self._emulated else 0.0)
        assert float(exposure[1]) <= worst, report
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
        result = self._service.llamactl("ask", QUESTION, user=OUTSIDER, check=False)
        assert result.returncode == 3, result
        assert "no permission to use /run/llamad/llamad.sock" in result.stdout, result.stdout
        assert "usermod -aG llamad" in result.stdout, result.stdout

    def pull_the_demo_model(self) -> None:
        """An administrator pulls it from a server that breaks off; a mere member may not."""
        self._serve_the_model()
        refused = self._service.llamactl("pull", "demo", user=MEMBER, check=False)
        assert refused.returncode == 4, refused
        only = "only root and members of group llamad-admin may add a model, and user alice is not"
        assert only in refused.stdout, refused.stdout
        pulled = self._service.llamactl("pull", "demo", user=ADMIN).stdout
        assert f"{DEMO}: added, 98.4 MB, sha256 b179c952" in pulled, pulled
        assert f"{DEMO}: loaded in" in pulled, pulled
        stored = self._machine.root / str(STATE).lstrip("/") / f"{DEMO}.gguf"
        assert stored.stat().st_size == self._model.stat().st_size

    def answer(self) -> None:
        """The model answers, now and after a start of the service."""
        self._service.ask()
        self._machine.run("systemctl", "stop", "llamad")
        assert self._service.llamactl("ask", QUESTION, check=False).returncode == 3
        self._machine.run("systemctl", "start", "llamad")
        self._service.ask()
        status = self._service.llamactl("status").stdout
        assert re.search(r"state: +ready", status), status
        assert DEMO in status, status
        metrics = self._service.llamactl("metrics").stdout  # by the distribution's library
        assert re.search(r"^llamad_generated_tokens_total [1-9]", metrics, re.MULTILINE), metrics
        assert "No request runs or waits." in self._service.llamactl("top").stdout

    def answer_over_http(self) -> None:
        """Programs of OpenAI's and Ollama's API are answered by llamad-http."""
        check_gateway(self._machine)

    def answer_a_satellite(self) -> None:
        """A voice satellite is answered by llamad-wyoming, which its first connection starts."""
        check_voice(self._machine)

    def idle(self) -> None:
        """With a model loaded and nobody asking, no thread of ours wakes up.

        Threads of grpc 1.51 look at their timers every second, whatever there is to do, and grpc
        has no option for that. The service's own next timer is the watchdog's.
        """
        before = self._wakeups()
        time.sleep(IDLE_SECONDS)
        woken = {name for (name, _), _ in set(self._wakeups().items()) ^ set(before.items())}
        assert woken <= GRPC_TIMERS, woken

    def use_and_remove_models(self) -> None:
        """An administrator changes the model and removes one that is not loaded."""
        self._machine.put(self._model, "/srv/other.gguf")
        self._service.llamactl("pull", "/srv/other.gguf", user=ADMIN)
        assert self._service.llamactl("use", "other", check=False).returncode == 4
        self._service.llamactl("use", "other", user=ADMIN)
        self._service.ask()
        loaded = self._service.llamactl("rm", "other", user=ADMIN, check=False)
        assert loaded.returncode == 4, loaded
        self._service.llamactl("use", DEMO, user=ADMIN)
        assert self._service.llamactl("rm", "other", check=False).returncode == 4
        self._service.llamactl("rm", "other", user=ADMIN)
        left = sorted(path.name for path in (self._machine.root / STATE.relative_to("/")).iterdir())
        assert f"{DEMO}.gguf" in left, left
        assert not [name for name in left if "other" in name], left
        self._service.ask()

    def reload(self) -> None:
        """A reload takes limits without a restart, and refuses a file with a mistake."""
        file = self._machine.root / "etc/llamad/llamad.toml"
        shipped, pid = file.read_text(), self._service.property("MainPID")
        file.write_text("[limits]\nmax_prompt_bytes = 8\n")
        self._machine.run("systemctl", "reload", "llamad")
        until(
            lambda: self._service.llamactl("ask", QUESTION, check=False).returncode == 4,
            "the limit",
        )
        file.write_text("[limits]\nmax_prompt_bytes = -8\n")
        refused = self._machine.run("systemctl", "reload", "llamad", check=False)
        assert refused.returncode != 0, refused
        assert "limits.max_prompt_bytes = -8" in self._service.journal(), self._service.journal()
        assert self._service.property("ActiveState") == "active"
        assert self._service.llamactl("ask", QUESTION, check=False).returncode == 4  # as before
        file.write_text(shipped)
        self._machine.run("systemctl", "reload", "llamad")
        until(
            lambda: self._service.journal().count("configuration reloaded") == 2,
            "the second reload",
        )
        self._service.ask()
        assert self._service.property("MainPID") == pid

    def survive_kill(self) -> None:
        """Systemd starts the service again, and it answers."""
        self._machine.run("systemctl", "kill", "--signal=SIGKILL", "llamad")
        until(lambda: self._service.property("NRestarts") == "1", "one restart")
        self._service.until_active()
        self._service.ask()

    def survive_being_stuck(self) -> None:
        """The watchdog ends a service that no longer moves."""
        self._drop_in("watchdog", "WatchdogSec=4")
        self._machine.run("systemctl", "daemon-reload")
        self._machine.run("systemctl", "restart", "llamad")
        self._machine.run("systemctl", "kill", "--signal=SIGSTOP", "llamad")
        until(lambda: self._service.property("NRestarts") == "1", "a restart by the watchdog")
        self._service.until_active()
        assert "Watchdog timeout" in self._service.journal(), self._service.journal()
        self._service.ask()

    def survive_a_hanging_step(self) -> None:
        """A step stands still: stacks in the journal, a restart, and the stored job's answer.

        One thread of the engine is stopped from outside. The watchdog's drop-in is there already.
        """
        self._machine.put(ROOT / "tests" / "stopped_thread.py", "/srv/stopped_thread.py")
        file = self._machine.root / "etc/llamad/llamad.toml"
        shipped = file.read_text()
        file.write_text("[model]\nthreads = 2\n")
        self._machine.run("systemctl", "restart", "llamad")
        expected = self._service.llamactl("ask", "--raw", *SEEDED, STORY).stdout.strip()
        stopping = ("/srv/stopped_thread.py", self._service.property("MainPID"), "lld-worker-1")
        holder = self._machine.start("/usr/bin/python3", *stopping, user="root")
        assert holder.stdout is not None
        assert holder.stdout.readline() == "stopped\n"
        submit = self._machine.run("/usr/bin/python3", "-c", SUBMIT, STORY, user=MEMBER)
        until(lambda: self._service.property("NRestarts") == "1", "a restart by the watchdog")
        holder.communicate(timeout=ASK_SECONDS)
        self._service.until_active()
        journal = self._service.journal()
        hangs = journal.rindex("engine hangs, the watchdog is not fed")
        assert "'lld-worker-1' state=t" in journal[hangs:], journal[hangs:]
        timeout = journal.index("Watchdog timeout", hangs)
        assert "in forward" in journal[hangs:timeout], journal[hangs:]
        assert "in forward" in journal[timeout:], journal[timeout:]
        result = self._machine.run(
            *("/usr/bin/python3", "-c", RESULT, submit.stdout.strip()), user=MEMBER
        )
        assert result.stdout.strip() == expected, (result.stdout, expected)
        file.write_text(shipped)
        self._machine.run("systemctl", "restart", "llamad")

    def survive_a_crash(self) -> None:
        """A stored job goes on, and is suspected where the service failed by itself."""
        wish = ("--seed", "5", "--max-tokens", "1000", STORY)
        expected = self._service.llamactl("ask", *wish).stdout.strip()
        for number, suspects in ("SIGKILL", 0), ("SIGSEGV", 1):
            self._machine.run("systemctl", "reset-failed", "llamad")  # of its starts so far
            self._machine.run("systemctl", "restart", "llamad")
            told = self._service.journal().count(FAILED)
            job = self._service.llamactl("submit", *wish).stdout.strip()
            until(lambda: self._service.status_field("jobs_running") == "1", "the job runs")
            self._machine.run("systemctl", "kill", f"--signal={number}", "llamad")
            until(lambda: self._service.property("NRestarts") == "1", "one restart")
            self._service.until_active()
            result = self._service.llamactl("watch", job).stdout.strip()
            assert result == expected, (result, expected)
            assert self._service.journal().count(FAILED) - told == suspects, number
        self._machine.run("systemctl", "reset-failed", "llamad")

    def upgrade(self) -> None:
        """An upgrade lets the running request end first, and sends others away until it is done.

        It comes from the repository; models and stored jobs are there afterwards, as they were.
        The request is long and so is the time it gets, since machines differ in speed.
        """
        version = self._service.package("${Version}", "llamad")
        with tempfile.TemporaryDirectory() as folder:
            self._repository.publish(newer_packages(self._debs, version, Path(folder)))
        wish = ("--seed", "5", "--max-tokens", "200", STORY)
        ended = self._service.llamactl("submit", *wish).stdout.strip()
        expected = self._service.llamactl("watch", ended).stdout
        models = self._models()
        upgrade = self._repository.upgrade_command()
        self._drop_in("stop", "TimeoutStopSec=180")
        file = self._machine.root / "etc/llamad/llamad.toml"
        shipped = file.read_text()
        file.write_text("[limits]\ndrain_seconds = 120\n")
        self._machine.run("systemctl", "daemon-reload")
        self._machine.run("systemctl", "restart", "llamad")
        file.write_text(shipped)  # else apt has a question about it
        tokens = ("--temperature", "0", "--max-tokens", "1500")
        asking = self._machine.start("llamactl", "ask", *tokens, STORY, user=MEMBER)
        until(lambda: self._service.status_field("jobs_running") == "1", "the request runs")
        cut = self._service.llamactl("submit", *wish).stdout.strip()
        streaming = begin_stream(self._machine, STORY)
        upgrading = self._machine.start(*upgrade, user="root")
        until(lambda: self._service.status_field("state") == "stopping", "the service drains")
        retrying = self._machine.start("/usr/bin/python3", "-c", RETRYING_CLIENT, user=MEMBER)
        refused = self._service.llamactl("ask", QUESTION, check=False)
        assert refused.returncode == 3, refused
        assert "the service is stopping" in refused.stdout, refused.stdout
        text, _ = asking.communicate(timeout=ASK_SECONDS)
        assert asking.returncode == 0, text
        assert len(text.split()) > 500, text
        check_end_of_stream(streaming, ASK_SECONDS)
        log, _ = upgrading.communicate(timeout=ASK_SECONDS)
        assert upgrading.returncode == 0, log
        answered, _ = retrying.communicate(timeout=ASK_SECONDS)
        assert retrying.returncode == 0, answered
        assert re.match(r"SHUTTING_DOWN [0-9.]+\n(?:.*\n)* *Paris", answered), answered
        journal = self._service.journal()
        asked_to_stop = journal.rindex("signal name=SIGTERM")
        assert journal.index("request finished", asked_to_stop), journal
        for name in PACKAGES:
            assert self._service.package("${Version}", name) == f"{version}+e2e", name
        self._service.until_active()
        for job in ended, cut:
            assert self._service.llamactl("watch", job).stdout == expected, job
        assert self._models() == models
        self._service.ask()

    def reboot(self) -> None:
        """After a boot the service is there by itself."""
        self._machine.reboot()
        self._service.until_active()
        self._service.ask()

    def remove(self) -> None:
        """Removing stops the service and keeps models and configuration."""
        self._service.apt("remove", *PACKAGES)
        assert self._service.property("ActiveState") == "inactive"
        for kept in (f"{STATE}/{DEMO}.gguf", "/etc/llamad/llamad.toml"):
            self._machine.run("test", "-e", kept)
        for gone in ("/usr/bin/llamad", "/usr/lib/python3/dist-packages/llamad", "/run/llamad"):
            assert self._machine.run("test", "-e", gone, check=False).returncode == 1, gone

    def purge(self) -> None:
        """Purging leaves no file; the locked system user stays, as Debian has it."""
        self._machine.run("rm", "-rf", "/etc/systemd/system/llamad.service.d")
        self._service.apt("purge", *PACKAGES)
        self._repository.remove()
        places = ("/etc", "/run", "/usr", "/var/cache", "/var/lib")
        found = self._machine.run(
            "find", *places, "-xdev", "-name", "*llama*", check=False
        ).stdout.splitlines()
        assert [line for line in found if "No such file" not in line] == [], found

    # ---- what they are made of -------------------------------------------------------------------

    def _wakeups(self) -> dict[tuple[str, str], int]:
        """Return how often each thread of the service waited, by its name and id."""
        folder = f"/proc/{self._service.property('MainPID')}/task"
        command = f"grep -h -e ^Name: -e ^Pid: -e ^voluntary_ctxt {folder}/*/status"
        values = [
            line.split()[1] for line in self._machine.run("sh", "-c", command).stdout.splitlines()
        ]
        return {
            (name, pid): int(count)
            for name, pid, count in zip(values[::3], values[1::3], values[2::3], strict=True)
        }

    def _drop_in(self, name: str, setting: str) -> None:
        folder = self._machine.root / "etc/systemd/system/llamad.service.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.conf").write_text(f"[Service]\n{setting}\n")

    def _serve_the_model(self) -> None:
        """Start a web server in the machine, and let the catalogue say that the demo lies there."""
        self._machine.put(self._model, "/srv/www/demo.gguf")
        self._machine.put(HERE / "file_server.py", "/srv/www/file_server.py")
        command = ("/usr/bin/python3", "/srv/www/file_server.py", "/srv/www/demo.gguf")
        self._machine.run(
            *("systemd-run", "--quiet", "--unit=file-server", *command, str(FILE_SERVER_PORT))
        )
        address = f"http://127.0.0.1:{FILE_SERVER_PORT}/demo.gguf"
        listens = ("/usr/bin/python3", "-c", _CONNECT, str(FILE_SERVER_PORT))
        until(lambda: self._machine.run(*listens, check=False).returncode == 0, "the web server")
        catalogue = self._machine.root / CATALOGUE
        text = re.sub(r'^url = "[^"]*"', f'url = "{address}"', catalogue.read_text(), 1, re.M)
        catalogue.write_text(text)

    def _models(self) -> dict[str, tuple[int, int]]:
        """Return number and time of every file in the model directory, which a copy changes."""
        files = (self._machine.root / str(STATE).lstrip("/")).iterdir()
        return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


_CONNECT = """
import socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
"""


def test_machine(name: str, debs: Path, model: Path) -> None:
    """Run every step on one machine."""
    suite, _, architecture = name.partition("-")
    host = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    packages = packages_in(debs, architecture)
    with Machine(suite, architecture) as machine, served_repository(machine) as repository:
        run = Run(machine, repository, packages, model, emulated=architecture != host)
        run_steps(name, run.steps(), machine)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Test the packages on a real systemd.")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="FILE")
    parser.add_argument("--debs", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("machines", nargs="*", default=DEFAULT_MACHINES, metavar="SUITE-ARCH")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us: clean up first
    for name in options.machines:
        test_machine(name, options.debs, options.model)
    print(f"e2e: passed on {', '.join(options.machines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
