"""The prompt's keys, typed through a pipe, and the history of what was typed."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from llamactl.chat import commands, history
from llamactl.chat.history import StoredHistory, history_path
from llamactl.chat.prompt import Prompt, harmless, is_open_block, message_of

Ask = Callable[[str], list[str | None]]
PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture
def ask(keys: PipeInput, tmp_path: Path) -> Ask:
    def ask(typed: str, messages: int = 1) -> list[str | None]:
        prompt = Prompt(
            StoredHistory(tmp_path / "h"), commands.complete, input=keys, output=DummyOutput()
        )
        keys.send_text(typed)
        return [prompt.ask() for _ in range(messages)]

    return ask


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hello\r", "hello"),
        ("hello\n", "hello"),  # Enter that was typed while the terminal was silent
        (PASTE.format("a\r\nb\nc") + "\r", "a\nb\nc"),
        (PASTE.format("/exit\n/exit") + "\r", "/exit\n/exit"),
        ("a\x1b\rb\r", "a\nb"),
        ('"""a\r\rb"""\r', "\na\n\nb"),
        ('"""\r/exit\r"""\r', "\n/exit"),
        ("wrong\x03right\r", "right"),
        ("\x03again\r", "again"),
        ("wrong\x03\x03", None),
        ("\x03\x03", None),
        ("\x04", None),
        ("/re\t\r", "/reset"),
        ("/set temp\t 1\r", "/set temperature 1"),
    ],
)
def test_keys(ask: Ask, typed: str, expected: str | None) -> None:
    assert ask(typed) == [expected]


def test_the_editor_gives_a_text_that_enter_sends(
    ask: Ask, keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, started = tmp_path / "editor", tmp_path / "started"
    os.mkfifo(started)
    editor.write_text(f"#!/bin/sh\necho >{started}\nprintf '%s' 'd\nedited' >>\"$1\"\n")
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))

    def press_enter() -> None:
        started.read_text()  # the prompt does not read while the editor runs
        keys.send_text("\r")

    enter = threading.Thread(target=press_enter)
    enter.start()
    assert ask("begun\x18\x05") == ["begund\nedited"]
    enter.join()


def test_earlier_messages_come_back(ask: Ask, tmp_path: Path) -> None:
    assert ask(PASTE.format("one\ntwo") + "\r") == ["one\ntwo"]
    assert StoredHistory(tmp_path / "h").load_history_strings() == ["one\ntwo"]
    assert (tmp_path / "h").stat().st_mode & 0o777 == 0o600


def test_what_turns_the_direction_over_is_shown_and_not_obeyed() -> None:
    assert harmless("a\u202eb\u2066 \u200f\u05d0\n") == "a\ufffdb\ufffd \u200f\u05d0\n"


def test_blocks() -> None:
    assert is_open_block('"""a\nb')
    assert not is_open_block('"""a"""')
    assert not is_open_block('a """')
    assert message_of('"""a') == '"""a'
    assert message_of('"""a"""') == "\na"
    assert message_of('""""') == '""""'


def test_a_history_that_is_broken_or_forbidden_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_bytes(b'"one"\n\xff\n17\n"cut\n"two"\n')
    assert StoredHistory(path).load_history_strings() == ["two", "one"]
    nowhere = StoredHistory(path / "below" / "a file")
    nowhere.store_string("x")
    assert nowhere.load_history_strings() == []


def test_a_long_history_loses_its_older_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_FILE_BYTES", 100)
    path = tmp_path / "h"
    path.write_text("".join(f"{json.dumps(f'entry {i:02}')}\n" for i in range(20)))
    kept = list(StoredHistory(path).load_history_strings())
    assert kept == ["entry 19", "entry 18", "entry 17", "entry 16"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_history_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert history_path() == Path("/somewhere/llamactl/chat_history")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/nobody")
    assert history_path() == Path("/nobody/.local/state/llamactl/chat_history")
