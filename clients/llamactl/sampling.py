"""The generation flags that ``ask`` and ``chat`` share, and the client options they mean."""

import argparse
from typing import cast

from llamad_client.request import Options

_FLAGS = (  # flag, type, metavar, help; the words are those of the daemon's table, tests compare
    ("--temperature", float, "T", "0 always takes the likeliest token"),
    ("--top-k", int, "K", "Draw from the k likeliest tokens; 0 is off"),
    (
        "--top-p",
        float,
        "P",
        "Draw from the likeliest tokens that together have this probability; 1 is off",
    ),
    ("--min-p", float, "P", "Drop tokens less likely than this times the likeliest; 0 is off"),
    ("--typical-p", float, "P", "Locally typical sampling; 1 is off"),
    ("--repeat-penalty", float, "R", "Above 1, make recent tokens less likely; 1 is off"),
    (
        "--repeat-last-n",
        int,
        "N",
        "How many tokens are recent for the three penalties; 0 is off, -1 the whole context",
    ),
    ("--presence-penalty", float, "P", "Taken from the logit of every recent token; 0 is off"),
    (
        "--frequency-penalty",
        float,
        "P",
        "Taken from the logit of a recent token once for each time it occurs; 0 is off",
    ),
    ("--seed", int, "S", "the same seed and request give the same text"),
)
_DESTINATIONS = tuple(flag.removeprefix("--").replace("-", "_") for flag, *_ in _FLAGS)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a command."""
    parser.add_argument("-m", "--model", metavar="MODEL", help="default: the loaded one")
    parser.add_argument("-s", "--system", metavar="SYSTEM", help="the system message")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="MAX_TOKENS")
    for flag, kind, metavar, text in _FLAGS:
        parser.add_argument(flag, type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--stop", action="append", metavar="S", help="end at this text; may be repeated"
    )
    parser.add_argument("--priority", choices=("interactive", "normal", "batch"))
    parser.add_argument(
        "--stats", action="store_true", help="print timings and the seed to standard error"
    )


def client_options(arguments: argparse.Namespace) -> Options:
    """Return the options that were given; the service has defaults for the others."""
    names = ("model", "max_tokens", "stop", "priority", *_DESTINATIONS)
    given = {name: getattr(arguments, name) for name in names}
    return cast(Options, {name: value for name, value in given.items() if value is not None})


def types() -> dict[str, type]:
    """Return the type of each sampling option, by the name that the service gives it."""
    kinds = (kind for _, kind, *_ in _FLAGS)
    return dict(zip(_DESTINATIONS, kinds, strict=True))
