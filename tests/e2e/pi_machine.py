"""A whole emulated board: arm64 kernel, four cores, 4 GB of memory, a disk as slow as an SD card.

Owns the disk image, the emulator and the way to run commands inside: a small service in the guest
reads command lines from a virtio port and sends back what they printed. There is no network. What
is emulated says nothing about speed. Needs root, for the root tree; mounts nothing.
"""

import base64
import contextlib
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from e2e.machine import ENVIRONMENT, HERE, Result

CARD_BYTES_PER_SECOND = 40 << 20
DISK_BYTES = 3 << 30
BOOT_SECONDS = 600.0
HALT_SECONDS = 120.0

AGENT = "/usr/local/sbin/e2e-agent"
AGENT_UNIT = "/etc/systemd/system/e2e-agent.service"
# One line in is one command; one line out is its output in base64, a space, and its exit code.
AGENT_SCRIPT = """#!/bin/bash
exec 3<>"$(echo /dev/vport*p1)"
while read -r -u 3 line; do
    bash -c "$line" </dev/null >/run/e2e-output 2>&1
    code=$?
    printf '%s %d\\n' "$(base64 --wrap=0 /run/e2e-output)" "$code" >&3
done
"""
AGENT_UNIT_TEXT = f"""[Unit]
Description=Commands of the end-to-end test
[Service]
ExecStart={AGENT}
[Install]
WantedBy=multi-user.target
"""


class PiMachine:
    """One emulated machine; a context manager that boots it and removes it."""

    def __init__(
        self, cpu: str, memory: str, files: Mapping[str, Path], disk_bytes: int = DISK_BYTES
    ) -> None:
        """Make root tree and kernel where they are missing, and a disk; nothing runs yet.

        cpu: as QEMU names it; memory: as QEMU writes it, such as 4G; files: what lies on the disk
        in addition to the root tree, by path; disk_bytes: of the disk, as far as it is written.
        """
        self._disk_bytes = disk_bytes
        self._cpu = cpu
        self._memory = memory
        tree, self._kernel = _made("root", "bookworm", "arm64", "ready"), _made("kernel")
        self._folder = Path(tempfile.mkdtemp(prefix="e2e-pi-", dir=tree.parent))
        try:
            self._disk = self._make_disk(tree, files)
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None

    def __enter__(self) -> "PiMachine":
        """Boot, and wait until all services are started."""
        try:
            self._start()
            waited = ("systemctl", "is-system-running", "--wait")
            state = self.run(*waited, check=False, seconds=BOOT_SECONDS).stdout.strip()
            assert state in ("running", "degraded"), state
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Power off, and remove everything that was written."""
        try:
            with contextlib.suppress(OSError, AssertionError):
                self.run("systemctl", "poweroff", "--no-block", seconds=HALT_SECONDS)
                assert self._qemu is not None
                self._qemu.wait(HALT_SECONDS)
        finally:
            self._remove()

    def run(
        self, *command: str, user: str = "root", check: bool = True, seconds: float = 900.0
    ) -> Result:
        """Run a command inside to its end; with ``check``, another exit code than 0 is a failure.

        Standard output and standard error come together. No word of the command may have a line
        break. Raises TimeoutError.
        """
        assert self._port is not None
        inside = ["env", "-i", *ENVIRONMENT]
        if user != "root":
            inside += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        self._port.settimeout(seconds)
        self._port.sendall(shlex.join([*inside, *command]).encode() + b"\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            received = self._port.recv(1 << 16)
            assert received, f"the machine ended during {command}:\n{self._console()}"
            answer += received
        output, _, code = answer.decode().rpartition(" ")
        result = Result(command, int(code), base64.b64decode(output).decode(errors="replace"))
        if check and result.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}: {result.returncode}\n{result.stdout}")
        return result

    def _make_disk(self, tree: Path, files: Mapping[str, Path]) -> Path:
        """Return a file system image of the root tree, the agent and the files."""
        disk = self._folder / "disk"
        with disk.open("wb") as file:
            file.truncate(self._disk_bytes)
        make = ["mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", str(tree), str(disk)]
        subprocess.run(make, check=True)
        agent, unit = self._folder / "agent", self._folder / "unit"
        agent.write_text(AGENT_SCRIPT)
        agent.chmod(0o755)
        unit.write_text(AGENT_UNIT_TEXT)
        added = {AGENT: agent, AGENT_UNIT: unit, **files}
        commands = [f'write "{source}" "{target}"' for target, source in added.items()]
        wants = "/etc/systemd/system/multi-user.target.wants/e2e-agent.service"
        script = "\n".join([*commands, f'symlink "{wants}" "{AGENT_UNIT}"', ""])
        writing = subprocess.run(
            ["debugfs", "-w", "-f", "-", str(disk)],
            check=True,
            input=script,
            capture_output=True,
            text=True,
        )
        complaints = [
            line for line in writing.stderr.splitlines() if not line.startswith("debugfs ")
        ]
        assert complaints == [], complaints
        return disk

    def _start(self) -> None:
        path = self._folder / "port"
        drive = f"file={self._disk},format=raw,if=none,id=card,cache=unsafe"
        throttle = f"throttling.bps-total={CARD_BYTES_PER_SECOND}"
        parameters = "console=ttyAMA0 root=/dev/vda rw quiet systemd.show_status=0"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(30.0)
            self._qemu = subprocess.Popen(
                [
                    "qemu-system-aarch64",
                    *("-machine", "virt", "-accel", "tcg,thread=multi", "-cpu", self._cpu),
                    *("-smp", "4", "-m", self._memory, "-nic", "none", "-no-reboot"),
                    *("-display", "none", "-monitor", "none"),
                    *("-serial", f"file:{self._folder / 'console.log'}"),
                    *("-kernel", str(self._kernel / "vmlinuz")),
                    *("-initrd", str(self._kernel / "initrd.gz")),
                    *("-append", f"{parameters} systemd.mask=serial-getty@ttyAMA0.service"),
                    *("-drive", f"{drive},{throttle}", "-device", "virtio-blk-pci,drive=card"),
                    *("-device", "virtio-serial-pci", "-chardev", f"socket,id=port,path={path}"),
                    *("-device", "virtserialport,chardev=port,nr=1"),
                ],
                stdin=subprocess.DEVNULL,
            )
            self._port, _ = listener.accept()

    def _console(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "console.log").read_text(errors="replace")[-4000:]
        return ""

    def _remove(self) -> None:
        if self._port is not None:
            self._port.close()
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        shutil.rmtree(self._folder)


def _made(script: str, *arguments: str) -> Path:
    """Run a script of this folder that makes something once; return the path it prints."""
    command = [str(HERE / script), *arguments]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.split()[-1])
