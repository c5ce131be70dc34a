"""``llamactl submit``: queue a question that the service answers whether or not anybody waits."""

import argparse
import dataclasses

from llamactl import sampling
from llamactl.commands import Commands
from llamactl.commands.ask import add_question_flags, question_options, read_question, wait
from llamactl.names import service_name
from llamactl.output import print_json, print_line
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "submit",
        usage="%(prog)s [FLAG]... [PROMPT]...",
        help="queue a question and print its job",
        description="Queue a question and print the id of its job. The service answers it without"
        " this command, and goes on after a restart; llamactl watch and result show the answer.",
    )
    sampling.add_flags(parser, with_answer=False)
    add_question_flags(parser)
    parser.add_argument(
        "--key",
        metavar="KEY",
        type=_key,
        default=None,
        help="the same key again is the same job; nothing new is queued",
    )
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def _key(text: str) -> str:
    """Return a key; an empty one, of a variable that is not set, would queue anew each time."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Submit the question; print the id of the job."""
    prompt = read_question(arguments)
    options = question_options(arguments)
    messages = [{"role": "user", "content": prompt}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    with Client(arguments.socket) as client:
        if arguments.wait:
            wait(client, as_json=arguments.json)
        if "model" in options:
            options["model"] = service_name(client, options["model"])
        submitted = client.submit(
            prompt if arguments.raw else messages,
            idempotency_key=arguments.key or "",
            parse_special=arguments.parse_special,
            **options,
        )
    if arguments.json:
        print_json(dataclasses.asdict(submitted))
    else:
        print_line(submitted.job.id)
    return 0
