"""``llamactl status``: what the service is doing."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from llamactl import summary
from llamactl.commands import Commands
from llamactl.output import bytes_text, counted, print_json, print_line
from llamad_client import AdapterStatus, Client, DraftModel, Job, LoadedModel, MemoryPlan, Status


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    text = "show what the service is doing"
    parser = commands.add_parser("status", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    with Client(arguments.socket) as client:
        status, jobs = client.status(), client.jobs()
    if arguments.json:
        print_json(_object(status, jobs))
    else:
        for name, value in _lines(status, jobs):
            print_line(f"{name + ':':<11} {value}")
    return 0


def _object(status: Status, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the status as JSON has it: its fields, and those of KV cache and jobs together."""
    kv = {
        "blocks_total": status.kv_blocks_total,
        "blocks_free": status.kv_blocks_free,
        "blocks_cached": status.kv_blocks_cached,
    }
    of_jobs = {
        "queued": status.jobs_queued,
        "running": status.jobs_running,
        "stored": status.jobs_stored,
        "finished": status.requests_finished,
        "capacity": status.queue_capacity,
        "slots": status.sequence_slots,
        "classes": summary.by_class(jobs),
    }
    return dataclasses.asdict(status) | {"kv": kv, "jobs": of_jobs}


def _lines(status: Status, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """Return what there is to say, the most important first."""
    lines = [
        ("state", f"{status.state} ({status.detail})"),
        ("uptime", summary.duration(status.uptime_seconds)),
    ]
    if status.model is not None:
        lines += _model(status, status.model, jobs)
    if status.durability:
        lines.append(("not stored", status.durability))
    if heat := summary.heat(status.board):
        lines.append(("board", heat))
    return lines + [("warning", text) for text in summary.warnings(status.board)]


def _model(status: Status, model: LoadedModel, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    lines = [
        ("model", f"{model.name} ({model.architecture}, {bytes_text(model.file_bytes)})"),
        ("file", f"{model.path}, loaded in {model.load_seconds:.2f} s"),
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
        *draft_lines(status.draft),
        *adapter_lines(status.adapters),
    ]
    if speed := summary.speed(status):
        lines.append(("speed", speed))
    return [
        *lines,
        ("requests", summary.queue(status, jobs)),
        ("served", summary.requests(status)),
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


def adapter_lines(adapters: Sequence[AdapterStatus]) -> list[tuple[str, str]]:
    """Return what is said of adapters, if there are some."""
    lines = [("adapter", f"{one.name} is not loaded: {one.fault}") for one in adapters if one.fault]
    loaded = ", ".join(one.name for one in adapters if not one.fault)
    return [("adapters", loaded), *lines] if loaded else lines


def draft_lines(draft: DraftModel | None) -> list[tuple[str, str]]:
    """Return what is said of a draft model, if there is one."""
    if draft is None:
        return []
    if draft.fault:
        return [("draft", f"{draft.name} is not used: {draft.fault}")]
    text = f"{draft.name}, {counted(draft.guessed_tokens, 'guessed token')}"
    if draft.guessed_tokens:
        text += f", {100 * draft.accepted_tokens // draft.guessed_tokens} % of them right"
    if draft.paused:
        text += "; it rests, because they cost more than they save"
    return [("draft", text)]


def _memory(status: Status) -> list[tuple[str, str]]:
    plan, model = status.memory, status.model
    if plan is None or model is None:
        return []
    text = f"{bytes_text(plan.resident_bytes)} of the file stay in memory"
    lines = [("memory", f"{text}, {bytes_text(model.locked_bytes)} locked")]
    if plan.token_read_bytes:
        lines.append(("disk", _disk(model, plan)))
    return lines


def _disk(model: LoadedModel, plan: MemoryPlan) -> str:
    """Say what is read from the disk for a token, and how fast it was."""
    n_bytes = model.bytes_read_per_token or plan.token_read_bytes
    text = f"{bytes_text(n_bytes)} are read for every token"
    if model.expert_uses:
        text += f", {100 * model.expert_hits // model.expert_uses} % of the experts were in memory"
    if model.disk_read_bytes_per_second:
        text += (
            f" at {bytes_text(int(model.disk_read_bytes_per_second))}/s,"
            f" {100 * model.share_of_disk_time_hidden:.0f} % of the time hidden behind computing"
        )
    return text
