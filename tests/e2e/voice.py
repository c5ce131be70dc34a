"""llamad-wyoming on a real systemd: a first connection starts it, and a transcript is answered."""

import json
import re

from e2e.machine import Machine, until

SERVICE, SOCKET = "llamad-wyoming.service", "llamad-wyoming.socket"
WORST_EXPOSURE = 1.5  # of systemd-analyze security, 0 to 10

# Says something as a satellite does; prints the type of each event of the answer, and its data.
SAY = """
import json, socket
with socket.create_connection(("127.0.0.1", 10500), 300) as connection:
    said = {"type": "transcript", "data": {"text": "What is the capital of France?"}}
    connection.sendall(json.dumps(said).encode() + b"\\n")
    stream = connection.makefile("rb")
    kind = ""
    while kind not in ("handled-stop", "not-handled", "error"):
        head = json.loads(stream.readline())
        kind = head["type"]
        print(json.dumps([kind, json.loads(stream.read(head.get("data_length", 0)) or b"{}")]))
"""


def check_voice(machine: Machine) -> None:
    """Let a satellite be answered; AssertionError when it is not, or the unit is open."""
    assert machine.run("systemctl", "is-enabled", SOCKET).stdout == "enabled\n"
    assert machine.run("systemctl", "is-active", SERVICE, check=False).stdout == "inactive\n"
    printed = machine.run("/usr/bin/python3", "-c", SAY).stdout.splitlines()
    events = [json.loads(line) for line in printed]
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "handled-start", events
    assert kinds[-2:] == ["handled", "handled-stop"], events
    assert events[-2][1]["text"], events
    assert machine.run("systemctl", "is-active", SERVICE).stdout == "active\n"
    verified = machine.run("systemd-analyze", "verify", "--man=no", SERVICE, SOCKET).stdout
    assert "wyoming" not in verified, verified
    report = machine.run("systemd-analyze", "security", "--no-pager", SERVICE).stdout
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    assert exposure is not None, report
    assert float(exposure[1]) <= WORST_EXPOSURE, report
    print(f"    exposure {exposure[1]}")
    machine.run("systemctl", "stop", SERVICE)
    until(
        lambda: machine.run("systemctl", "is-active", SERVICE, check=False).stdout == "inactive\n",
        f"{SERVICE} has stopped",
    )
