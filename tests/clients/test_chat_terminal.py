"""llamactl chat on a terminal, as a person uses it: typed into and read through tmux."""

import contextlib
import itertools
import os
import pty
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from clients.terminal_screen import TerminalScreen, terminal_screen
from llamactl.chat.prompt import LEAVE_HINT
from llamad.errors import ErrorKind, LlamadError
from unit.schedule.fakes import TIMEOUT_SECONDS, History, saying

FIRST = "/help shows commands"


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        say(running, "An answer.")
        yield running


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[TerminalScreen]:
    with terminal_screen(tmp_path) as terminal:
        yield terminal


def begin(
    screen: TerminalScreen, service: RunningService, tmp_path: Path, *arguments: str, **sizes: int
) -> None:
    """Start a chat and wait for its first prompt."""
    screen.start(
        llamactl_command("--socket", str(service.path), "chat", *arguments),
        environment(XDG_STATE_HOME=str(tmp_path), EDITOR="/bin/false", VISUAL=""),
        **sizes,
    )
    screen.wait(lambda text: FIRST in text and text.endswith("\n>"))


def say(service: RunningService, text: str) -> None:
    """Let every answer be this text, and remember the prompt of each."""
    rule = saying(text)

    def remembering(history: History, seed: int, draw: int) -> int:
        if draw == 0:
            SEEN.append(bytes(history).decode())
        return rule(history, seed, draw)

    SEEN.clear()
    service.engine.rule = remembering


SEEN: list[str] = []  # the prompts that reached the engine


def answers(count: int) -> Callable[[str], bool]:
    """Return whether a screen shows so many answers, and an empty prompt below."""
    return lambda text: text.count("An answer.") == count and text.endswith("\n>")


def prompt_below(*expected: str) -> Callable[[str], bool]:
    """Return whether a screen shows all of this, and an empty prompt below."""
    return lambda text: all(one in text for one in expected) and text.endswith("\n>")


def test_the_first_screen_says_model_context_and_help(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    assert "fake, context 512 tokens" in screen.text()


def test_twelve_pasted_lines_are_one_message(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    lines = [f"line {number}" for number in range(12)]
    screen.paste("\n".join(lines))
    screen.wait_for("line 11")
    assert SEEN == []  # nothing was sent yet
    screen.type(" and more")
    screen.press("Enter")
    screen.wait(prompt_below("An answer."))
    assert ["user:" + "\n".join(lines) + " and more|"] == SEEN


def test_a_block_is_one_message_and_may_look_like_a_command(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    for line in ('"""', "/exit", "", "two", '"""'):
        screen.type(line)
        screen.press("Enter")
    screen.wait(prompt_below("An answer."))
    assert SEEN == ["user:/exit\n\ntwo|"]


def test_ctrl_c_at_the_prompt_clears_the_line_and_twice_leaves(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    screen.type("a mistake")
    screen.wait_for("> a mistake")
    screen.press("C-c")
    screen.wait(lambda text: "a mistake" not in text and LEAVE_HINT in text)
    screen.type("right")
    screen.press("Enter")
    screen.wait(prompt_below("An answer."))
    assert SEEN == ["user:right|"]
    screen.type("again")
    screen.press("C-c", "C-c")
    screen.wait_for_end()


def test_ctrl_c_in_an_answer_stops_it_and_keeps_what_came(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    entered = service.pause_step(5)  # of eleven: each draws a byte
    screen.type("one")
    screen.press("Enter")
    assert entered.wait(TIMEOUT_SECONDS)
    screen.wait_for("> one\nAn")
    screen.type("two")  # waits, and is not seen in the answer
    screen.press("C-c")
    screen.wait(lambda text: "(stopped)" in text and text.endswith("\n> two"))
    service.engine.before_step = lambda: None
    screen.press("Enter")
    text = screen.wait(prompt_below("(stopped)", "An answer."))
    [kept] = [line for line in text.splitlines() if line and "An answer.".startswith(line)][:1]
    assert SEEN[1:] == [f"user:one|assistant:{kept}|user:two|"]


def test_what_is_typed_during_an_answer_waits_for_its_end(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert go_on.wait(TIMEOUT_SECONDS)

    service.engine.before_step = hold
    screen.type("one")
    screen.press("Enter")
    assert entered.wait(TIMEOUT_SECONDS)
    screen.type("two")
    screen.press("Enter")
    screen.paste("three\nfour")
    assert "two" not in screen.text()
    go_on.set()
    text = screen.wait(lambda text: text.endswith("\n> three\n  four"))
    assert text.split("> one\n")[1] == ("An answer.\n> two\nAn answer.\n> three\n  four")
    assert SEEN[1] == "user:one|assistant:An answer.|user:two|"


WIDE = "日本語の文字は幅が二つです。" * 5


def test_wide_characters_break_at_the_edge_and_none_is_lost(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    say(service, WIDE)
    begin(screen, service, tmp_path, columns=41)
    screen.type("日本")
    screen.press("BSpace")
    screen.type("語")
    screen.press("Enter")
    text = screen.wait(lambda text: text.endswith("\n>") and "日語" in text and "。" in text)
    answer = text.split("> 日語\n")[1].removesuffix("\n>").splitlines()
    assert "".join(answer) == WIDE
    assert {len(line) for line in answer[:-1]} <= {19, 20}
    assert SEEN == ["user:日語|"]


def test_words_are_wrapped_also_after_the_window_became_smaller(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    words = " ".join(f"word{number:03}" for number in range(25))
    say(service, words)
    begin(screen, service, tmp_path, columns=80)
    screen.type("q")
    screen.press("Enter")
    text = screen.wait(prompt_below("word024"))
    assert "\n".join(textwrap.wrap(words, 80)) in text
    screen.resize(50, 24)
    screen.type("/reset")
    screen.press("Enter")
    screen.wait(prompt_below("is forgotten"))
    screen.type("r")
    screen.press("Enter")
    text = screen.wait(lambda text: text.count("word024") == 2 and text.endswith("\n>"))
    assert text.split("> r\n")[1] == "\n".join(textwrap.wrap(words, 50)) + "\n>"
    screen.type("x" * 60)  # longer than the window: the prompt breaks it
    screen.wait_for("> " + "x" * 48 + "\n  " + "x" * 12)


def test_an_answer_goes_on_in_a_window_that_became_smaller_meanwhile(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    words = [f"word{number:02}" for number in range(40)]
    say(service, " ".join(words))
    begin(screen, service, tmp_path)
    go_on, steps = threading.Event(), itertools.count()

    def hold() -> None:
        if next(steps) == 150:  # a byte each
            assert go_on.wait(TIMEOUT_SECONDS)

    service.engine.before_step = hold
    screen.type("q")
    screen.press("Enter")
    screen.wait_for("word19")
    screen.resize(30, 24)
    go_on.set()
    text = screen.wait(prompt_below("word39"))
    lines = text.split("> q\n")[1].splitlines()
    whole = [word for line in lines for word in line.split()]
    assert [word for word in whole if word >= "word21"] == words[21:]
    assert len(lines[-3].split()) == 4  # of six letters and a space, in 30 columns


def test_history_is_there_after_a_restart_and_only_for_its_user(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    screen.paste("first\nsecond")
    screen.press("Enter")
    screen.wait(prompt_below("An answer."))
    screen.press("C-d")
    screen.wait_for_end()
    path = tmp_path / "llamactl" / "chat_history"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    begin(screen, service, tmp_path)
    screen.press("Up")
    screen.wait(lambda text: text.endswith("> first\n  second"))


def test_a_context_that_is_full_is_noted_and_the_conversation_goes_on(
    screen: TerminalScreen, tmp_path: Path
) -> None:
    with running_service(n_ctx=64, kv_blocks_total=8) as service:
        say(service, "An answer.")
        begin(screen, service, tmp_path)
        for number, word in enumerate(("one", "two", "three", "four"), 1):
            screen.type(word)
            screen.press("Enter")
            screen.wait(answers(number))
        before, _, after = screen.text().replace("\n", "").partition("> three")
    notice = "(the context of 64 tokens is full: 2 oldest messages left out"
    assert (before.count(notice), after.count(notice)) == (0, 2)
    assert SEEN[2:] == [
        "user:two|assistant:An answer.|user:three|",
        "user:three|assistant:An answer.|user:four|",
    ]


def test_an_answer_that_meets_the_end_of_the_context_or_its_bound_says_so(
    screen: TerminalScreen, tmp_path: Path
) -> None:
    with running_service(n_ctx=16, kv_blocks_total=8) as service:
        say(service, "An answer.")
        begin(screen, service, tmp_path)
        screen.type("q")
        screen.press("Enter")
        screen.wait(prompt_below("An answer\n(cut: the context of 16 tokens is full; /reset"))
        for line in ("/reset", "/set max_tokens 2", "r"):
            screen.type(line)
            screen.press("Enter")
        screen.wait(prompt_below("An\n(cut after 2 tokens; /set max_tokens N"))


def test_markdown_is_styled_and_hostile_text_is_shown(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    say(
        service,
        "# Title\n- **bold** `x*y`\n\x1b]0;owned\x07\x1b[2J\n```python\nx = '\x1b[2J'\n```\n",
    )
    begin(screen, service, tmp_path)
    screen.type("q")
    screen.press("Enter")
    text = screen.wait(prompt_below("Title"))
    assert text.split("> q\n")[1] == (
        "Title\n\u2022 bold x*y\n\\x1b]0;owned\\x07\\x1b[2J\n```python\nx = '\\x1b[2J'\n```\n>"
    )


def test_an_unknown_command_is_refused_with_the_list(
    screen: TerminalScreen, service: RunningService, tmp_path: Path
) -> None:
    begin(screen, service, tmp_path)
    screen.type("/hlep")
    screen.press("Enter")
    screen.wait(prompt_below("there is no command /hlep; there are /help /model"))
    screen.type("/exit")
    screen.press("Enter")
    screen.wait_for_end()
    assert SEEN == []


def test_a_service_that_goes_away_does_not_end_the_conversation(
    screen: TerminalScreen, tmp_path: Path
) -> None:
    with running_service() as service:
        begin(screen, service, tmp_path)
    screen.type("q")
    screen.press("Enter")
    screen.wait(prompt_below("llamactl: llamad is not running"))


def on_terminal(path: Path, **changes: str) -> tuple[int, str]:
    """Run a chat on a terminal where nobody types; return its exit code and what it showed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        llamactl_command("--socket", str(path), "chat"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TERM="xterm", **changes),
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last process has left the terminal
        while data := os.read(master, 4096):
            shown += data
    os.close(master)
    return process.wait(TIMEOUT_SECONDS), shown.decode()


def test_without_a_service_it_is_refused_at_once(tmp_path: Path) -> None:
    code, shown = on_terminal(tmp_path / "none.sock")
    assert code == 3
    assert shown.startswith("llamactl: llamad is not running: no socket ")


def test_while_the_model_loads_it_is_refused_at_once() -> None:
    with running_service(loaded=False) as service:
        code, shown = on_terminal(service.path)
    assert (code, shown.split(":")[1]) == (3, " llamad is still loading its model")


def test_a_model_that_failed_is_named_at_once(service: RunningService) -> None:
    failure = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic")
    service.do(lambda: service.service.fail_model(failure))
    code, shown = on_terminal(service.path)
    assert code == 4
    assert "x.gguf: bad magic" in shown


def test_other_commands_import_neither_prompt_toolkit_nor_rich() -> None:
    program = (
        "import sys, llamactl.command_line\n"
        "print(*{'prompt_toolkit', 'rich', 'pygments'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment(), check=True
    )
    assert done.stdout == b"\n"
