"""The command line of ``llamactl``: global flags, dispatch, exit codes.

Exit codes: 0 done, 2 usage, 3 service not reachable, 4 refused, 5 failed, 130 interrupted (143 by
SIGTERM). A broken pipe ends it quietly.
"""

import argparse
import contextlib
import io
import json
import os
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
from llamactl.output import printable
from llamad_client import ClientError, Refused, ServiceUnreachable

COMMANDS = (
    ask, chat, status, models, pull, use, unload, rm, jobs, cancel, tokenize, health, version,
)  # fmt: skip

EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4
EXIT_FAILED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except ClientError as error:
        return _fail(error, as_json=options.json)
    except BrokenPipeError:  # whoever read the output has left
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt gets a line of its own
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamactl", description="Talk to the llamad service.")
    _add_global_flags(parser, default=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        # The global flags are taken after the command too; absent there, they change nothing.
        _add_global_flags(command.add_parser(commands), default=argparse.SUPPRESS)
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
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()  # what was streamed comes first
    if as_json:
        line = {"type": "error", "reason": error.reason, "message": error.message}
        print(json.dumps(line), file=sys.stderr)
    else:
        print(f"llamactl: {printable(error.message, sys.stderr)}", file=sys.stderr)
    if isinstance(error, ServiceUnreachable):
        return EXIT_UNREACHABLE
    return EXIT_REFUSED if isinstance(error, Refused) else EXIT_FAILED


def _terminated(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
