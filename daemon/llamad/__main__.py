"""The command line of ``llamad``: the service, and the tools that work on model files.

Owns the exit codes: 0 done, 2 usage, 130 interrupted, 1 anything else with one line on stderr. A
tool is imported only when it may be the one asked for, so that the service does not load numpy.
"""

import argparse
import functools
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from llamad import __version__
from llamad.errors import LlamadError
from llamad.help_text import add_command, example_lines
from llamad.printable import printable
from llamad.signals import held
from llamad.streams import OutputFailed, open_streams

# Modules of llamad_tools.commands: add_parser(subparsers).
TOOLS = ("inspect", "convert", "quantize", "imatrix", "fit", "perplexity", "bench")
PRINTING = ("inspect", "fit", "perplexity", "bench")  # nothing is left of them without output

MAX_MESSAGE = 5000  # characters of the line on stderr; a path may have 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    output_is_open = open_streams() if arguments is None else True
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(argv[0] if argv else "").parse_args(argv)
    try:
        if not output_is_open and argv[0] in PRINTING:
            raise OutputFailed("standard output is closed")
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except LlamadError as error:
        print(f"{_journal_prefix()}llamad: {_as_line(error.message)}", file=sys.stderr)
        return 1
    except OutputFailed as error:
        print(f"llamad: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has left: nothing to say, nowhere to say it
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _journal_prefix() -> str:
    """Return what makes the line an error in the journal; nothing where stderr goes elsewhere."""
    from llamad.logs import under_journald

    return "<3>" if under_journald(sys.stderr) else ""


def _as_line(message: str) -> str:
    """Return a message as one line of bounded length."""
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + "..."
    return printable(message)


def _parser(command: str) -> argparse.ArgumentParser:
    """Return the parser for a command; anything that is none gets all of them, for the help."""
    parser = argparse.ArgumentParser(
        prog="llamad",
        description="Serve a language model, locally. The commands but serve work on model files.",
        epilog=example_lines(
            "llamad serve --model model.gguf --socket /tmp/llamad.sock",
            "llamad fit model.gguf",
            "llamad COMMAND --help",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llamad {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    for name in [] if command == "serve" else [command] if command in TOOLS else TOOLS:
        importlib.import_module(f"llamad_tools.commands.{name}").add_parser(commands)
    return parser


HUGE_PAGES = ("auto", "on", "off")


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "serve",
        summary="run the service",
        about="Run the service. Flags go over the configuration file. systemctl runs it as a unit.",
        examples=(
            "llamad serve --model model.gguf --socket /tmp/llamad.sock",
            "llamactl --socket /tmp/llamad.sock ask Hello",
            "llamad serve --check",
        ),
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: /etc/llamad/llamad.toml, if it exists"
    )
    parser.add_argument("--model", dest="model.path", metavar="PATH", help="a .gguf file")
    parser.add_argument(
        "--draft", dest="model.draft", metavar="PATH", help="a small model that guesses for it"
    )
    parser.add_argument("--socket", dest="service.socket", metavar="PATH", help="the Unix socket")
    parser.add_argument(
        "--threads", dest="model.threads", type=int, metavar="N", help="0: one for each CPU"
    )
    parser.add_argument(
        "--ctx-size",
        dest="model.ctx_size",
        type=_number_or_auto,
        metavar="N|auto",
        help="tokens of one sequence; auto: what memory allows",
    )
    parser.add_argument(
        "--kv-type",
        dest="model.kv_type",
        choices=("f16", "q8_0", "q4_0"),
        help="of the KV cache; q8_0 takes half the memory, q4_0 less at a loss",
    )
    parser.add_argument(
        "--huge-pages",
        dest="model.huge_pages",
        choices=HUGE_PAGES,
        help="copy the weights into huge pages; auto: with plenty of memory, not on a small board",
    )
    parser.add_argument(
        "--memory-budget",
        dest="model.memory_budget",
        type=_number_or_auto,
        metavar="BYTES|auto",
        help="what the model, its cache and its scratch may take",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read the configuration, say whether it is valid, and end",
    )
    parser.set_defaults(run=_serve)


def _number_or_auto(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, and not auto") from None


def _serve(options: argparse.Namespace) -> int:
    with held():  # what comes before the service handles signals waits for it
        from llamad import config, daemon, logs

        path: Path | None = options.config
        if path is None and config.DEFAULT_PATH.exists():
            path = config.DEFAULT_PATH
        overrides = {k: v for k, v in vars(options).items() if "." in k and v is not None}
        read = functools.partial(config.load_config, path, overrides)
        settings = read()
        if options.check:
            print(f"{path or 'built-in defaults'}: the configuration is valid")
            return 0
        logs.configure(settings.log.level)
        daemon.serve(settings, model_required="model.path" in overrides, read_again=read)
        return 0


if __name__ == "__main__":
    sys.exit(main())
