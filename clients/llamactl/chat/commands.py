"""What begins with a slash: the commands of a conversation on a terminal.

Owns their table and what each does to the state of the conversation. A command returns what it says
and prints nothing itself; it raises ``CommandFault`` where it cannot do what it was told.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from llamactl import sampling
from llamactl.chat.conversation import Conversation, FileFault
from llamactl.chat.kept import Keeper
from llamactl.output import counted
from llamad_client import Failed, Model, ModelDetails, Refused, Result, Status
from llamad_client.request import Options


class CommandFault(Exception):  # noqa: N818 - says what happened, as in llamad_client.errors
    """A command is unknown or was given wrong; the text says what is right."""


class Leave(Exception):  # noqa: N818
    """The user wants to leave."""


class Service(Protocol):
    """What commands ask of the service; ``llamad_client.Client`` has it."""

    def status(self) -> Status:
        """Return what the service is doing."""

    def models(self) -> list[Model]:
        """Return the models that it knows."""

    def get_model(self, name: str = "", /) -> ModelDetails:
        """Return what is to say of a model; by default of the loaded one."""

    def use_model(self, name: str, /) -> Any:
        """Load a model."""


@dataclass(slots=True)
class State:
    """What a conversation on a terminal has beside its messages."""

    service: Service
    conversation: Conversation
    options: Options
    model: str
    n_ctx: int
    keeper: Keeper | None = None  # None: the conversation is not kept for --continue
    show_thoughts: bool = True
    last: Result | None = None
    own_files: set[Path] = field(default_factory=set)  # that /save may replace


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, its argument in the help, what it does."""

    name: str
    argument: str
    text: str
    run: Callable[[State, str], str]


def is_command(line: str) -> bool:
    """Say whether a message is a command: one line that begins with a slash."""
    return line.startswith("/") and "\n" not in line


def run(state: State, line: str) -> str:
    """Do what a command says and return its answer. Raises CommandFault, Leave, ClientError."""
    name, _, rest = line.strip().partition(" ")
    for command in COMMANDS:
        if name == command.name or (name, command.name) == ("/quit", "/exit"):
            if rest and not command.argument:
                raise CommandFault(f"{name} takes no argument, it was given: {rest}")
            return command.run(state, rest.strip())
    names = " ".join(command.name for command in COMMANDS)
    raise CommandFault(
        f"there is no command {name}; there are {names}. A message that begins with a slash has a "
        "space before it"
    )


def complete(line: str) -> Iterator[str]:
    """Yield the words that may stand in place of the last one of a line that was begun."""
    words = line.split(" ")
    if not line.startswith("/"):
        return
    if len(words) == 1:
        choices = [command.name for command in COMMANDS]
    elif len(words) == 2 and words[0] == "/set":
        choices = [*settings()]
    elif len(words) == 2 and words[0] == "/think":
        choices = ["on", "off", "default", "show", "hide"]
    else:
        choices = []
    yield from (choice for choice in choices if choice.startswith(words[-1]))


def settings() -> dict[str, Callable[[str], Any]]:
    """Return the names that /set takes, and what reads their values; ValueError says what fits."""
    return {
        "max_tokens": _number(int),
        "stop": lambda text: [text],
        "dry_sequence_breakers": lambda text: [text],
        "samplers": str.split,
        **{name: _number(kind) for name, kind in sampling.types().items()},
        **dict.fromkeys(sampling.SWITCHES, _switch),
        "context_full": _context_full,
    }


def _number(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"is not {what}") from None

    return read


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("is neither on nor off")
    return text == "on"


def _context_full(text: str) -> str:
    if text not in ("refuse", "drop-oldest"):
        raise ValueError("is neither refuse nor drop-oldest")
    return text


def _help(state: State, rest: str) -> str:
    rows = [f"{command.name} {command.argument}".strip() for command in COMMANDS]
    width = max(map(len, rows))
    lines = [
        f"{row.ljust(width)}  {command.text}" for row, command in zip(rows, COMMANDS, strict=True)
    ]
    return "\n".join([*lines, *KEYS])


KEYS = (
    "",
    'Enter sends, Alt-Enter begins a line; lines between two """ are one message.',
    "Ctrl-X Ctrl-E opens $EDITOR; the arrow keys and Ctrl-R find earlier messages.",
    "Ctrl-C stops an answer or clears the line, twice leaves; Ctrl-D leaves.",
)


def _model(state: State, rest: str) -> str:
    if rest:
        used = state.service.use_model(rest)
        state.options.pop("model", None)
        state.last = None
        refresh(state)
        return f"{state.model} is loaded after {used.load_seconds:.1f} s; the conversation goes on"
    names = [
        f"  {model.name}{'  (loaded)' if model.loaded else ''}" for model in state.service.models()
    ]
    return "\n".join(
        [f"{state.model} answers, its context has {state.n_ctx} tokens; there are:", *names]
    )


def refresh(state: State) -> None:
    """Ask which model answers, and how much it can read."""
    status = state.service.status()
    if status.model is not None:
        state.model, state.n_ctx = status.model.name, status.model.n_ctx


def _system(state: State, rest: str) -> str:
    state.conversation.system = rest or None
    return "the system message is set" if rest else "there is no system message now"


def _reset(state: State, rest: str) -> str:
    state.conversation.reset()
    if state.keeper is not None:
        state.keeper.forget()
    state.last = None
    return "the conversation is forgotten; the system message and the settings stay"


def _save(state: State, rest: str) -> str:
    path = _path("/save", rest)
    count = state.conversation.save(path, replace=path in state.own_files)
    state.own_files.add(path)
    return f"{counted(count, 'message')} saved in {path}"


def _load(state: State, rest: str) -> str:
    path = _path("/load", rest)
    count = state.conversation.load(path)
    if state.keeper is not None:
        state.keeper.begin()
    state.last = None
    state.own_files.add(path)
    return f"the conversation goes on with {counted(count, 'message')} of {path}"


def _path(name: str, rest: str) -> Path:
    if not rest:
        raise CommandFault(f"{name} needs the name of a file")
    try:
        return Path(rest).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise CommandFault(f"{rest}: {error}") from None


def _set(state: State, rest: str) -> str:
    given = cast("dict[str, Any]", state.options)
    if not rest:
        rows = [f"{name} {_shown(given.get(name))}" for name in settings()]
        return "\n".join([*rows, "/set NAME VALUE changes one, /set NAME default gives it back"])
    name, _, text = rest.partition(" ")
    text = text.strip()
    kind = settings().get(name)
    if kind is None:
        raise CommandFault(f"/set: there is no setting {name}; there are {' '.join(settings())}")
    if not text:
        return f"{name} {_shown(given.get(name))}"
    if text == "default":
        given.pop(name, None)
        return f"{name} is as the service has it"
    try:
        given[name] = kind(text)
    except ValueError as error:
        raise CommandFault(f"/set {name}: {text} {error}") from None
    return f"{name} {_shown(given[name])}"


def _shown(value: object) -> str:
    if value is None:
        return "(default)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _think(state: State, rest: str) -> str:
    if rest in ("show", "hide"):
        state.show_thoughts = rest == "show"
        return f"thoughts are {'shown' if state.show_thoughts else 'not shown'}"
    match rest:
        case "on" | "off":
            given: Options = {"thinking": rest == "on"}
        case "low" | "medium" | "high":
            given = {"thinking": True, "thinking_effort": rest}
        case "default":
            given = {}
        case _:
            raise CommandFault(
                "/think takes on, off, low, medium, high or default, and show or hide"
            )
    state.options.pop("thinking", None)
    state.options.pop("thinking_budget", None)
    state.options.pop("thinking_effort", None)
    state.options.update(given)
    words = {"on": "to think", "off": "not to think", "default": "nothing about thinking"}
    told = words.get(rest, f"to think with {rest} effort")
    return f"the model is told {told}, where it knows how"


def _show(state: State, rest: str) -> str:
    refresh(state)
    details = _details(state)
    given = cast("dict[str, Any]", state.options)
    last = state.last
    used = 0 if last is None else last.prompt_tokens + last.completion_tokens
    rows = [
        ("model", state.model),
        *_of_the_file(details),
        ("context", f"{state.n_ctx} tokens; the last answer used {used}"),
        ("messages", str(len(state.conversation.turns))),
        ("system message", state.conversation.system or "(none of this conversation)"),
    ]
    settings = () if details is None else details.settings
    theirs = {one.name: f"{one.value}  ({SOURCES[one.source]})" for one in settings}
    ours = {name: f"{_shown(value)}  (this conversation)" for name, value in given.items()}
    rows += (theirs | ours).items()
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _details(state: State) -> ModelDetails | None:
    """Return what the service says of its model; None for a service that cannot say it."""
    try:
        return state.service.get_model()
    except (Refused, Failed):
        return None


def _of_the_file(details: ModelDetails | None) -> Iterator[tuple[str, str]]:
    """Yield rows about the model's file."""
    if details is None:
        return
    yield "title", details.title or "(the file does not say)"
    yield "weights", f"{details.parameters}, {details.quantization}, {details.architecture}"
    yield "licence", details.licence or "(the file does not say)"
    yield "trained context", f"{details.n_ctx_train} tokens"


SOURCES = {
    "model_section": "llamad.toml, for this model",
    "model_file": "the model's file",
    "recommended": "the catalogue",
    "configuration": "llamad.toml",
    "built_in": "built in",
    "unspecified": "unknown",
}


def _exit(state: State, rest: str) -> str:
    raise Leave


COMMANDS = (
    Command("/help", "", "shows this", _help),
    Command("/model", "[NAME]", "says which model answers, or loads another", _model),
    Command("/system", "[TEXT]", "sets the system message, or removes it", _system),
    Command("/reset", "", "forgets the conversation", _reset),
    Command("/save", "FILE", "writes the messages to a file, as JSON", _save),
    Command("/load", "FILE", "goes on with the messages of a file", _load),
    Command("/set", "[NAME [VALUE]]", "shows or changes how tokens are drawn", _set),
    Command("/show", "", "shows model, context, settings and system message", _show),
    Command(
        "/think",
        "on|off|LEVEL|show|hide",
        "lets the model think first, or shows thoughts",
        _think,
    ),
    Command("/exit", "", "leaves", _exit),
)

__all__ = [
    "COMMANDS",
    "Command",
    "CommandFault",
    "FileFault",
    "Leave",
    "State",
    "complete",
    "is_command",
    "run",
]
