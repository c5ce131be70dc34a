"""The conversation through a pipe: one line a message; the history is sent with each.

Also that on a terminal that can do nothing (``TERM=dumb``), and with ``--json``.
"""

import argparse
import contextlib
import importlib
import signal
import sys

from llamactl import sampling
from llamactl.answer import show
from llamactl.chat.kept import Opened, open_conversation
from llamactl.exit_codes import exit_code
from llamactl.output import print_error, print_note
from llamad_client import Client, ClientError, Refused, ServiceUnreachable

PROMPT = "> "
RESET = "/reset forgets the conversation"
HELP = f"{RESET}, /system TEXT sets the system message, /exit leaves"


def run(arguments: argparse.Namespace) -> int:
    """Read messages until the end of the input; answer each.

    A message that fails does not end the conversation; from a pipe, the first failure is the exit
    code.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # line editing for input()
    with Client(arguments.socket) as client:
        opened = open_conversation(arguments.system, go_on=arguments.go_on)
        if opened.note:
            print_note(opened.note, as_json=arguments.json)
        conversation = _Talk(client, arguments, opened, interactive=interactive)
        n_lines = 0
        while (line := _read_line(interactive)) is not None:
            n_lines += 1
            if not conversation.handle(line):
                break
        if not n_lines and not interactive:
            text = "standard input has no message: nothing was asked"
            print_note(text, as_json=arguments.json)
    return 0 if interactive else conversation.exit_code


def _read_line(interactive: bool) -> str | None:
    """Return the next line, None at the end of the input. Raises Refused where it breaks off."""
    try:
        return input(PROMPT if interactive else "")
    except EOFError:
        if interactive:
            print()
        return None
    except OSError as error:
        raise Refused("INVALID_PROMPT", f"standard input: {error.strerror}") from None


class _Talk:
    """What a line of input does."""

    def __init__(
        self, client: Client, arguments: argparse.Namespace, opened: Opened, *, interactive: bool
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._options = sampling.client_options(arguments)
        self._interactive = interactive
        self._conversation = opened.conversation
        self._keeper = opened.keeper if interactive or arguments.go_on else None
        self.exit_code = 0  # of the first message that failed

    def handle(self, line: str) -> bool:
        """Do what a line says; return False when it ends the conversation."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                pass
            case "/exit" | "/quit":
                return False
            case "/reset":
                self._conversation.reset()
                if self._keeper is not None:
                    self._keeper.forget()
            case "/system":
                self._conversation.system = rest or None
            case "/help":
                print(HELP, file=sys.stderr)
            case _:
                self._answer(line)
        return True

    def _answer(self, content: str) -> None:
        """Ask with the whole history; what fails or is interrupted leaves no trace in it."""
        conversation = self._conversation
        try:
            completion = self._client.chat(conversation.messages(content), **self._options)
            text = show(
                completion,
                as_json=self._arguments.json,
                stats=self._arguments.stats,
                max_tokens=self._arguments.max_tokens,
                when_full=f"; {RESET}",
            )
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            print(f"\n({signal.strsignal(signal.SIGINT)})", file=sys.stderr)
        except ClientError as error:
            if isinstance(error, ServiceUnreachable):
                raise
            message = error.message
            if error.reason == "PROMPT_TOO_LONG" and conversation.turns:
                message += f"; {RESET}"
            print_error(error.reason, message, as_json=self._arguments.json)
            self.exit_code = self.exit_code or exit_code(error)
        else:
            if completion.result is not None:  # what was left out once is not sent again
                conversation.leave_out(completion.result.dropped_messages)
            conversation.add(content, text)
            note = "" if self._keeper is None else self._keeper.keep(conversation)
            if note:
                print_note(note, as_json=self._arguments.json)
