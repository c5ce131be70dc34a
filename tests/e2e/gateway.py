"""llamad-http on a real systemd: a first request starts it; an upgrade cuts no stream silently."""

import json
import re
import subprocess

from e2e.machine import Machine, until
from e2e.service import OUTSIDER

SERVICE = "llamad-http.service"
SOCKETS = ("llamad-http.socket", "llamad-http-ollama.socket")
WORST_EXPOSURE = 1.5  # of systemd-analyze security, 0 to 10

# Asks a question as a program of OpenAI's API does, on one port, and of Ollama's on the other.
ASK = """
import json, urllib.request
def ask(url, **fields):
    fields["messages"] = [{"role": "user", "content": "What is the capital of France?"}]
    body = json.dumps(fields | {"model": "smollm2-135m"}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
chat = ask("http://127.0.0.1:8080/v1/chat/completions", max_tokens=20)
print(repr(chat["choices"][0]["message"]["content"]))
chat = ask("http://127.0.0.1:11434/api/chat", stream=False, options={"num_predict": 20})
print(repr(chat["message"]["content"]))
"""

# Reads a long answer as it comes; prints its first event at once and its last one at the end.
STREAM = """
import json, sys, urllib.request
body = {"messages": [{"role": "user", "content": sys.argv[1]}], "stream": True, "max_tokens": 1500}
url = "http://127.0.0.1:8080/v1/chat/completions"
request = urllib.request.Request(url, json.dumps(body).encode())
with urllib.request.urlopen(request, timeout=300) as answer:
    events = (line for line in answer if line.startswith(b"data: "))
    print(next(events).decode().strip(), flush=True)
    print([*events][-1].decode().strip())
"""


def check_gateway(machine: Machine) -> None:
    """Let programs be answered; AssertionError when they are not, or the unit is open."""
    for socket in SOCKETS:
        assert machine.run("systemctl", "is-enabled", socket).stdout == "enabled\n"
    assert _state(machine) == "inactive"
    answers = machine.run("/usr/bin/python3", "-c", ASK, user=OUTSIDER).stdout.splitlines()
    assert len(answers) == 2, answers
    assert all(len(answer) > 10 for answer in answers), answers
    assert _state(machine) == "active"
    verified = machine.run("systemd-analyze", "verify", "--man=no", SERVICE, *SOCKETS).stdout
    assert "llamad-http" not in verified, verified
    report = machine.run("systemd-analyze", "security", "--no-pager", SERVICE).stdout
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    assert exposure is not None, report
    assert float(exposure[1]) <= WORST_EXPOSURE, report
    print(f"    exposure {exposure[1]}")
    machine.run("systemctl", "stop", SERVICE)
    until(lambda: _state(machine) == "inactive", f"{SERVICE} has stopped")


def begin_stream(machine: Machine, question: str) -> "subprocess.Popen[str]":
    """Return a program that reads a long answer, of which the first piece has come."""
    program = machine.start("/usr/bin/python3", "-c", STREAM, question, user=OUTSIDER)
    assert program.stdout is not None
    first = program.stdout.readline()
    assert first.startswith("data: {"), first + program.stdout.read()
    return program


def check_end_of_stream(program: "subprocess.Popen[str]", seconds: float) -> None:
    """Check that an answer came to its end, or ended with an error that says why."""
    last, _ = program.communicate(timeout=seconds)
    assert program.returncode == 0, last
    if last.strip() != "data: [DONE]":
        error = json.loads(last.strip().removeprefix("data: "))["error"]
        assert error["message"], last
        print(f"    the stream ended with: {error['message']}")


def _state(machine: Machine) -> str:
    return machine.run("systemctl", "is-active", SERVICE, check=False).stdout.strip()
