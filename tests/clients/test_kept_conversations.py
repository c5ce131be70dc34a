"""ask -c and chat -c: the last conversation, where it is kept, and what may be wrong with it."""

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from clients.terminal_screen import terminal_screen
from llamactl.chat import kept
from llamactl.chat.conversation import Conversation
from llamactl.chat.kept import Keeper, open_conversation
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

ANSWER = "assistant:An answer."


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


class User:
    """Runs llamactl with a state folder of its own."""

    def __init__(self, service: RunningService, state: Path) -> None:
        self.service = service
        self.state = state
        self.folder = state / "llamactl" / "conversations"

    def run(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            llamactl_command("--socket", str(self.service.path), *arguments),
            input=stdin,
            capture_output=True,
            env=environment(XDG_STATE_HOME=str(self.state)),
            timeout=TIMEOUT_SECONDS,
        )

    def ask(self, *arguments: str) -> str:
        """Return the prompt that the model read; the answer is all that is printed."""
        done = self.run("ask", "--no-stdin", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"An answer.\n", b"")
        return self.prompts()[-1]

    def prompts(self) -> list[str]:
        return [bytes(one.prompt).decode() for one in self.service.service.bench.model.samplers]

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*")) if self.folder.exists() else []


@pytest.fixture
def user(service: RunningService, tmp_path: Path) -> User:
    return User(service, tmp_path)


def test_ask_goes_on_with_the_last_conversation_and_prints_only_the_answer(user: User) -> None:
    first = user.run("ask", "-c", "--no-stdin", "-s", "S", "one")
    note = b"llamactl: there is no earlier conversation: this is a new one\n"
    assert (first.returncode, first.stdout, first.stderr) == (0, b"An answer.\n", note)
    assert user.ask("-c", "two") == f"system:S|user:one|{ANSWER}|user:two|"
    assert user.ask("alone") == "user:alone|"  # without -c, and kept by nobody
    third = f"system:T|user:one|{ANSWER}|user:two|{ANSWER}|user:three|"
    assert user.ask("--continue", "-s", "T", "three") == third
    [file] = user.files()
    modes = [path.stat().st_mode & 0o777 for path in (file, user.folder, user.folder.parent)]
    assert modes == [0o600, 0o700, 0o700]
    roles = [message["role"] for message in json.loads(file.read_bytes())]
    assert roles == ["system", *["user", "assistant"] * 3]


def test_ask_and_chat_go_on_with_each_other(user: User) -> None:
    user.run("chat", "-c", stdin=b"one\n")
    assert user.ask("-c", "two") == f"user:one|{ANSWER}|user:two|"
    assert user.run("chat", "-c", stdin=b"three\n").stderr == b""
    assert user.prompts()[-1] == f"user:one|{ANSWER}|user:two|{ANSWER}|user:three|"
    user.run("chat", stdin=b"other\n")  # a pipe without -c keeps nothing
    assert len(user.files()) == 1
    user.run("run", "-c", "--no-stdin", "fake", "four")
    assert user.prompts()[-1].startswith("user:one|")
    user.run("chat", "-c", stdin=b"/reset\nanew\n")
    assert user.prompts()[-1] == "user:anew|"
    assert user.ask("-c", "more") == f"user:anew|{ANSWER}|user:more|"
    assert len(user.files()) == 1  # what was reset is forgotten


def test_ask_on_a_terminal_is_kept(user: User) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        llamactl_command("--socket", str(user.service.path), "ask", "one"),
        stdin=slave, stdout=slave, stderr=slave, env=environment(XDG_STATE_HOME=str(user.state)),
    )  # fmt: skip
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last process has left the terminal
        while data := os.read(master, 100):  # it comes in pieces
            shown += data
    os.close(master)
    assert (process.wait(TIMEOUT_SECONDS), shown) == (0, b"An answer.\r\n")
    assert user.ask("-c", "two") == f"user:one|{ANSWER}|user:two|"


def test_what_was_left_out_stays_out(tmp_path: Path) -> None:
    with running_service(n_ctx=64, kv_blocks_total=8) as service:
        service.engine.rule = saying("An answer.")
        user = User(service, tmp_path)
        for word in ("one", "two", "three"):
            done = user.run("ask", "-c", "--no-stdin", word)
        assert b"the oldest 2 messages were left out" in done.stderr
        assert user.prompts()[-1] == f"user:two|{ANSWER}|user:three|"
        done = user.run("ask", "-c", "--no-stdin", "--context-full", "refuse", "four")
        assert (done.returncode, done.stdout) == (4, b"")
        before = user.files()[0].read_bytes()
        assert b"one" not in before
        assert user.files()[0].read_bytes() == before  # what failed is no part of it


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", b"is no JSON"),
        (b"\xff\xfe", b"is no JSON"),
        (b"", b"is no JSON"),
        (b'{"version": 2}', b"is no list of messages"),
        (b'[{"role": "user"}]', b"message 1: content is no text"),
        (b'[{"role": "root", "content": "x"}]', b"message 1: role is none of"),
        (b"[" * 100_000, b"is no JSON"),
    ],
)
def test_a_file_that_is_none_of_ours_is_told_of_and_left_alone(
    user: User, content: bytes, fault: bytes
) -> None:
    user.folder.mkdir(parents=True)
    bad = user.folder / "20200101-000000-1.json"
    bad.write_bytes(content)
    (user.folder / "notes.txt").write_text("mine")
    done = user.run("ask", "-c", "--no-stdin", "one")
    assert (done.returncode, done.stdout) == (0, b"An answer.\n")
    assert done.stderr.startswith(f"llamactl: {bad}: ".encode() + fault)
    assert done.stderr.endswith(b"; it stays there, this is a new conversation\n")
    assert bad.read_bytes() == content
    assert user.ask("-c", "two") == f"user:one|{ANSWER}|user:two|"


def test_a_folder_that_takes_nothing_costs_the_next_continue_and_nothing_else(user: User) -> None:
    user.folder.parent.mkdir()
    user.folder.write_text("a file")
    done = user.run("chat", "-c", stdin=b"one\ntwo\n")
    assert (done.returncode, done.stdout) == (0, b"An answer.\n" * 2)
    lines = done.stderr.decode().splitlines()
    assert lines[1:] == [
        f"llamactl: --continue will not know this conversation: {user.folder}: File exists"
    ]


def test_a_raw_prompt_has_no_conversation(user: User) -> None:
    done = user.run("ask", "--raw", "-c", "--no-stdin", "x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--raw has no turns: no --continue" in done.stderr


def test_number_and_size_of_what_is_kept_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_CONVERSATIONS", 3)
    for number in range(5):
        path = tmp_path / f"2020010{number}-000000-1.json"
        path.write_text("[]")
        os.utime(path, (number, number))
    (tmp_path / ".20200101-000000-1.json.9.part").write_text("of a process that was killed")
    talk = Conversation()
    talk.add("one", "answer")
    keeper = Keeper(tmp_path)
    assert keeper.keep(talk) == ""
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == ["20200103-000000-1.json", "20200104-000000-1.json"]
    assert len(names) == 3
    talk.add("two", "x" * kept.MAX_FILE_BYTES)
    assert "at most 4194304" in keeper.keep(talk)
    assert keeper.keep(talk) == ""  # said once
    assert [turn["content"] for turn in json.loads((tmp_path / names[2]).read_bytes())] == [
        "one",
        "answer",
    ]


def test_a_user_without_a_home_can_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert open_conversation(None, go_on=True).note.startswith("there is no earlier")


def test_a_chat_on_a_terminal_says_how_to_go_on_and_where_it_stands(user: User) -> None:
    def chat(*arguments: str, begins: str, says: str) -> None:
        with terminal_screen(user.state) as screen:
            screen.start(
                llamactl_command("--socket", str(user.service.path), "chat", *arguments),
                environment(XDG_STATE_HOME=str(user.state)),
            )
            text = screen.wait(lambda text: "/help shows" in text and text.endswith("\n>"))
            assert begins in text
            assert ("goes on with the last" in text) is (begins == "goes on with the last")
            screen.type(says)
            screen.press("Enter")
            screen.wait(lambda text: text.count("An answer.") == 1 and text.endswith("\n>"))
            screen.press("C-d")
            screen.wait_for_end()

    chat(begins="", says="one")
    chat("-c", begins="the conversation has 2 messages; your last: one", says="two")
    assert user.prompts()[-1] == f"user:one|{ANSWER}|user:two|"
    chat(begins="goes on with the last", says="three")
    assert user.prompts()[-1] == "user:three|"
    assert len(user.files()) == 2
    assert user.ask("-c", "four") == f"user:three|{ANSWER}|user:four|"
