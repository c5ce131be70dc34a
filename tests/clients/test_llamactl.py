"""llamactl as a child process: output, exit codes, messages, interruption."""

import itertools
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import llamad
from clients.running import RunningService, environment, llamactl_command, running_service
from llamactl.commands.status import draft_lines
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.record import JobState
from llamad_client import DraftModel
from unit.schedule.fakes import TIMEOUT_SECONDS, saying


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def run(
    path: Path | str | None, *arguments: str, stdin: bytes = b"", **changes: str
) -> subprocess.CompletedProcess[bytes]:
    """Run llamactl to its end."""
    given = [] if path is None else ["--socket", str(path)]
    return subprocess.run(
        llamactl_command(*given, *arguments),
        input=stdin,
        capture_output=True,
        env=environment(**changes),
        timeout=TIMEOUT_SECONDS,
    )


def prompts(service: RunningService) -> list[bytes]:
    """Return the prompts that reached the engine, as the samplers saw them."""
    return [bytes(sampler.prompt) for sampler in service.service.bench.model.samplers]


def json_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


# ---- ask -----------------------------------------------------------------------------------------


def test_ask_streams_the_answer_and_ends_the_line(service: RunningService) -> None:
    done = run(service.path, "ask", "Why", "so?")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"An answer.\n", b"")
    assert prompts(service) == [b"user:Why so?|"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["Sum up:"], b"a text\n", b"user:Sum up:\n\na text|"),
        ([], b"only this\n", b"user:only this|"),
        (["-s", "Be brief", "q"], b"", b"system:Be brief|user:q|"),
        (["--raw", "Once upon"], b"", b"Once upon"),
        (["--raw"], b"Once upon\n", b"Once upon\n"),
        (["--", "-n", "5"], b"", b"user:-n 5|"),
        (["gr\u00fcn"], b"", "user:grün|".encode()),
    ],
)
def test_the_prompt_is_arguments_and_standard_input(
    service: RunningService, arguments: list[str], stdin: bytes, expected: bytes
) -> None:
    done = run(service.path, "ask", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert prompts(service) == [expected]


def test_a_closed_standard_input_is_no_input(service: RunningService) -> None:
    shell = f"exec {sys.executable} -m llamactl --socket {service.path} ask hello <&-"
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, env=environment(), timeout=TIMEOUT_SECONDS
    )
    assert (done.returncode, done.stdout) == (0, b"An answer.\n")


def test_ask_with_json_prints_events_and_the_end(service: RunningService) -> None:
    done = run(service.path, "--json", "ask", "--seed", "4", "q")
    lines = json_lines(done.stdout)
    assert lines[0]["type"] == "queued"
    assert "".join(line["text"] for line in lines if line["type"] == "delta") == "An answer."
    last = lines[-1]
    assert (last["type"], last["finish_reason"], last["seed"]) == ("finished", "stop", 4)
    assert (last["prompt_tokens"], last["completion_tokens"]) == (7, 11)
    assert last["timings"]["load_seconds"] == 1.5


def test_global_flags_are_taken_after_the_command_too(service: RunningService) -> None:
    done = run(None, "ask", "--json", "--socket", str(service.path), "q")
    assert json_lines(done.stdout)[-1]["type"] == "finished"


def test_stats_go_to_standard_error(service: RunningService) -> None:
    done = run(service.path, "ask", "--stats", "--seed", "77", "q")
    assert done.stdout == b"An answer.\n"
    for word in ("load:", "prefill: 7 tokens", "decode:  10 tokens", "first token", "seed:    77"):
        assert word in done.stderr.decode()


def test_every_flag_reaches_the_service(service: RunningService) -> None:
    flags = {
        "-m": "fake",
        "-n": "3",
        "--temperature": "0",
        "--top-k": "1",
        "--top-p": "0.5",
        "--min-p": "0.1",
        "--typical-p": "0.9",
        "--repeat-penalty": "1.2",
        "--repeat-last-n": "8",
        "--presence-penalty": "0.1",
        "--frequency-penalty": "0.2",
        "--seed": "1",
        "--stop": "X",
        "--priority": "batch",
        "--ttl": "30",
        "--on-behalf-of": "anna",
    }
    done = run(service.path, "--json", "ask", *itertools.chain(*flags.items()), "q")
    assert done.returncode == 0
    last = json_lines(done.stdout)[-1]
    assert (last["finish_reason"], last["completion_tokens"]) == ("length", 3)
    [job] = json_lines(run(service.path, "--json", "jobs", "--all").stdout)
    assert (job["priority"], job["max_tokens"], job["state"]) == ("batch", 3, "finished")
    assert job["on_behalf_of"] == "anna"


# ---- interruption --------------------------------------------------------------------------------


def start(service: RunningService, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        llamactl_command("--socket", str(service.path), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_prefill_or_decode_cancels_the_job(
    service: RunningService, step: int, number: signal.Signals, code: int
) -> None:
    entered = service.pause_step(step)
    process = start(service, "ask", "q")
    assert entered.wait(TIMEOUT_SECONDS)
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, errors) == (code, b"")
    [job] = service.wait_until_idle()
    assert job.state is JobState.CANCELLED
    assert run(service.path, "ask", "next").returncode == 0


def test_a_killed_llamactl_frees_its_job(service: RunningService) -> None:
    entered = service.pause_step(1)
    process = start(service, "ask", "q")
    assert entered.wait(TIMEOUT_SECONDS)
    process.kill()
    process.communicate(timeout=TIMEOUT_SECONDS)
    [job] = service.wait_until_idle()
    assert job.state is JobState.CANCELLED


# ---- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "no command 'fly'"),
        (["ask", "--temperature", "hot", "q"], "invalid float"),
        (["ask", "--priority", "urgent", "q"], "invalid choice"),
        (["ask"], "no prompt"),
        (["ask", "--raw", "-s", "x", "q"], "--raw"),
        (["ask", "--parse-special", "q"], "--parse-special is for --raw"),
        (["submit", "--closed-objects", "q"], "--closed-objects is for --schema"),
        (["cancel"], "ID"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str) -> None:
    done = run("/nonexistent/s", *arguments)
    assert done.returncode == 2
    assert words in done.stderr.decode()


def message(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the one line on stderr."""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("llamactl: ")
    return line


def test_not_running_is_3(tmp_path: Path) -> None:
    done = run(tmp_path / "s", "ask", "q")
    assert done.returncode == 3
    assert "llamad is not running: no socket" in message(done)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    done = run(tmp_path / "s", "status")
    assert done.returncode == 3
    assert "not running: nobody listens" in message(done)


# Root passes every mode, so the child becomes another user.
AS_ANOTHER_USER = """
import sys
import threading
import llamactl.__main__
from another_user import become_another_user
become_another_user()
sys.exit(llamactl.__main__.main())
"""


def test_no_permission_is_3_and_a_different_message(service: RunningService) -> None:
    service.path.parent.chmod(0o755)
    service.path.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER_USER, "--socket", str(service.path), "ask", "q"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 3
    assert "no permission to use" in message(done)


def test_still_loading_is_3_and_a_different_message() -> None:
    with running_service(loaded=False) as service:
        service.do(lambda: service.service.state.loading("reading big.gguf"))
        for command in (["ask", "q"], ["health"], ["tokenize", "t"]):
            done = run(service.path, *command)
            assert done.returncode == 3
            assert "the model is still loading: reading big.gguf" in message(done)
        status = run(service.path, "status")
        assert (status.returncode, b"loading (reading big.gguf)" in status.stdout) == (0, True)


def test_refused_is_4_and_names_the_field(service: RunningService) -> None:
    done = run(service.path, "ask", "--temperature", "-1", "q")
    assert done.returncode == 4
    assert message(done) == "llamactl: temperature: is -1, must be in [0, 100]"
    done = run(service.path, "cancel", "j1")
    assert (done.returncode, "no job 'j1'" in message(done)) == (4, True)
    done = run(service.path, "ask", stdin=b"\xff")
    assert (done.returncode, "no valid UTF-8" in message(done)) == (4, True)
    done = run(service.path, "ask", stdin=b"x" * (2**20 + 1))
    assert (done.returncode, "more than 1048576 bytes" in message(done)) == (4, True)


def test_failed_is_5(service: RunningService) -> None:
    lost = LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "logits are not finite")
    service.engine.errors = [lost]
    done = run(service.path, "ask", "q")
    assert (done.returncode, message(done)) == (5, "llamactl: logits are not finite")


def test_an_error_with_json_is_json_with_its_reason(service: RunningService) -> None:
    done = run(service.path, "--json", "ask", "--top-k", "-1", "q")
    assert done.returncode == 4
    [line] = json_lines(done.stderr)
    assert (line["type"], line["reason"]) == ("error", "INVALID_TOP_K")


def test_a_job_cancelled_by_someone_else_is_5_after_its_text(service: RunningService) -> None:
    entered = service.pause_step(3)
    process = start(service, "ask", "q")
    assert entered.wait(TIMEOUT_SECONDS)
    [job] = json_lines(run(service.path, "--json", "jobs").stdout)
    done = run(service.path, "cancel", job["id"])
    assert (done.returncode, done.stdout) == (0, f"{job['id']} cancelled\n".encode())
    output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, output) == (5, b"An \n")
    assert errors.decode() == f"llamactl: job {job['id']} was cancelled\n"


# ---- the other commands --------------------------------------------------------------------------


def test_status_models_health_version_tokenize(service: RunningService) -> None:
    status = run(service.path, "status").stdout.decode()
    assert "ready (serving fake)" in status
    assert "512 tokens (trained with 1024)" in status
    assert "91 B are read for every token at 350.0 MB/s, 75 % of the time hidden" in status
    assert "draft:" not in status
    models = run(service.path, "models").stdout.decode().splitlines()
    assert models[1].split() == ["fake", "1.0", "kB", "yes", "/models/fake.gguf"]
    assert run(service.path, "health").stdout == b"SERVING\n"
    version = run(service.path, "version").stdout.decode()
    assert version.startswith(f"llamactl {llamad.__version__}\nllamad   {llamad.__version__}")
    tokens = run(service.path, "tokenize", "aü").stdout.decode().splitlines()
    assert [line.split()[0] for line in tokens] == ["97", "195", "188"]


def test_metrics_are_what_the_service_tells(service: RunningService) -> None:
    run(service.path, "ask", "Why?")
    text = run(service.path, "metrics").stdout.decode()
    assert 'llamad_requests_total{class="normal",end="stop"} 1.0\n' in text
    (line,) = json_lines(run(service.path, "--json", "metrics").stdout)
    assert "llamad_generated_tokens_total" in line["text"]


def test_status_tells_of_a_draft() -> None:
    draft = DraftModel("small", guessed_tokens=200, accepted_tokens=143, paused=False, fault="")
    assert draft_lines(None) == []
    assert draft_lines(draft) == [("draft", "small, 200 guessed tokens, 71 % of them right")]
    [(_, resting)] = draft_lines(replace(draft, paused=True))
    assert resting.endswith("71 % of them right; it rests, because they cost more than they save")
    [(_, unused)] = draft_lines(replace(draft, fault="no room for it"))
    assert unused == "small is not used: no room for it"


def test_json_of_the_other_commands(service: RunningService) -> None:
    [status] = json_lines(run(service.path, "--json", "status").stdout)
    assert (status["state"], status["model"]["name"]) == ("ready", "fake")
    model = status["model"]
    assert (model["locked_bytes"], model["streamed_bytes"]) == (890, 90)
    assert (model["bytes_read_per_token"], model["disk_read_bytes_per_second"]) == (91, 350e6)
    assert model["seconds_per_token"] >= 0
    assert set(status["kv"]) == {"blocks_total", "blocks_free", "blocks_cached"}
    assert {"hits", "tokens_reused"} <= set(status["prefix"])
    assert (status["jobs"]["queued"], status["jobs"]["stored"]) == (0, 0)
    assert status["jobs"]["classes"]["batch"] == {"queued": 0, "running": 0}
    [model] = json_lines(run(service.path, "--json", "models").stdout)
    assert (model["name"], model["loaded"]) == ("fake", True)
    [health] = json_lines(run(service.path, "--json", "health").stdout)
    assert health == {"status": "SERVING"}
    [version] = json_lines(run(service.path, "--json", "version").stdout)
    assert (version["client_version"], version["api_version"]) == (llamad.__version__, "v1")
    [token] = json_lines(run(service.path, "--json", "tokenize", "a").stdout)
    assert token == {"token": 97, "text": "a", "bytes": "61"}
    assert run(service.path, "--json", "jobs").stdout == b""
    assert run(service.path, "jobs").stdout.startswith(b"no request runs or waits (")


def test_health_of_a_service_without_a_usable_model_is_5() -> None:
    with running_service(loaded=False) as service:
        error = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic")
        service.do(lambda: service.service.fail_model(error))
        done = run(service.path, "health")
    assert (done.returncode, done.stdout) == (5, b"NOT_SERVING\n")
    assert "x.gguf: bad magic" in message(done)


def test_the_socket_is_found_in_the_environment(service: RunningService) -> None:
    assert run(None, "health", LLAMAD_SOCKET=str(service.path)).returncode == 0


def test_chat_sends_the_history_and_reset_forgets_it(service: RunningService) -> None:
    lines = b"one\ntwo\n\n/reset\nthree\n/system S\nfour\n/exit\nnever\n"
    done = run(service.path, "chat", stdin=lines)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"An answer.\n" * 4
    assert prompts(service) == [
        b"user:one|",
        b"user:one|assistant:An answer.|user:two|",
        b"user:three|",
        b"system:S|user:three|assistant:An answer.|user:four|",
    ]


def test_a_chat_without_a_message_says_why_it_ended(service: RunningService) -> None:
    done = run(service.path, "chat")
    note = b"llamactl: standard input has no message: nothing was asked\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", note)


def test_a_chat_that_outgrows_the_context_goes_on_without_its_oldest_turns() -> None:
    with running_service(n_ctx=64, kv_blocks_total=8) as service:
        service.engine.rule = saying("An answer.")
        done = run(service.path, "chat", stdin=b"one\ntwo\nthree\nfour\n")
    assert (done.returncode, done.stdout) == (0, b"An answer.\n" * 4)
    assert prompts(service)[1:] == [
        b"user:one|assistant:An answer.|user:two|",  # 39 tokens; with "three" there would be 73
        b"user:two|assistant:An answer.|user:three|",
        b"user:three|assistant:An answer.|user:four|",
    ]
    note = "llamactl: the context is full: the oldest 2 messages were left out"
    assert done.stderr.decode().splitlines() == [note] * 2  # what was left out is not sent again


def test_a_chat_that_may_not_lose_turns_is_refused_and_says_what_to_do() -> None:
    with running_service(n_ctx=64, kv_blocks_total=8) as service:
        service.engine.rule = saying("An answer.")
        lines = b"one\ntwo\nthree\n/reset\nfour\n"
        done = run(service.path, "chat", "--context-full", "refuse", stdin=lines)
    assert (done.returncode, done.stdout) == (4, b"An answer.\n" * 3)
    [line] = done.stderr.decode().splitlines()
    assert "context holds 64: leave out its oldest messages, or allow that" in line
    assert "/reset forgets the conversation" in line


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_an_answer_that_meets_the_end_of_the_context_says_so(command: str) -> None:
    with running_service(n_ctx=16, kv_blocks_total=8) as service:
        service.engine.rule = saying("An answer.")
        done = run(service.path, command, stdin=b"q\n")
        assert (done.returncode, done.stdout) == (0, b"An answer\n")
        [line] = done.stderr.decode().splitlines()
        assert line.startswith("llamactl: the answer ends here: the context is full")
        assert ("/reset" in line) == (command == "chat")
        for enough in (["-n", "3"], ["-n", "9"]):
            done = run(service.path, command, *enough, stdin=b"q\n")
            note = f"llamactl: the answer was cut after {enough[1]} tokens, as --max-tokens says\n"
            assert (done.returncode, done.stderr.decode()) == (0, note)


def test_raw_with_parse_special_takes_control_tokens_as_such(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = service.service.bench.model.tokenizer
    encode, asked = tokenizer.encode, list[bool]()

    def noting(text: str, add_bos: bool | None = None, parse_special: bool = False) -> list[int]:
        asked.append(parse_special)
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", noting)
    assert run(service.path, "ask", "--raw", "--parse-special", "<s>").returncode == 0
    assert run(service.path, "ask", "--raw", "<s>").returncode == 0
    assert asked == [True, False]


def test_a_plain_chat_goes_on_after_an_interrupted_answer(service: RunningService) -> None:
    entered = service.pause_step(0)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        llamactl_command("--socket", str(service.path), "chat"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TERM="dumb"),
        start_new_session=True,
    )
    os.close(slave)
    shown = read_until(master, b"> ")
    os.write(master, b"one\n")
    assert entered.wait(TIMEOUT_SECONDS)
    process.send_signal(signal.SIGINT)
    shown = read_until(master, b"> ")
    assert b"(Interrupt)" in shown
    os.write(master, b"two\n")
    assert b"An answer." in read_until(master, b"> ")
    os.write(master, b"/exit\n")
    assert process.wait(TIMEOUT_SECONDS) == 0
    os.close(master)
    assert prompts(service)[-1] == b"user:two|"


def read_until(terminal: int, end: bytes) -> bytes:
    """Return what a terminal shows, up to ``end``."""
    shown = b""
    while not shown.endswith(end):
        ready, _, _ = select.select([terminal], [], [], TIMEOUT_SECONDS)
        assert ready, shown
        shown += os.read(terminal, 4096)
    return shown
