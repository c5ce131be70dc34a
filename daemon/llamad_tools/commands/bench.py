"""``llamad bench``: prefill and decode speed of a model on this machine, through the engine alone.

Prompt ids are pseudo-random (seeded), end-of-generation tokens are ignored, decoding is greedy. It
reports; it asserts nothing.
"""

import argparse
import json
import os
from dataclasses import asdict

from llamad.config import MAX_THREADS
from llamad.engine.bindings import KV_TYPES
from llamad_tools.benchmark import measure
from llamad_tools.commands.arguments import MAX_COUNT, number


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``llamad bench``."""
    threads, count = number(1, MAX_THREADS), number(1, MAX_COUNT)
    parser = subparsers.add_parser("bench", help="measure prefill and decode speed of a model")
    parser.add_argument("model", metavar="MODEL", help="a GGUF file")
    parser.add_argument("-t", "--threads", type=threads, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-p", "--prompt", type=count, default=512, help="prompt tokens (512)")
    parser.add_argument("-n", "--decode", type=count, default=64, help="decoded tokens (64)")
    parser.add_argument(
        "-b",
        "--sequences",
        type=count,
        default=1,
        help="sequences decoded together (1)",
    )
    parser.add_argument("--kv-type", choices=sorted(KV_TYPES), default="f16")
    parser.add_argument(
        "--huge-pages",
        choices=("auto", "on", "off"),
        default="auto",
        help="copy the weights into huge pages first (auto: as the service would)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, then print a table or one JSON object."""
    result = measure(
        args.model,
        args.threads,
        args.prompt,
        args.decode,
        args.sequences,
        args.kv_type,
        huge_pages=args.huge_pages,
    )
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    for name, value in asdict(result).items():
        print(f"{name:>26}  {value:,.2f}" if isinstance(value, float) else f"{name:>26}  {value}")
    return 0
