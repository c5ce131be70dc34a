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

from llamactl.commands import (
    ask,
    cancel,
    chat,
    health,
    jobs,
    models,
    pull,
    rm,
    status,
    tokenize,
    unload,
    use,
    version,
)
from llamactl.exit_codes import exit_code
from llamactl.output import print_error
from llamactl.streams import OutputFailed, output_is_closed
from llamad_client import ClientError, Failed

COMMANDS = (
    ask, chat, status, models, pull, use, unload, rm, jobs, cancel, tokenize, health, version,
)  # fmt: skip

QUIET = (pull, use, unload, rm, cancel, health)  # worth running where nobody sees the output


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run(parser().parse_args(arguments))
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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="llamactl", description="Talk to the llamad service.")
    _add_global_flags(parser, default=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        # The global flags are taken after the command too; absent there, they change nothing.
        one = command.add_parser(commands)
        one.set_defaults(quiet=command in QUIET)
        _add_global_flags(one, default=argparse.SUPPRESS)
    return parser


def _add_global_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help="the service's socket; default: $LLAMAD_SOCKET, /run/llamad/llamad.sock",
    )
    parser.add_argument(
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
