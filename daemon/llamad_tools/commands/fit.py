"""``llamad fit MODEL``: how a model runs best on this machine.

MODEL is a GGUF file or what ``llamad convert`` takes, of which only the shapes are read: nothing
has to be written first. Says what to do first, then the ways to run the model: size, context,
expected loss, tokens per second. The budget is what this machine has available (MemAvailable, and
the memory cgroups of this process). --memory asks for another machine: its whole memory, of which
614 MiB are left to firmware and system. --measure quantizes and compares on a text.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from llamad.config import MAX_CTX_SIZE, MAX_THREADS, ModelConfig
from llamad.engine.bindings import EngineModel
from llamad.errors import LlamadError, invalid
from llamad.help_text import add_command
from llamad.memory.demand import plan_of
from llamad.memory.guess_layer import open_model
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan
from llamad.printable import printable
from llamad_tools.advice.candidate import HERE
from llamad_tools.advice.choice import Memory, memory_here
from llamad_tools.advice.comparison import Comparison, compare, lines, readers_of
from llamad_tools.advice.loss import Loss, tables_for
from llamad_tools.advice.measured import SAMPLE_TOKENS, Measured, measure_loss
from llamad_tools.advice.recommendation import (
    BOARD_BANDWIDTH,
    SYSTEM_BYTES,
    Fit,
    fit,
)
from llamad_tools.advice.report import Subject, details, mib, summary
from llamad_tools.advice.shape import ModelShape
from llamad_tools.advice.source import read_shape
from llamad_tools.checkpoints.conversion import is_checkpoint
from llamad_tools.commands.arguments import memory_bytes, number
from llamad_tools.commands.text_file import read_text
from llamad_tools.quantize.mixes import MIXES

MOST_MEASUREMENTS = 3

ABOUT = """
Say how a model runs best on this machine: which quantization to make, or to keep the file as it is,
and why; with size, context, expected loss and speed of the ways that there are.

MODEL is a GGUF file, or what llamad convert takes; only its shapes are read. The memory is what
this machine has available now; --memory asks for another machine by its whole memory, of which 614
MiB are left to firmware and system. Losses are cited from others' measurements; --measure TEXT
writes the recommended file beside MODEL for a moment and measures its loss on the text.
"""
EXAMPLES = (
    "llamad fit model.gguf",
    "llamad fit ~/Qwen2.5-7B-Instruct --memory 4GB",
    "llamad fit model-f16.gguf --measure text.txt",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "fit",
        summary="which quantization of a model fits this machine",
        about=ABOUT,
        examples=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="GGUF file, or a checkpoint")
    parser.add_argument(
        "--memory",
        metavar="BYTES",
        type=_machine_memory,
        help="the whole memory of another machine, for example 4GB (K, M, G: powers of 1024)",
    )
    parser.add_argument(
        "--ctx-size",
        metavar="N",
        type=number(1, MAX_CTX_SIZE),
        help="tokens of context that must fit too (default: 512)",
    )
    parser.add_argument(
        "--measure",
        metavar="TEXT",
        type=Path,
        help=f"measure the loss of what is recommended, on {SAMPLE_TOKENS} tokens of a text file",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="every mix, KV cache, sources of the figures"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 0, also when nothing fits."""
    path: Path = arguments.model
    shape = read_shape(path)
    bandwidths = dict(BOARD_BANDWIDTH)
    if arguments.memory is None:
        memory = memory_here(Machine())
        rate = _bandwidth_here(path, memory.budget)
        if rate is not None:
            bandwidths[HERE] = rate
    else:
        memory = Memory(arguments.memory - SYSTEM_BYTES, machine=arguments.memory)
    as_it_is = _plan_as_it_is(path, shape, memory.budget)
    subject = Subject(path, shape, memory, bandwidths, is_checkpoint(path), as_it_is)
    result, measured = _fit(subject, arguments.ctx_size, arguments.measure)
    comparison = _comparison(subject, result)
    if arguments.json:
        report = as_json(subject, result, measured)
        report["larger_than_memory"] = None if comparison is None else asdict(comparison)
        print(json.dumps(report))
        return 0
    for line in summary(subject, result, measured):
        print(printable(line))
    if comparison is not None:
        print()
        for line in lines(comparison):
            print(printable(line))
    if arguments.verbose:
        print()
        for line in details(subject, result):
            print(printable(line))
    return 0


def _fit(subject: Subject, context: int | None, text: Path | None) -> tuple[Fit, list[Measured]]:
    """Return the answer; with a text, measure what is recommended until it stays recommended."""

    def answer(measured: Sequence[Measured] = ()) -> Fit:
        losses = {item.mix: Loss(*[max(0.0, item.loss)] * 2) for item in measured}
        return fit(
            subject.shape,
            subject.memory.budget,
            context=context,
            bandwidths=subject.bandwidths,
            measured=losses,
        )

    result, measured = answer(), list[Measured]()
    if text is None:
        return result, measured
    if subject.is_checkpoint:
        raise invalid("measure", f"{subject.path} is no GGUF file: llamad convert makes one")
    words = read_text(text)
    while len(measured) < MOST_MEASUREMENTS:
        name = result.recommendation.mix
        if name is None or name in {item.mix for item in measured}:
            break
        [size] = (mix.file_bytes for mix in result.mixes if mix.name == name)
        threads = min(Machine().cpus(), MAX_THREADS)
        measured.append(measure_loss(subject.path, MIXES[name], size, words, n_threads=threads))
        result = answer(measured)
    return result, measured


def _comparison(subject: Subject, result: Fit) -> Comparison | None:
    """Return the ways to run a model that is larger than the memory; None where it fits."""
    if subject.as_it_is is not None and subject.as_it_is.model_fits:
        return None
    smaller = next((way.what for way in result.ways if way.what in MIXES), None)
    path = None if subject.is_checkpoint else subject.path
    readers = readers_of(subject.bandwidths, path)
    return compare(subject.shape, result.budget_bytes, smaller, readers)


def _plan_as_it_is(path: Path, shape: ModelShape, budget: int) -> MemoryPlan | None:
    """Return the service's plan for the file as it lies, with its default settings, if it fits.

    Of a checkpoint: for the file that it becomes without ``--type``.
    """
    config = replace(ModelConfig(), memory_budget=budget)
    try:
        if is_checkpoint(path):
            return shape.plan(None, config)
        with open_model(path, config)[0] as model:
            return plan_of(model, shape.metadata, config)
    except LlamadError:  # no room, or a file that can be quantized but not run as it is
        return None


def _bandwidth_here(path: Path, budget: int) -> float | None:
    """Measure the bandwidth on the model's own pages; None when they would not stay in memory."""
    if not path.is_file() or path.stat().st_size > budget:
        return None
    try:
        with EngineModel(path) as model:
            model.populate()
            return model.read_bandwidth(min(Machine().cpus(), MAX_THREADS))
    except LlamadError:  # a file that can be quantized but not run as it is
        return None


# ---- JSON --------------------------------------------------------------------------------------


def as_json(subject: Subject, result: Fit, measured: Sequence[Measured]) -> dict[str, object]:
    """Return the report as one JSON object."""
    tables = tables_for(subject.shape.weights)
    return {
        "model": str(subject.path),
        "weights": subject.shape.weights,
        "source_types": subject.shape.quantized_types,
        "memory": asdict(subject.memory),
        "bandwidth_bytes_per_second": dict(subject.bandwidths),
        "loss_sources": {table.model: table.source for table in tables},
        "measured": [asdict(item) for item in measured],
        "plan_as_it_is": None if subject.as_it_is is None else asdict(subject.as_it_is),
        **asdict(result),
    }


def _machine_memory(text: str) -> int:
    n_bytes = memory_bytes(text)
    if n_bytes <= SYSTEM_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not more than the {mib(SYSTEM_BYTES)} MiB that firmware and system take"
        )
    return n_bytes
