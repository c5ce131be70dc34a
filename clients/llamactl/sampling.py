"""The generation flags that ``ask`` and ``chat`` share, and the client options they mean."""

import argparse
import json
from typing import Any, cast

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
    (
        "--mirostat",
        int,
        "V",
        "Hold the surprise of tokens near a target, by version 1 or 2; 0 is off",
    ),
    ("--mirostat-tau", float, "BITS", "The target of mirostat, in bits a token"),
    ("--mirostat-eta", float, "X", "How fast mirostat learns"),
    (
        "--dry-multiplier",
        float,
        "X",
        "Taken from the logit of a token that would lengthen a repetition; 0 is off",
    ),
    (
        "--dry-base",
        float,
        "X",
        "DRY takes this many times as much for each token more of the repetition",
    ),
    (
        "--dry-allowed-length",
        int,
        "N",
        "DRY lets repetitions that are shorter than this many tokens be",
    ),
    (
        "--dry-penalty-last-n",
        int,
        "N",
        "In how many tokens DRY looks for repetitions; 0 is off, -1 the whole context",
    ),
    (
        "--xtc-probability",
        float,
        "P",
        "How often XTC drops all likely tokens but the least likely of them; 0 is off",
    ),
    ("--xtc-threshold", float, "P", "To XTC a token is likely that has this probability"),
    (
        "--top-n-sigma",
        float,
        "N",
        "Drop tokens whose logit is more standard deviations below the greatest; 0 is off",
    ),
    (
        "--dynatemp-range",
        float,
        "T",
        "Let the temperature be so much lower or higher, where the model is sure or not; 0 is off",
    ),
    (
        "--dynatemp-exponent",
        float,
        "X",
        "The power of the entropy that the dynamic temperature follows",
    ),
    ("--min-tokens", int, "N", "the answer does not end by itself before this many tokens"),
    ("--seed", int, "S", "the same seed and request give the same text"),
)
_SWITCHES = (
    ("--ignore-eos", "the answer never ends by itself"),
    ("--penalize-prompt", "count the prompt's tokens as recent, too"),
    ("--loop-guard", "end an answer that only repeats itself; on where no sampling is given"),
)
SWITCHES = tuple(flag.removeprefix("--").replace("-", "_") for flag, _ in _SWITCHES)
_DESTINATIONS = (*(flag.removeprefix("--").replace("-", "_") for flag, *_ in _FLAGS), *SWITCHES)
_LISTS = ("dry_sequence_breakers", "samplers")
_QUEUE = ("priority", "time_to_live_seconds", "on_behalf_of")


def add_flags(
    parser: argparse.ArgumentParser, *, with_model: bool = True, with_answer: bool = True
) -> None:
    """Add the flags to a command. with_model: -m too; with_answer: those of who sees the answer."""
    if with_model:
        parser.add_argument("-m", "--model", metavar="MODEL", help="default: the loaded one")
    if with_answer:
        parser.add_argument(
            "-c",
            "--continue",
            dest="go_on",
            action="store_true",
            help="go on with the last conversation",
        )
    parser.add_argument(
        "--adapter",
        type=adapter,
        metavar="NAME[:SCALE]",
        help="go through this adapter (LoRA) of the loaded model",
    )
    parser.add_argument("-s", "--system", metavar="SYSTEM", help="the system message")
    parser.add_argument(
        "-n", "--max-tokens", type=int, metavar="MAX_TOKENS", help="end after this many tokens"
    )
    parser.add_argument(
        "--stop", action="append", metavar="S", help="end at this text; may be repeated"
    )
    parser.add_argument(
        "--priority", choices=("interactive", "normal", "batch"), help="who goes first"
    )
    parser.add_argument(
        "--ttl",
        type=float,
        dest="time_to_live_seconds",
        metavar="SECONDS",
        help="give up when the answer has not begun by then",
    )
    parser.add_argument(
        "--on-behalf-of", metavar="USER", help="ask for this user; for gateways and administrators"
    )
    if with_answer:
        parser.add_argument(
            "--stats", action="store_true", help="print timings and the seed to standard error"
        )
    _add_chat_flags(parser.add_argument_group("chat template and context"))
    _add_sampling_flags(
        parser.add_argument_group(
            "sampling", "How a token is drawn; what is not given is as llamactl show says."
        )
    )


def _add_chat_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--context-full",
        choices=("refuse", "drop-oldest"),
        help="what becomes of a chat that is longer than the context",
    )
    group.add_argument(
        "--think",
        type=_think,
        metavar="on|off|low|medium|high|N",
        help="whether the model thinks first, how hard, or for at most N tokens",
    )
    group.add_argument(
        "--template-arg",
        action="append",
        type=_template_argument,
        metavar="NAME=JSON",
        help="an argument of the chat template; may be repeated",
    )


def _add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    for flag, kind, metavar, text in _FLAGS:
        group.add_argument(flag, type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--dry-sequence-breaker",
        action="append",
        dest="dry_sequence_breakers",
        metavar="TEXT",
        help="no repetition of DRY reaches across this text; may be repeated",
    )
    group.add_argument(
        "--samplers",
        type=_names,
        metavar="NAME,NAME",
        help="the samplers that take part, in their order",
    )
    for name, text in _SWITCHES:
        group.add_argument(name, action=argparse.BooleanOptionalAction, help=text)


def _names(text: str) -> list[str]:
    """Return names that commas or, as llama.cpp takes them, semicolons part."""
    return text.replace(";", ",").split(",")


def template_arguments(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Return the arguments of the template that were given; None for none."""
    return dict(arguments.template_arg or ()) or None


def _think(text: str) -> dict[str, Any]:
    """Return the options that on, off, an effort or a number of tokens mean."""
    if text in ("on", "off"):
        return {"thinking": text == "on"}
    if text in ("low", "medium", "high"):
        return {"thinking": True, "thinking_effort": text}
    if not text.isdecimal() or not 1 <= int(text) < 1 << 32:
        words = "on, off, low, medium, high"
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is neither {words} nor a number of tokens")
    return {"thinking": True, "thinking_budget": int(text)}


def adapter(text: str) -> dict[str, Any]:
    """Return the options that NAME or NAME:SCALE means."""
    name, colon, scale = text.partition(":")
    try:
        return {"adapter": name} | ({"adapter_scale": float(scale)} if colon else {})
    except ValueError:
        message = f"{text[:60]!r} is no NAME:SCALE, a scale is a number"
        raise argparse.ArgumentTypeError(message) from None


def _template_argument(text: str) -> tuple[str, Any]:
    """Return name and value of NAME=JSON."""
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("there is no =")
        return name, json.loads(value)
    except (ValueError, RecursionError) as error:
        message = f"{text[:60]!r} is no NAME=JSON: {error}"
        raise argparse.ArgumentTypeError(message) from None


def client_options(arguments: argparse.Namespace) -> Options:
    """Return the options that were given; the service has defaults for the others."""
    names = ("model", "max_tokens", "stop", "context_full", *_LISTS, *_QUEUE, *_DESTINATIONS)
    given = {name: getattr(arguments, name) for name in names}
    given["template_arguments"] = template_arguments(arguments)
    given |= arguments.think or {}
    given |= arguments.adapter or {}
    return cast(Options, {name: value for name, value in given.items() if value is not None})


def types() -> dict[str, type]:
    """Return the type of each sampling option, by the name that the service gives it."""
    kinds = (kind for _, kind, *_ in _FLAGS)
    return dict(zip(_DESTINATIONS, kinds, strict=False))
