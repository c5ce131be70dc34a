"""``llamactl status``: what the service is doing."""

import argparse
import dataclasses
from typing import Any

from llamactl.commands import Commands
from llamactl.output import bytes_text, counted, print_json, print_line
from llamad_client import Client, LoadedModel, Status


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
        print_json(_object(status))
    else:
        for name, value in _lines(status):
            print_line(f"{name + ':':<11} {value}")
    return 0


def _object(status: Status) -> dict[str, Any]:
    """Return the status as JSON has it: its fields, and the blocks of the KV cache together."""
    kv = {
        "blocks_total": status.kv_blocks_total,
        "blocks_free": status.kv_blocks_free,
        "blocks_cached": status.kv_blocks_cached,
    }
    return dataclasses.asdict(status) | {"kv": kv}


def _lines(status: Status) -> list[tuple[str, str]]:
    lines = [
        ("state", f"{status.state} ({status.detail})"),
        ("uptime", f"{status.uptime_seconds:.0f} s"),
    ]
    model = status.model
    if model is None:
        return lines
    return [
        *lines,
        ("model", f"{model.name} ({model.architecture}, {bytes_text(model.file_bytes)})"),
        ("file", f"{model.path}, {bytes_text(model.locked_bytes)} locked"),
        ("context", f"{model.n_ctx} tokens (trained with {model.n_ctx_train})"),
        *_memory(status),
        (
            "KV cache",
            f"{model.kv_type}, {bytes_text(status.kv_bytes)},"
            f" {status.kv_blocks_free}/{status.kv_blocks_total} blocks free,"
            f" {status.kv_blocks_cached} of them cached",
        ),
        *_prefix(status),
        ("engine", f"{status.kernel_set}, {counted(status.threads, 'thread')}"),
        ("running", f"{status.jobs_running} of {status.sequence_slots}"),
        ("queued", f"{status.jobs_queued} of {status.queue_capacity}"),
        (
            "served",
            f"{counted(status.requests_finished, 'request')},"
            f" {counted(status.prompt_tokens, 'prompt token')},"
            f" {counted(status.generated_tokens, 'generated token')}",
        ),
        ("loaded in", f"{model.load_seconds:.2f} s"),
    ]


def _prefix(status: Status) -> list[tuple[str, str]]:
    prefix = status.prefix
    if prefix is None or not prefix.hits:
        return []
    return [
        (
            "reused",
            f"{counted(prefix.tokens_reused, 'prompt token')} for {prefix.hits} of"
            f" {counted(prefix.hits + prefix.misses, 'prompt')}",
        )
    ]


def _memory(status: Status) -> list[tuple[str, str]]:
    plan, model = status.memory, status.model
    if plan is None or model is None:
        return []
    lines = [("memory", f"{bytes_text(plan.resident_bytes)} of the file stay in memory")]
    if model.streamed_bytes:
        lines.append(("disk", _disk(model)))
    if model.seconds_per_token:
        lines.append(("a token", f"takes {model.seconds_per_token:.3g} s"))
    return lines


def _disk(model: LoadedModel) -> str:
    """Say what is read from the disk for a token, and how fast it was."""
    text = f"{bytes_text(model.bytes_read_per_token)} are read for every token"
    if model.disk_read_bytes_per_second:
        text += (
            f" at {bytes_text(int(model.disk_read_bytes_per_second))}/s,"
            f" {100 * model.share_of_disk_time_hidden:.0f} % of the time hidden behind computing"
        )
    return text
