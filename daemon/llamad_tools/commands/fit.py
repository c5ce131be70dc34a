"""``llamad fit MODEL``: which quantization of a model stays in this machine's memory.

MODEL is a GGUF file or what ``llamad convert`` takes, of which only the shapes are read: nothing
has to be written first. Lists every mix that quantize and convert can write, whatever the type of
MODEL: size, context beside it, tokens per second, expected loss; recommends one, and says what to
set for it. The budget is what this machine has available (MemAvailable, and the memory cgroups of
this process). --memory asks for another machine: its whole memory, of which 614 MiB are left to
firmware and system.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from llamad.config import DEFAULT_PATH, MAX_CTX_SIZE, MAX_THREADS, ModelConfig
from llamad.engine.bindings import EngineModel
from llamad.errors import LlamadError
from llamad.help_text import add_command
from llamad.memory.demand import plan_of
from llamad.memory.machine import Machine
from llamad.memory.plan import MIB, MemoryPlan
from llamad.printable import printable
from llamad_tools.advice.choice import Memory, memory_here
from llamad_tools.advice.recommendation import (
    BOARD_BANDWIDTH,
    LOSS_SOURCE,
    SYSTEM_BYTES,
    Fit,
    MixFit,
    fit,
)
from llamad_tools.advice.shape import ModelShape
from llamad_tools.advice.source import read_shape
from llamad_tools.checkpoints.conversion import is_checkpoint
from llamad_tools.commands.arguments import memory_bytes, number
from llamad_tools.quantize.mixes import PLAIN_TYPES, is_quantizable

HERE = "here"  # this machine's column of speeds

ABOUT = """
Print which quantization of a model stays in this machine's memory: size, context, expected speed
and loss of every mix, a recommendation, and what to set for it.

MODEL is a GGUF file, or what llamad convert takes; only its shapes are read. The budget is what
this machine has available now; --memory asks for another machine by its whole memory, of which 614
MiB are left to firmware and system.
"""
EXAMPLES = ("llamad fit model.gguf", "llamad fit ~/Qwen2.5-7B-Instruct --memory 4GB")


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
        help="tokens of context that must fit too (default: 512, and up to 2048 are offered)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 0, also when nothing fits."""
    shape = read_shape(arguments.model)
    bandwidths = dict(BOARD_BANDWIDTH)
    if arguments.memory is None:
        memory = memory_here(Machine())
        rate = _bandwidth_here(arguments.model, memory.budget)
        if rate is not None:
            bandwidths[HERE] = rate
    else:
        memory = Memory(arguments.memory - SYSTEM_BYTES, machine=arguments.memory)
    result = fit(shape, memory.budget, context=arguments.ctx_size, bandwidths=bandwidths)
    as_it_is = _plan_as_it_is(arguments.model, shape, memory.budget)
    if arguments.json:
        report = as_json(arguments.model, shape, memory, result, bandwidths)
        report["plan_as_it_is"] = None if as_it_is is None else asdict(as_it_is)
        print(json.dumps(report))
        return 0
    for line in as_text(arguments.model, shape, memory, result, bandwidths, as_it_is):
        print(printable(line))
    return 0


def _plan_as_it_is(path: Path, shape: ModelShape, budget: int) -> MemoryPlan | None:
    """Return the service's plan for the file as it lies, with its default settings, if it fits.

    Of a checkpoint: for the file that it becomes without ``--type``.
    """
    config = replace(ModelConfig(), memory_budget=budget)
    try:
        if is_checkpoint(path):
            return shape.plan(None, config)
        with EngineModel(path) as model:
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


def as_json(
    path: Path, shape: ModelShape, memory: Memory, result: Fit, bandwidths: Mapping[str, float]
) -> dict[str, object]:
    """Return the report as one JSON object."""
    return {
        "model": str(path),
        "weights": shape.weights,
        "source_types": sorted(_quantized_types(shape)),
        "memory": asdict(memory),
        "bandwidth_bytes_per_second": dict(bandwidths),
        "loss_source": LOSS_SOURCE,
        **asdict(result),
    }


def _quantized_types(shape: ModelShape) -> set[str]:
    """Return the types of matrices that have lost something already."""
    return {
        tensor.type_name
        for tensor in shape.tensors
        if is_quantizable(tensor.name, tensor.shape) and tensor.type_name not in PLAIN_TYPES
    }


# ---- text --------------------------------------------------------------------------------------


def as_text(
    path: Path,
    shape: ModelShape,
    memory: Memory,
    result: Fit,
    bandwidths: Mapping[str, float],
    as_it_is: MemoryPlan | None,
) -> Iterator[str]:
    """Yield the lines of the report: memory, KV cache, mixes, recommendation."""
    yield f"model       {path}, {shape.weights / 1e6:.1f} M weights"
    yield f"budget      {_mib(result.budget_bytes)} MiB: {_origin(memory)}"
    yield (
        f"of it       {_mib(result.fixed_bytes)} MiB for the service itself, of which"
        f" {_mib(result.scratch_bytes)} MiB scratch, besides file and KV cache"
    )
    for kind in ("f16", "q8_0"):
        sizes = (f"{_mib(kv[kind])} at {n}" for n, kv in result.kv_bytes.items())
        yield f"KV {kind:<8} MiB {', '.join(sizes)} tokens"
    yield ""
    columns = "".join(f"  {name:>6}" for name in bandwidths)
    yield f"{'':36}{'resident context':>18}  tokens/s"
    yield f"{'mix':<7} {'MiB':>7} {'bits':>6} {'ppl loss':>9} {'f16':>14} {'q8_0':>8}{columns}"
    for mix in result.mixes:
        yield _row(mix)
    yield ""
    yield from _notes(shape, memory, result, bandwidths)
    if as_it_is is not None:
        yield (
            f"as it is, with default settings: {_mib(as_it_is.resident_bytes)} MiB of the file stay"
            f" in memory, {_mib(as_it_is.streamed_bytes)} are read for every token; KV cache"
            f" {_mib(as_it_is.kv_bytes)} MiB"
        )
    advice = result.recommendation
    if advice.mix is None:
        yield f"nothing fits: {advice.reason}"
    else:
        yield f"take {advice.mix} with a q8_0 KV cache of {advice.context} tokens: {advice.reason}"
    if result.settings is not None:
        yield ""
        yield f"for that, in {DEFAULT_PATH}:"
        yield "[model]"
        for key, value in asdict(result.settings).items():
            yield f"{key} = {json.dumps(value)}"


def _row(mix: MixFit) -> str:
    loss = "unknown" if mix.perplexity_loss is None else f"+{mix.perplexity_loss:.4f}"
    f16, q8_0 = (str(n) if n else "-" for n in mix.resident_context.values())
    speeds = "".join(f"  {speed:>6.2f}" for speed in mix.tokens_per_second.values())
    return (
        f"{mix.name:<7} {_mib(mix.file_bytes):>7} {mix.bits_per_weight:>6.2f} {loss:>9}"
        f" {f16:>14} {q8_0:>8}{speeds}"
    )


def _notes(
    shape: ModelShape, memory: Memory, result: Fit, bandwidths: Mapping[str, float]
) -> Iterator[str]:
    yield f"loss: {LOSS_SOURCE}"
    rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in bandwidths.items())
    yield f"tokens/s: the limit when every weight is read once a token, at GB/s: {rates}"
    lost = _quantized_types(shape)
    if lost:
        yield (
            f"{', '.join(sorted(lost))} inside: quantizing again loses more than quantizing an F16"
            " original"
        )
    sizes = {mix.name: mix.file_bytes for mix in result.mixes}
    size = sizes.get(result.recommendation.mix or "", 0)
    if memory.lockable is not None and memory.lockable < size:
        yield (
            f"RLIMIT_MEMLOCK lets this process lock {_mib(memory.lockable)} MiB: the rest is in the"
            " page cache and may be evicted"
        )


def _origin(memory: Memory) -> str:
    if memory.machine is not None:
        return f"{_mib(memory.machine)} less {_mib(SYSTEM_BYTES)} for firmware and system"
    if memory.cgroup is not None and memory.cgroup < (memory.available or memory.cgroup + 1):
        return "what the memory cgroup leaves"
    return "MemAvailable; no cgroup allows less"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / MIB:.0f}" if n_bytes >= 10 * MIB else f"{n_bytes / MIB:.1f}"


def _machine_memory(text: str) -> int:
    n_bytes = memory_bytes(text)
    if n_bytes <= SYSTEM_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not more than the {_mib(SYSTEM_BYTES)} MiB that firmware and system take"
        )
    return n_bytes
