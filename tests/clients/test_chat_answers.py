"""What a chat on a terminal shows of an answer's events, and what stays in the conversation."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack, cast

import pytest

from llamactl.chat.commands import State
from llamactl.chat.conversation import Conversation
from llamactl.chat.screen import Screen
from llamactl.chat.terminal import Talk
from llamad_client import (
    Client,
    Failed,
    Queued,
    Refused,
    Result,
    TextDelta,
    ThinkingDelta,
    Timings,
)
from llamad_client.request import Options

QUEUED = Queued("1", 0, 5, dropped_messages=0, substitute_template="")
END = Result(
    finish_reason="stop",
    prompt_tokens=5,
    completion_tokens=3,
    cached_prompt_tokens=0,
    reasoning_tokens=0,
    timings=Timings(0, 0, 0, 0, 0, 0),
    seed=1,
    job_id="1",
    model="m",
    stop_string="",
    dropped_messages=0,
    context_full=False,
    format_incomplete=False,
)


class Service:
    """Answers with given events; one that is an error is raised."""

    def __init__(self, *events: Any) -> None:
        self.events = events
        self.result: Result | None = None
        self.asked: list[list[str]] = []

    def chat(
        self, messages: Sequence[Mapping[str, str]], **options: Unpack[Options]
    ) -> "_Completion":
        self.asked.append([message["content"] for message in messages])
        return _Completion(self.events)


@dataclass
class _Completion:
    given: Sequence[Any]
    result: Result | None = None

    def events(self) -> Iterator[Any]:
        for event in self.given:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Result):
                self.result = event
            yield event

    def cancel(self) -> None: ...

    def __enter__(self) -> "_Completion":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def _no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Chat:
    """A talk whose screen is a text."""

    def __init__(self, *events: Any, thoughts: bool = True, **options: Any) -> None:
        self.service = Service(*events)
        client = cast(Client, self.service)
        self.state = State(
            client, Conversation(), cast(Options, options), "m", 64, show_thoughts=thoughts
        )
        self._file = io.StringIO()
        self._talk = Talk(client, self.state, Screen(self._file), stats=False)

    def say(self, text: str) -> str:
        """Return what is shown for a message, with its styles."""
        assert self._talk.handle(text)
        shown = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return shown


def test_thoughts_are_dim_and_no_part_of_the_conversation() -> None:
    chat = Chat(
        QUEUED, ThinkingDelta("Let me ", 1), ThinkingDelta("see", 2), TextDelta("Yes", 3), END
    )
    shown = chat.say("q")
    assert shown.index("\x1b[2;3msee\x1b[0m\n") < shown.index("Yes\n")
    assert [turn["content"] for turn in chat.state.conversation.turns] == ["q", "Yes"]


def test_hidden_thoughts_are_not_shown() -> None:
    chat = Chat(QUEUED, ThinkingDelta("see", 2), TextDelta("Yes", 3), END, thoughts=False)
    assert chat.say("q") == "Yes\n"


def test_dropped_messages_are_noted_and_not_sent_again() -> None:
    chat = Chat(QUEUED, TextDelta("a", 1), END)
    chat.say("one")
    chat.say("two")
    chat.service.events = (replace(QUEUED, dropped_messages=2), TextDelta("a", 1), END)
    assert "the context of 64 tokens is full: 2 oldest messages left out" in (
        chat.say("three").replace("\n", " ")
    )
    chat.service.events = (QUEUED, TextDelta("a", 1), END)
    assert chat.say("four") == "a\n"
    assert chat.service.asked[2:] == [
        ["one", "a", "two", "a", "three"],
        ["two", "a", "three", "a", "four"],
    ]
    assert len(chat.state.conversation.turns) == 8


@pytest.mark.parametrize(
    ("result", "note"),
    [
        (replace(END, finish_reason="length", context_full=True), "context of 64 tokens is full"),
        (replace(END, finish_reason="length"), "cut after 3 tokens; /set max_tokens N"),
        (replace(END, finish_reason="loop"), "only repeated itself; /set loop_guard off"),
        (replace(END, finish_reason="cancelled"), "job 1 was cancelled by somebody else"),
    ],
)
def test_an_answer_that_was_cut_says_why(result: Result, note: str) -> None:
    assert note in Chat(QUEUED, TextDelta("a", 1), result).say("q")


def test_a_template_that_was_taken_instead_is_noted_once() -> None:
    chat = Chat(replace(QUEUED, substitute_template="chatml"), TextDelta("a", 1), END)
    assert "no chat template: the chatml one was taken" in chat.say("q")
    assert chat.say("q") == "a\n"


def test_a_message_that_fails_is_left_out_and_the_conversation_goes_on() -> None:
    chat = Chat(QUEUED, TextDelta("half ", 1), Failed("INTERNAL", "no \x1b[2J\nluck"))
    assert "llamactl: no \\x1b[2J\\nluck" in chat.say("q")
    assert chat.state.conversation.turns == []
    chat.service.events = (Refused("PROMPT_TOO_LONG", "prompt has 70 tokens"),)
    assert "prompt has 70 tokens; /reset begins anew" in chat.say("q")


def test_a_line_end_that_comes_in_two_pieces_is_one_and_nothing_commands() -> None:
    chat = Chat(QUEUED, TextDelta("a\r", 1), TextDelta("\nb\rc\r", 2), END)
    assert chat.say("q") == "a\nb\\rc\\r\n"
