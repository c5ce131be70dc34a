"""The command line of ``llamactl``: global flags, dispatch, exit codes.

Exit codes: 0 done, 2 usage, those of ``exit_codes.py``, 130 interrupted (143 by SIGTERM). A broken
pipe ends it quietly.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from llamactl.command_words import command_index, near_flags, problem, with_aliases_replaced
from llamactl.commands import (
    ask,
    batch,
    cancel,
    chat,
    embed,
    health,
    jobs,
    metrics,
    models,
    prefix,
    pull,
    result,
    rm,
    show,
    status,
    submit,
    tokenize,
    top,
    unload,
    use,
    version,
    watch,
)
from llamactl.commands import (
    run as run_command,
)
from llamactl.examples import add_to, overview
from llamactl.exit_codes import exit_code
from llamactl.output import print_error, printable
from llamactl.streams import OutputFailed, output_is_closed
from llamad_client import ClientError, Failed, __version__

COMMANDS = (
    run_command, ask, chat, status, top, models, show, pull, use, unload, rm, submit, watch,
    result, batch, jobs, cancel, prefix, embed, tokenize, metrics, health, version,
)  # fmt: skip

QUIET = (
    pull,
    use,
    unload,
    rm,
    cancel,
    prefix,
    health,
)  # worth running where nobody sees the output


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f'{self.prog}: {printable(message)} ("{self.prog} --help" explains)\n')


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run(parse(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt gets a line of its own
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    """Run a command; say why it failed."""
    try:
        if output_is_closed() and not options.quiet:
            raise OutputFailed("standard output is closed")
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except ClientError as error:
        return _fail(error, as_json=options.json)
    except OutputFailed as error:
        return _fail(Failed("OUTPUT_FAILED", str(error)), as_json=options.json)
    except BrokenPipeError:  # whoever read the output has left
        return 128 + signal.SIGPIPE


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command line; without a command, those that print the overview."""
    whole = parser()
    words = with_aliases_replaced(arguments)
    i = command_index(words)
    texts = _command_texts(whole)
    if not words:
        return argparse.Namespace(run=lambda _: _print_overview(texts), quiet=False, json=False)
    if i is not None and (fault := problem(words[i], texts)):
        if hint := near_flags(words[:i], whole._option_string_actions):  # it may be a flag's value
            whole.error(f"not known here: {' '.join(words[:i])}{hint}")
        whole.exit(2, f"llamactl: {printable(fault)}\n")
    options, more = whole.parse_known_args(words)
    if more:  # words of a prompt may stand behind flags
        if not hasattr(options, "prompt") or any(word.startswith("-") for word in more):
            one = whole if i is None else _commands(whole)[words[i]]
            hint = near_flags(more, one._option_string_actions)
            one.error(f"not known here: {' '.join(more)}{hint}")
        options.prompt += more
    return options


def _commands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    actions = (a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    return dict(next(actions).choices)


def _command_texts(whole: argparse.ArgumentParser) -> dict[str, str]:
    """Return the commands, each with its line of help."""
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: choice.help or "" for choice in action._choices_actions}
    raise AssertionError("no commands")


def _print_overview(texts: dict[str, str]) -> int:
    print(overview(texts), end="")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="llamactl",
        description="Talk to the llamad service.",
        epilog='"llamactl" alone shows first steps, "llamactl COMMAND --help" explains a command.',
    )
    parser.add_argument("--version", action="version", version=f"llamactl {__version__}")
    _add_global_flags(parser, default=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        # The global flags are taken after the command too; absent there, they change nothing.
        one = command.add_parser(commands)
        one.set_defaults(quiet=command in QUIET)
        add_to(one)
        _add_global_flags(one, default=argparse.SUPPRESS)
    return parser


def _add_global_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    group = parser.add_argument_group("of every command")
    group.add_argument(
        "--socket",
        metavar="ADDRESS",
        default=default,
        help="the service's socket, or https://HOST:PORT; several with commas between;"
        " default: $LLAMAD_SOCKET, /run/llamad/llamad.sock",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=False if default is None else default,
        help="print one JSON object a line",
    )


def _fail(error: ClientError, *, as_json: bool) -> int:
    """Say why a command failed; return its exit code."""
    with contextlib.suppress(BrokenPipeError, OutputFailed):
        sys.stdout.flush()  # what was streamed comes first
    print_error(error.reason, error.message, as_json=as_json)
    return exit_code(error)


def _terminated(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
