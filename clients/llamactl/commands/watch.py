"""``llamactl watch``: the answer of a submitted job as it comes, from any token on."""

import argparse

from llamactl.answer import show
from llamactl.commands import Commands
from llamad_client import Client, Failed


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare ``watch``."""
    parser = commands.add_parser(
        "watch",
        help="show the answer of a submitted job as it comes",
        description="Show the answer of a submitted job from its beginning, or from a token on, and"
        " what comes until it ends. Ctrl-C ends the watching, and not the job.",
    )
    parser.add_argument(
        "--from",
        dest="from_token",
        type=token_count,
        default=0,
        metavar="N",
        help="leave out the text of the first N tokens; --json tells the tokens of each piece",
    )
    add_flags(parser)
    parser.set_defaults(run=run, wait=True)
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what ``result`` has, too."""
    parser.add_argument(
        "--stats", action="store_true", help="print timings and the seed to standard error"
    )
    parser.add_argument("id", metavar="ID", help="as llamactl submit and jobs show it")


def token_count(text: str) -> int:
    """Return a number of tokens."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r} is no number of tokens, 0..{(1 << 32) - 1}"
        )
    return number


def run(arguments: argparse.Namespace) -> int:
    """Show the answer."""
    with Client(arguments.socket) as client:
        if not arguments.wait:
            _check_ended(client, arguments.id)
        completion = client.resume(arguments.id, from_token=arguments.from_token)
        show(completion, as_json=arguments.json, stats=arguments.stats, submitted=True)
    return 0


def _check_ended(client: Client, job_id: str) -> None:
    """Raise Failed for a job whose answer is not whole."""
    job = client.job(job_id)
    if job.state in ("queued", "prefill", "decode"):
        raise Failed(
            "NOT_ENDED",
            f"job {job.id} has {job.completion_tokens} tokens of its answer and goes on:"
            f" llamactl watch {job.id} shows it as it comes",
        )
