"""``llamactl chat``: a conversation, one line a message; the history is sent with each."""

import argparse
import contextlib
import importlib
import signal
import sys

from llamactl import sampling
from llamactl.answer import show
from llamactl.commands import Commands
from llamad_client import Client, ClientError, ServiceUnreachable

PROMPT = "> "
HELP = "/reset forgets the conversation, /system TEXT sets the system message, /exit leaves"


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "chat", help="hold a conversation", description=f"Hold a conversation. {HELP}."
    )
    sampling.add_flags(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Read messages until the end of the input; answer each."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # line editing for input()
    with Client(arguments.socket) as client:
        conversation = _Conversation(client, arguments, interactive=interactive)
        while (line := _read_line(interactive)) is not None:
            if not conversation.take(line):
                break
    return 0


def _read_line(interactive: bool) -> str | None:
    """Return the next line, None at the end of the input."""
    try:
        return input(PROMPT if interactive else "")
    except EOFError:
        if interactive:
            print()
        return None


class _Conversation:
    """The messages so far, and what a line of input does to them."""

    def __init__(self, client: Client, arguments: argparse.Namespace, *, interactive: bool) -> None:
        self._client = client
        self._arguments = arguments
        self._options = sampling.client_options(arguments)
        self._interactive = interactive
        self._system: str | None = arguments.system
        self._turns: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """Do what a line says; return False when it ends the conversation."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                pass
            case "/exit" | "/quit":
                return False
            case "/reset":
                self._turns.clear()
            case "/system":
                self._system = rest or None
            case "/help":
                print(HELP, file=sys.stderr)
            case _:
                self._answer(line)
        return True

    def _answer(self, content: str) -> None:
        """Ask with the whole history; what fails or is interrupted leaves no trace in it."""
        question = {"role": "user", "content": content}
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        try:
            text = show(
                self._client.chat([*system, *self._turns, question], **self._options),
                as_json=self._arguments.json,
                stats=self._arguments.stats,
            )
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            print(f"\n({signal.strsignal(signal.SIGINT)})", file=sys.stderr)
        except ClientError as error:
            if not self._interactive or isinstance(error, ServiceUnreachable):
                raise
            print(f"llamactl: {error.message}", file=sys.stderr)
        else:
            self._turns += (question, {"role": "assistant", "content": text})
