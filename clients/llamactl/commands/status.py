"""``llamactl status``: what the service is doing."""

import argparse

from llamactl.commands import Commands
from llamactl.output import as_dict, bytes_text, print_json, printable
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Client


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "show what the service is doing"
    parser = commands.add_parser("status", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    with Client(arguments.socket) as client:
        status = client.status()
    if arguments.json:
        print_json(as_dict(status))
    else:
        for name, value in _lines(status):
            print(printable(f"{name + ':':<11} {value}"))
    return 0


def _lines(status: pb.GetStatusResponse) -> list[tuple[str, str]]:
    state = pb.GetStatusResponse.State.Name(status.state).removeprefix("STATE_").lower()
    lines = [
        ("state", f"{state} ({status.detail})"),
        ("uptime", f"{status.uptime_seconds:.0f} s"),
    ]
    if not status.HasField("model"):
        return lines
    model = status.model
    return [
        *lines,
        ("model", f"{model.name} ({model.architecture}, {bytes_text(model.file_bytes)})"),
        ("file", f"{model.path}, {bytes_text(model.locked_bytes)} locked"),
        ("context", f"{model.n_ctx} tokens (trained with {model.n_ctx_train})"),
        (
            "KV cache",
            f"{model.kv_type}, {bytes_text(status.kv_bytes)},"
            f" {status.kv_blocks_free}/{status.kv_blocks_total} blocks free",
        ),
        ("engine", f"{status.kernel_set}, {status.threads} threads"),
        ("running", f"{status.jobs_running} of {status.sequence_slots}"),
        ("queued", f"{status.jobs_queued} of {status.queue_capacity}"),
        (
            "served",
            f"{status.requests_finished} requests, {status.prompt_tokens} prompt tokens,"
            f" {status.generated_tokens} generated tokens",
        ),
        ("loaded in", f"{model.load_seconds:.2f} s"),
    ]
