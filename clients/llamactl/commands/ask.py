"""``llamactl ask``: one question, the answer streamed to stdout."""

import argparse
import sys

from llamactl import sampling
from llamactl.answer import show
from llamactl.commands import Commands
from llamad_client import Client, Refused

MAX_PROMPT_BYTES = 1 << 20  # the service's limit; reading more of an endless input has no point


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "ask",
        help="ask one question",
        description="Ask one question. Standard input joins the prompt, after an empty line.",
    )
    sampling.add_flags(parser)
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is")
    parser.add_argument(
        "--parse-special", action="store_true", help="with --raw: take control tokens as such"
    )
    parser.add_argument("prompt", nargs="*", metavar="PROMPT")
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Ask, and show the answer."""
    if arguments.raw and arguments.system is not None:
        arguments.usage_error("--raw has no chat template that could take --system")
    if arguments.parse_special and not arguments.raw:
        arguments.usage_error("--parse-special is for --raw: a message's text is never a token")
    if arguments.raw and (sampling.template_arguments(arguments) or arguments.context_full):
        arguments.usage_error(
            "--raw has no chat template and no turns: no --template-arg, --think, --context-full"
        )
    prompt = _prompt(arguments)
    if not prompt:
        arguments.usage_error("no prompt: give one as an argument or on standard input")
    options = sampling.client_options(arguments)
    with Client(arguments.socket) as client:
        if arguments.raw:
            special = arguments.parse_special
            completion = client.generate(prompt, parse_special=special, **options)
        else:
            messages = [{"role": "user", "content": prompt}]
            if arguments.system is not None:
                messages.insert(0, {"role": "system", "content": arguments.system})
            completion = client.chat(messages, **options)
        show(
            completion,
            as_json=arguments.json,
            stats=arguments.stats,
            max_tokens=arguments.max_tokens,
        )
    return 0


def _prompt(arguments: argparse.Namespace) -> str:
    """Return the arguments and what stands on standard input, unless that is a terminal."""
    words = " ".join(arguments.prompt)
    if sys.stdin.isatty():
        return words
    try:
        data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise Refused("INVALID_PROMPT", f"prompt: standard input: {error.strerror}") from None
    if len(data) > MAX_PROMPT_BYTES:
        message = f"standard input has more than {MAX_PROMPT_BYTES} bytes"
        raise Refused("INVALID_PROMPT", f"prompt: {message}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"standard input is no valid UTF-8 at byte {error.start}"
        raise Refused("INVALID_PROMPT", f"prompt: {message}") from None
    if not arguments.raw:
        text = text.rstrip("\n")
    return "\n\n".join(part for part in (words, text) if part)
