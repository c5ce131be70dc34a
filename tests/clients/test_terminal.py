"""What a terminal gets of llamactl: text, and no command of a model, a template or a file name."""

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from llamactl.streams import escaped
from llamad.errors import ErrorKind, LlamadError
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

HOSTILE = {
    "clear": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0=\x07",
    "device control": "\x1bP$qm\x1b\\",
    "C1 control sequence": "\x9b2J",
    "C1 operating system command": "\x9d52;c;cm0=\x9c",
    "backspaces": "safe\x08\x08\x08\x08evil",
    "carriage return": "evil\rsafe",
    "bidi override": "\u202etxet\u202c",
    "bidi isolate": "\u2066x\u2069",
    "delete": "\x7f",
    "bell": "\a",
    "vertical": "\v\f",
}
FORBIDDEN = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


def on_terminal(
    service: RunningService, *arguments: str, typed: bytes = b"", **changes: str
) -> tuple[str, int]:
    """Run llamactl on a terminal of its own; return what it showed and its exit code."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        llamactl_command("--socket", str(service.path), *arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TERM="dumb", **changes),
    )
    os.close(slave)
    os.write(master, typed)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last process has left the terminal
        while data := os.read(master, 4096):
            shown += data
    os.close(master)
    return shown.decode(), process.wait(TIMEOUT_SECONDS)


def commands(shown: str) -> set[str]:
    """Return the characters that a terminal obeys, but for its own line ends and tabs."""
    text = shown.replace("\r\n", "\n").replace("\n", "").replace("\t", "")
    return {character for character in text if ord(character) in FORBIDDEN}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_an_answer_is_shown_and_not_obeyed_and_a_pipe_gets_it_as_it_is(
    service: RunningService, text: str
) -> None:
    answer = f"one\n\ttwo {text} three"
    service.engine.rule = saying(answer)  # a token a byte, so each sequence comes in many deltas
    shown, code = on_terminal(service, "ask", "q")
    assert (code, commands(shown)) == (0, set())
    assert shown.startswith("one\r\n\ttwo ")
    assert shown.endswith(" three\r\n")
    command = llamactl_command("--socket", str(service.path), "ask", "q")
    piped = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=True
    )
    assert piped.stdout == f"{answer}\n".encode()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_on_a_terminal_holds_the_text_and_no_command(
    service: RunningService, text: str
) -> None:
    service.engine.rule = saying(f"grün {text}")
    shown, code = on_terminal(service, "--json", "ask", "q")
    assert (code, commands(shown)) == (0, set())
    events = [json.loads(line) for line in shown.splitlines()]
    said = "".join(event["text"] for event in events if event["type"] == "delta")
    assert said == f"grün {text}"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("command", [("ask", "q"), ("--json", "ask", "q"), ("chat",)])
def test_an_error_is_one_line_without_commands(
    service: RunningService, command: tuple[str, ...], text: str
) -> None:
    error = LlamadError(ErrorKind.INVALID, "CHAT_TEMPLATE_INVALID", f"no {text}\nllamactl: fine")
    service.do(lambda: service.service.fail_submit(error))
    shown, _ = on_terminal(service, *command, typed=b"q\n/exit\n")
    assert commands(shown) == set()
    assert "llamactl: fine" in shown
    assert "\nllamactl: fine" not in shown


def test_a_failed_job_and_a_status_are_lines_without_commands(service: RunningService) -> None:
    text = "".join(HOSTILE.values()) + "\n"
    service.engine.errors = [LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", f"bad {text}")]
    shown, code = on_terminal(service, "ask", "q")
    assert (code, commands(shown)) == (5, set())
    shown, _ = on_terminal(service, "jobs", "--all")
    assert commands(shown) == set()
    assert "MODEL_NOT_FINITE: bad " in shown
    assert len(shown.splitlines()) == 2
    failure = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", f"x{text}.gguf: bad magic")
    service.do(lambda: service.service.fail_model(failure))
    for command in (("status",), ("health",), ("--json", "status")):
        shown, _ = on_terminal(service, *command)
        assert commands(shown) == set()
        assert "bad magic" in shown


def test_names_of_a_catalogue_are_lines_without_commands(
    service: RunningService, tmp_path: Path
) -> None:
    path = tmp_path / "catalogue.toml"
    text = json.dumps("".join(HOSTILE.values())).replace("\x7f", "\\u007f")
    path.write_text(
        f"[boards]\n[[models]]\nname = {text}\naliases = [{text}]\ntitle = {text}\n"
        f'url = {text}\nfile_bytes = 1\nsha256 = ""\nbytes_per_token = 1\n'
        f"licence = {text}\nconditions = {text}\nmemory = {text}\ncontext = 1\nnote = {text}\n",
        encoding="utf-8",
    )
    for arguments in (("models", "--catalogue"), ("--json", "models", "--catalogue")):
        shown, code = on_terminal(service, *arguments, LLAMAD_CATALOGUE=str(path))
        assert (code, commands(shown)) == (0, set())


def test_what_is_harmless_stays() -> None:
    emoji = "\U0001f468\u200d\U0001f4bb"  # joined by an invisible character
    text = f"tab\there\nCRLF\r\n{emoji} \u200f\u05d0 e\u0301"
    assert escaped(text) == text
