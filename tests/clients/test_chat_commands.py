"""The messages of a conversation and the commands that change them, without a terminal."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llamactl.chat import commands
from llamactl.chat.commands import CommandFault, Leave, State
from llamactl.chat.conversation import MAX_FILE_BYTES, Conversation, FileFault
from llamad_client import Model, Refused, Setting
from llamad_client.request import Options, chat_request

NAMES = (
    "/help", "/model", "/system", "/reset", "/save", "/load", "/set", "/show", "/think", "/exit",
)  # fmt: skip


@dataclass
class FakeService:
    """Has two models."""

    loaded: str = "one"
    names: list[str] = field(default_factory=lambda: ["one", "two"])

    def status(self) -> Any:
        return _Record(model=_Record(name=self.loaded, n_ctx=len(self.loaded) * 100))

    def models(self) -> list[Model]:
        return [Model(name, f"/m/{name}", 1, name == self.loaded, False) for name in self.names]

    def get_model(self, name: str = "", /) -> Any:
        settings = [Setting("temperature", "0.7", "built_in"), Setting("top_k", "40", "model_file")]
        return _Record(
            title="First", architecture="llama", parameters=1000, quantization="Q4_0",
            licence="mit", n_ctx_train=4096, settings=settings,
        )  # fmt: skip

    def use_model(self, name: str, /) -> Any:
        if name not in self.names:
            raise Refused("MODEL_NOT_FOUND", f"model {name!r} is not there")
        self.loaded = name
        return _Record(load_seconds=1.5)


class _Record:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.fixture
def state() -> State:
    talk = Conversation("Be brief")
    talk.add("q", "a")
    return State(FakeService(), talk, Options(), "one", 300)


def test_there_is_every_command_and_help_names_it(state: State) -> None:
    text = commands.run(state, "/help")
    assert all(f"{name} " in text for name in NAMES)
    assert max(map(len, text.splitlines())) <= 80
    assert {command.name for command in commands.COMMANDS} >= set(NAMES)


@pytest.mark.parametrize("line", ["/hlep", "/", "/etc/passwd what is it?", "/Help"])
def test_an_unknown_command_is_refused_with_the_list(state: State, line: str) -> None:
    with pytest.raises(CommandFault, match=r"there are /help /model .* /exit"):
        commands.run(state, line)


def test_what_has_several_lines_or_a_space_in_front_is_a_message() -> None:
    assert commands.is_command("/reset")
    assert not commands.is_command("/* a comment\n*/")
    assert not commands.is_command(" /reset")


@pytest.mark.parametrize("line", ["/exit", "/quit", " /exit "])
def test_exit_and_quit_leave(state: State, line: str) -> None:
    with pytest.raises(Leave):
        commands.run(state, line)


def test_a_command_without_argument_takes_none(state: State) -> None:
    with pytest.raises(CommandFault, match="/reset takes no argument"):
        commands.run(state, "/reset now")
    assert state.conversation.turns


def test_reset_forgets_turns_and_keeps_the_system_message(state: State) -> None:
    commands.run(state, "/reset")
    assert state.conversation.messages("x") == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "x"},
    ]
    commands.run(state, "/system")
    assert state.conversation.messages("x") == [{"role": "user", "content": "x"}]
    commands.run(state, "/system  Be long ")
    assert state.conversation.system == "Be long"


def test_model_says_what_answers_and_loads_another(state: State) -> None:
    assert "one answers" in commands.run(state, "/model")
    assert "one  (loaded)" in commands.run(state, "/model")
    state.options["model"] = "one"
    assert "1.5 s" in commands.run(state, "/model two")
    assert (state.model, state.options) == ("two", {})
    with pytest.raises(Refused):
        commands.run(state, "/model three")


def test_set_covers_the_sampling_table_and_reaches_the_request(state: State) -> None:
    fields = {f.name for f in chat_request([], Options()).options.sampling.DESCRIPTOR.fields}
    assert set(commands.settings()) >= fields - {"logit_bias"}
    for line in ("temperature 0.5", "top_k 3", "max_tokens 7", "stop a b", "samplers top_k min_p"):
        commands.run(state, f"/set {line}")
    request = chat_request([], state.options)
    assert list(request.options.sampling.samplers) == ["top_k", "min_p"]
    assert (request.options.sampling.temperature, request.options.sampling.top_k) == (0.5, 3)
    assert (request.options.max_tokens, list(request.options.stop)) == (7, ["a b"])
    assert "top_k 3" in commands.run(state, "/set")
    for line in ("loop_guard off", "context_full drop-oldest"):
        commands.run(state, f"/set {line}")
    request = chat_request([], state.options)
    assert not request.options.loop_guard
    assert request.options.HasField("loop_guard")
    commands.run(state, "/set top_k default")
    assert "top_k" not in state.options


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("/set heat 1", "no setting heat; there are max_tokens"),
        ("/set top_k 1.5", "top_k: 1.5 is not a whole number"),
        ("/set temperature warm", "temperature: warm is not a number"),
        ("/set loop_guard 1", "loop_guard: 1 is neither on nor off"),
        ("/set context_full no", "context_full: no is neither refuse nor drop-oldest"),
        ("/think", "/think takes on, off, low, medium, high or default, and show or hide"),
        ("/save", "/save needs the name of a file"),
        ("/load", "/load needs the name of a file"),
    ],
)
def test_a_wrong_argument_names_what_is_right(state: State, line: str, fault: str) -> None:
    with pytest.raises(CommandFault, match=fault):
        commands.run(state, line)


def test_think_says_whether_to_think_and_keeps_the_templates_arguments(state: State) -> None:
    state.options["template_arguments"] = {"tone": "dry"}
    commands.run(state, "/think off")
    sent = chat_request([], state.options).options
    assert dict(sent.template_arguments) == {"tone": '"dry"'}
    assert sent.thinking.enabled is False
    commands.run(state, "/think default")
    assert not chat_request([], state.options).options.HasField("thinking")
    assert dict(state.options["template_arguments"]) == {"tone": "dry"}
    commands.run(state, "/think hide")
    assert not state.show_thoughts


def test_show_says_each_setting_and_who_set_it(state: State) -> None:
    commands.run(state, "/set temperature 0.2")
    text = " ".join(commands.run(state, "/show").split())
    for part in (
        "model one title First", "weights 1000, Q4_0, llama", "licence mit",
        "trained context 4096 tokens", "context 300 tokens;", "system message Be brief",
        "temperature 0.2 (this conversation)", "top_k 40 (the model's file)",
    ):  # fmt: skip
        assert part in text


def test_show_does_without_what_an_older_service_cannot_say(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unimplemented(self: FakeService, name: str = "", /) -> Any:
        raise Refused("UNIMPLEMENTED", "method not implemented")

    monkeypatch.setattr(FakeService, "get_model", unimplemented)
    assert "300 tokens" in commands.run(state, "/show")


def test_words_are_completed() -> None:
    assert list(commands.complete("/re")) == ["/reset"]
    assert list(commands.complete("/set top_")) == ["top_k", "top_p", "top_n_sigma"]
    assert list(commands.complete("hello")) == []


def test_a_conversation_is_saved_for_its_user_and_loaded(state: State, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    assert commands.run(state, f"/save {path}") == f"3 messages saved in {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [message["role"] for message in json.loads(path.read_text())] == [
        "system", "user", "assistant",
    ]  # fmt: skip
    state.conversation.add("r", "b")
    commands.run(state, f"/save {path}")  # its own file is replaced
    other = replace(state, conversation=Conversation(), own_files=set())
    assert commands.run(other, f"/load {path}").endswith(f"5 messages of {path}")
    assert other.conversation.messages("x") == state.conversation.messages("x")


def test_a_file_of_others_is_not_replaced(state: State, tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years")
    with pytest.raises(FileFault, match=r"thesis\.txt: is there already"):
        commands.run(state, f"/save {path}")
    assert path.read_text() == "years"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"{}", "is no list"),
        (b"[1]", "message 1: is no object"),
        (b'[{"role": "cat", "content": ""}]', "message 1: role is none of"),
        (b'[{"role": ["user"], "content": ""}]', "message 1: role is none of"),
        (b'[{"role": "user", "content": 1}]', "message 1: content is no text"),
        (b" " * (MAX_FILE_BYTES + 1), f"more than {MAX_FILE_BYTES} bytes"),
        (None, "No such file"),
    ],
)
def test_a_file_without_messages_is_refused_and_changes_nothing(
    state: State, tmp_path: Path, data: bytes | None, fault: str
) -> None:
    path = tmp_path / "f.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(FileFault, match=fault) as caught:
        commands.run(state, f"/load {path}")
    assert str(path) in str(caught.value)
    assert len(state.conversation.messages("x")) == 4


def test_what_was_left_out_is_kept_and_not_sent(state: State, tmp_path: Path) -> None:
    state.conversation.add("r", "b")
    state.conversation.leave_out(2)
    sent = [message["content"] for message in state.conversation.messages("x")]
    assert sent == ["Be brief", "r", "b", "x"]
    assert state.conversation.save(tmp_path / "f", replace=False) == 5
