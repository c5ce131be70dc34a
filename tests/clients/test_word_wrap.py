"""Lines of an answer on a terminal: they break between words, however the text arrives."""

import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from llamactl.word_wrap import WordWrap
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

TEXTS = {
    "words": ("one two three four five", "one two\nthree four\nfive"),
    "exactly as wide": ("0123456789 next", "0123456789\nnext"),
    "a space at the edge": ("0123456789  next", "0123456789\nnext"),
    "lines of its own": ("one\n\ntwo  \nthree", "one\n\ntwo  \nthree"),
    "a long word": ("see https://example.org/x now", "see\nhttps://example.org/x now"),
    "spaces in front": ("    one two three", "    one\ntwo three"),
    "a tab": ("a\tb cc dd", "a\tb\ncc dd"),
    "wide characters": ("\u4f60\u597d\u4f60\u597d abc d", "\u4f60\u597d\u4f60\u597d\nabc d"),
    "a word behind wide ones": ("\u4f60\u597d\u4f60\u597dabcd", "\u4f60\u597d\u4f60\u597d\nabcd"),
    "marks without width": ("e\u0301e\u0301e\u0301e\u0301e\u0301 ffff", "e\u0301" * 5 + " ffff"),
    "code": ("```c\nint x = 1, y;\n```\none two three", "```c\nint x = 1, y;\n```\none two\nthree"),
    "nothing": ("", ""),
    "white space": (" \n ", " \n "),
    "what is escaped": ("abc \x1b[2J de", "abc\n\x1b[2J de"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_a_text_is_broken_the_same_however_it_arrives(text: str, expected: str) -> None:
    for size in (1, 2, 3, len(text) or 1):
        wrap = WordWrap(lambda: 10)
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        shown = "".join(map(wrap.feed, pieces)) + wrap.end()
        assert shown == expected


def test_a_word_is_shown_when_its_end_is_known() -> None:
    wrap = WordWrap(lambda: 10)
    assert [wrap.feed(text) for text in ("on", "e t", "wo ", "x\n")] == ["", "one", " two", " x\n"]


def test_the_width_may_change_and_be_unknown() -> None:
    widths = iter([10, 10, 10, 40, 40, 40])
    wrap = WordWrap(lambda: next(widths))
    text = "aaaa bbbb cccc dddd eeee ffff"
    assert wrap.feed(text) + wrap.end() == "aaaa bbbb\ncccc dddd eeee ffff"
    unknown = WordWrap(lambda: 0)
    assert unknown.feed(text) + unknown.end() == text


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


ANSWER = "A sentence that is longer than the terminal is wide, and\tgoes on.\n\n- an item\n"


@pytest.mark.parametrize("command", [("ask", "q"), ("run", "--no-stdin", "fake", "q")])
def test_a_terminal_gets_whole_words_and_a_pipe_every_byte(
    service: RunningService, command: tuple[str, ...]
) -> None:
    service.engine.rule = saying(ANSWER)
    line = llamactl_command("--socket", str(service.path), *command)
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    process = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave, env=environment())
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:  # EIO: the last process has left the terminal
        pass
    os.close(master)
    assert process.wait(TIMEOUT_SECONDS) == 0
    lines = shown.decode().split("\r\n")
    sentence = ["A sentence that is", "longer than the", "terminal is wide,", "and\tgoes on."]
    assert lines == [*sentence, "", "- an item", ""]
    piped = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=True
    )
    assert piped.stdout == ANSWER.encode()
