"""``llamactl ask``: one question, the answer streamed to stdout."""

import argparse
import functools
import sys
from collections.abc import Mapping
from typing import Any

from llamactl import answer_format, sampling
from llamactl.answer import show
from llamactl.chat.kept import open_conversation
from llamactl.commands import Commands
from llamactl.names import service_name
from llamactl.output import print_note
from llamactl.readiness import Waiting, wait_until_ready
from llamactl.standard_input import read_prompt
from llamactl.tools_file import read_tools
from llamad_client import Client
from llamad_client.request import Options

# What a command that has no such flags says of a question.
NO_QUESTION_FLAGS: Mapping[str, Any] = {
    "raw": False,
    "parse_special": False,
    "tools": None,
    "logprobs": None,
    **answer_format.NO_FLAGS,
}


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "ask",
        usage="%(prog)s [FLAG]... [PROMPT]...",
        help="ask one question",
        description="Ask one question. What comes from a pipe or a file joins the prompt, after an"
        " empty line. A file that something else reads, as a loop does, is left alone; in a loop"
        " that reads a pipe, --no-stdin is needed.",
    )
    sampling.add_flags(parser)
    parser.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="with --json: tell how likely each token was, and the N (0..20) likeliest ones",
    )
    add_question_flags(parser)
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def add_question_flags(parser: argparse.ArgumentParser) -> None:
    """Add the prompt and the flags that say what it is; ``submit`` has them, too."""
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is")
    parser.add_argument(
        "--parse-special", action="store_true", help="with --raw: take control tokens as such"
    )
    parser.add_argument(
        "--tools",
        type=read_tools,
        metavar="FILE",
        help="what the model may call: a JSON list of name, description and parameters; a call is"
        " written as a line of JSON",
    )
    answer_format.add_flags(parser)
    add_input_flags(parser)
    parser.add_argument("prompt", nargs="*", metavar="PROMPT")


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``run`` has, too."""
    parser.add_argument("--no-stdin", action="store_true", help="do not read standard input")
    parser.add_argument(
        "--wait", action="store_true", help="wait for the service and its model, at most 10 minutes"
    )


def read_question(arguments: argparse.Namespace) -> str:
    """Return the prompt of arguments and standard input; exit with 2 for flags that do not fit."""
    if arguments.raw and arguments.system is not None:
        arguments.usage_error("--raw has no chat template that could take --system")
    if arguments.parse_special and not arguments.raw:
        arguments.usage_error("--parse-special is for --raw: a message's text is never a token")
    of_chat = (arguments.template_arg, arguments.think, arguments.context_full, arguments.tools)
    if arguments.raw and any(of_chat):
        arguments.usage_error(
            "--raw has no chat template and no turns: no --template-arg, --think, --context-full,"
            " --tools"
        )
    if arguments.closed_objects and arguments.schema is None:
        arguments.usage_error("--closed-objects is for --schema, which names members")
    prompt = read_prompt(
        " ".join(arguments.prompt),
        raw=arguments.raw,
        no_stdin=arguments.no_stdin,
        as_json=arguments.json,
    )
    if not prompt:
        arguments.usage_error("no prompt: give one as an argument or on standard input")
    return prompt


def question_options(arguments: argparse.Namespace) -> Options:
    """Return the options of a question: those of ``sampling``, its tools and its format."""
    options = sampling.client_options(arguments)
    if (wanted := answer_format.response_format(arguments)) is not None:
        options["response_format"] = wanted
    if arguments.tools is not None:
        options["tools"] = arguments.tools
    return options


def run(arguments: argparse.Namespace) -> int:
    """Ask, and show the answer."""
    if arguments.raw and arguments.go_on:
        arguments.usage_error("--raw has no turns: no --continue")
    if arguments.logprobs is not None and not arguments.json:
        arguments.usage_error("--logprobs is for --json: a text has no place for numbers")
    prompt = read_question(arguments)
    options = question_options(arguments)
    if arguments.logprobs is not None:
        options["logprobs"] = arguments.logprobs
    with Client(arguments.socket) as client:
        if arguments.wait:
            wait(client, as_json=arguments.json)
        if "model" in options:
            options["model"] = service_name(client, options["model"])
        shown = functools.partial(
            show, as_json=arguments.json, stats=arguments.stats, max_tokens=arguments.max_tokens
        )
        if arguments.raw:
            shown(client.generate(prompt, parse_special=arguments.parse_special, **options))
            return 0
        opened = open_conversation(arguments.system, go_on=arguments.go_on)
        _note(opened.note, as_json=arguments.json)
        conversation = opened.conversation
        completion = client.chat(conversation.messages(prompt), **options)
        text = shown(completion)
    if completion.result is not None:
        conversation.leave_out(completion.result.dropped_messages)
    conversation.add(prompt, text)
    if arguments.go_on or (sys.stdout.isatty() and not arguments.json):
        _note(opened.keeper.keep(conversation), as_json=arguments.json)
    return 0


def _note(text: str, *, as_json: bool) -> None:
    if text:
        print_note(text, as_json=as_json)


def wait(client: Client, *, as_json: bool, needs_model: bool = True) -> None:
    """Wait until the service can answer, or at least change its model; tell what is waited for."""
    waiting = Waiting(as_json=as_json)
    try:
        wait_until_ready(client.status, waiting.tell, needs_model=needs_model)
    finally:
        waiting.erase()
