"""``llamad bench``: prefill and decode speed of a model on this machine, through the engine alone.

Owns the command line and what people read; ``benchmark.py`` measures, ``report.py`` has the page.
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from llamad.board import Files
from llamad.config import MAX_THREADS
from llamad.engine.bindings import KV_TYPES
from llamad.help_text import add_command
from llamad.printable import printable
from llamad.sizes import size
from llamad_tools.benchmark import BenchResult, measure
from llamad_tools.commands.arguments import MAX_COUNT, memory_bytes, number
from llamad_tools.draft_benchmark import DraftResult, measure_draft
from llamad_tools.report import Report

ABOUT = """
Measure how fast a model reads a prompt (prefill) and writes an answer (decode) on this machine,
through the engine alone, without the service.

The prompt is made of random tokens, always the same, and the answer goes on behind an end token.
With -b several sequences are decoded together, each behind a prompt of 16 tokens.

Memory is planned as the service plans it: what of the model does not fit --memory-budget is read
from the disk for every token. --report prints one page about this machine and what it reaches.
--draft then lets a small model of the same vocabulary guess for it, in an answer to a sentence.
"""
EXAMPLES = (
    "llamad bench model.gguf",
    "llamad bench model.gguf -t 4 -p 128 -n 32",
    "llamad bench model.gguf -b 4 --json",
    "llamad bench model.gguf --memory-budget 3G",
    "llamad bench large.gguf --memory-budget 3G --draft small.gguf",
    "llamad bench model.gguf --report > my-board.txt",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``llamad bench``."""
    threads, count = number(1, MAX_THREADS), number(1, MAX_COUNT)
    parser = add_command(
        subparsers,
        "bench",
        summary="measure prefill and decode speed of a model",
        about=ABOUT,
        examples=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="a GGUF file")
    parser.add_argument(
        "-t",
        "--threads",
        type=threads,
        default=len(os.sched_getaffinity(0)),
        help="compute threads (default: one a core)",
    )
    parser.add_argument("-p", "--prompt", type=count, default=512, help="prompt tokens (512)")
    parser.add_argument("-n", "--decode", type=count, default=64, help="decoded tokens (64)")
    parser.add_argument(
        "-b",
        "--sequences",
        type=count,
        default=1,
        help="sequences decoded together (1)",
    )
    parser.add_argument(
        "--kv-type", choices=sorted(KV_TYPES), default="f16", help="of the KV cache (f16)"
    )
    parser.add_argument(
        "--huge-pages",
        choices=("auto", "on", "off"),
        default="auto",
        help="copy the weights into huge pages first (auto: as the service would)",
    )
    parser.add_argument(
        "--memory-budget",
        metavar="BYTES",
        type=budget,
        help="memory for a service in all, for example 3G, or auto: what this machine has (auto)",
    )
    parser.add_argument(
        "--draft", metavar="FILE", type=Path, help="a small model that guesses: measure it, too"
    )
    parser.add_argument(
        "--report", action="store_true", help="print a page about this machine to send to others"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def budget(text: str) -> int | None:
    """Return the bytes of a memory budget; None is auto."""
    return None if text == "auto" else memory_bytes(text)


def run(args: argparse.Namespace) -> int:
    """Measure, then print a table, a page or one JSON object."""
    machine = Files()
    before = machine.heat()
    result = measure(
        str(args.model),
        args.threads,
        args.prompt,
        args.decode,
        args.sequences,
        args.kv_type,
        huge_pages=args.huge_pages,
        memory_budget=args.memory_budget,
    )
    report = Report(machine.board(), before, machine.heat(), result) if args.report else None
    draft = None
    if args.draft is not None:
        draft = measure_draft(
            str(args.model),
            str(args.draft),
            n_threads=args.threads,
            n_tokens=max(2, args.decode),
            kv_type=args.kv_type,
            budget=args.memory_budget,
        )
    if args.json:
        told = asdict(result) if report is None else report.as_json()
        print(json.dumps(told if draft is None else {**told, "draft": asdict(draft)}))
    else:
        print(as_text(result) if report is None else report.as_text())
        if draft is not None:
            print(draft_text(draft))
    return 0


def as_text(r: BenchResult) -> str:
    """Return a result for people: speeds in rows, then what they mean."""
    together = f"{r.decode_tokens_per_second / r.sequences:.2f} each" if r.sequences > 1 else ""
    pages = "in huge pages" if r.huge_pages else "as mapped"
    rate = r.weight_bytes_per_step * r.decode_tokens_per_second / r.sequences
    lines = [
        f"{printable(r.model)}: {size(r.model_bytes)}, {pages}, loaded in {r.load_seconds:.2f} s",
        f"{_count(r.threads, 'thread')}, kernels {r.cpu}, KV cache {r.kv_type}",
        "",
        f"{'':8}{'tokens':>8}{'sequences':>11}{'tokens/s':>11}{'ms a step':>11}",
        f"{'prefill':8}{r.prompt_tokens:>8}{1:>11}{r.prefill_tokens_per_second:>11.2f}",
        f"{'decode':8}{r.decode_tokens:>8}{r.sequences:>11}{r.decode_tokens_per_second:>11.2f}"
        f"{1000 * r.sequences / r.decode_tokens_per_second:>11.2f}   {together}".rstrip(),
        "",
        f"A decode step reads {size(r.weight_bytes_per_step)} of weights: {size(rate)}/s,"
        f" {100 * r.decode_share_of_bandwidth:.0f} % of the",
        f"{size(r.read_bandwidth_bytes_per_second)}/s that these threads can read,"
        " which is the limit of a sequence alone.",
    ]
    if r.decode_beats_reading:
        lines += [
            "(Bare reading was slower than that: another program was in the way, or the",
            "processor's caches hold much of these weights.)",
        ]
    lines.append(
        f"Memory: {size(r.peak_rss_bytes)} at most, {size(r.locked_bytes)} of the model locked."
        f" Read from the disk for a token: {size(r.bytes_read_per_token)}."
    )
    return "\n".join([*lines, *_streaming(r)])


def draft_text(r: DraftResult) -> str:
    """Return what a draft saves, for people."""
    right = 100 * r.accepted_tokens / r.guessed_tokens if r.guessed_tokens else 0.0
    lines = [
        "",
        f"With {printable(r.draft)} as a draft, which takes {size(r.draft_bytes)}:"
        f" {r.tokens_per_second:.2f} tokens/s instead of {r.tokens_per_second_alone:.2f},",
        f"{r.tokens_per_second / r.tokens_per_second_alone:.2f} times;"
        f" {right:.0f} % of {_count(r.guessed_tokens, 'guessed token')} right.",
    ]
    if not r.same_tokens:
        lines.append("The two answers differ, which is a bug.")
    return "\n".join(lines)


def _streaming(r: BenchResult) -> list[str]:
    """Return what is told of a model that does not fit."""
    if r.share_of_disk_speed is None or r.share_of_disk_time_hidden is None:
        return []
    lines = [
        f"Streamed: {size(r.streamed_bytes)} in every step, {100 * r.share_of_disk_speed:.0f} % of"
        f" the disk's {size(r.disk_speed_bytes_per_second or 0)}/s;",
        f"{100 * r.share_of_disk_time_hidden:.0f} % of the reading is hidden behind computing.",
    ]
    if r.expert_hit_rate is not None:
        lines.append(
            f"Experts: {100 * r.expert_hit_rate:.0f} % of those that tokens chose were in memory;"
            f" {size(r.bytes_read_per_token)} were read a token."
        )
    if r.expert_guess_rate is not None:
        lines.append(
            f"{100 * r.expert_guess_rate:.0f} % of the others that the next layer was guessed to"
            " choose it did choose."
        )
    return lines


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
