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
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llamad.config import DEFAULT_PATH
from llamad.engine.bindings import EngineModel, GgufFile, TensorInfo
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.split import require_whole
from llamad.gguf.value import RawEntry
from llamad.memory.machine import Machine
from llamad.memory.plan import MIB
from llamad_tools.advice import (
    BOARD_BANDWIDTH,
    LOSS_SOURCE,
    SYSTEM_BYTES,
    Fit,
    MixFit,
    ModelShape,
    describe_shape,
    fit,
)
from llamad_tools.checkpoints.conversion import (
    is_checkpoint,
    naming_unreadable,
    open_checkpoint,
    raw_entries,
    tensor_table,
)
from llamad_tools.mixes import MIXES, PLAIN_TYPES, Mix, is_quantizable

AUTO = "auto"  # as a type of quantize and convert: what fits this machine
HERE = "here"  # this machine's column of speeds
MAX_THREADS = 64  # of the engine
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a budget comes from. Bytes; None: no such limit, or not asked."""

    budget: int
    machine: int | None = None  # --memory: the whole memory of another machine
    available: int | None = None  # MemAvailable
    cgroup: int | None = None  # what the memory cgroups leave
    lockable: int | None = (
        None  # RLIMIT_MEMLOCK of this process; the unit of the service has its own
    )


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "fit", help="which quantization of a model fits this machine", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="GGUF file, or a checkpoint")
    parser.add_argument(
        "--memory",
        metavar="BYTES",
        type=_memory,
        help="the whole memory of another machine, for example 4GB (K, M, G: powers of 1024)",
    )
    parser.add_argument(
        "--ctx-size",
        metavar="N",
        type=_context,
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
    if arguments.json:
        print(json.dumps(as_json(arguments.model, shape, memory, result, bandwidths)))
        return 0
    for line in as_text(arguments.model, shape, memory, result, bandwidths):
        print(line)
    return 0


def advised_mix(path: Path, shape: ModelShape) -> Mix:
    """Return the mix that fits this machine; say which, and why, on standard error.

    Raises LlamadError OUT_OF_MEMORY when none does.
    """
    advice = fit(shape, memory_here(Machine()).budget).recommendation
    if advice.mix is None:
        raise LlamadError(ErrorKind.EXHAUSTED, "OUT_OF_MEMORY", f"{path}: {advice.reason}")
    print(f"llamad: {AUTO}: {advice.mix}: {advice.reason}", file=sys.stderr)
    return MIXES[advice.mix]


def read_shape(path: Path) -> ModelShape:
    """Read what says the shape of a GGUF file or of a checkpoint: of neither the weights.

    Raises LlamadError, which names the path and the fault.
    """
    with naming_unreadable():
        return read_checkpoint_shape(path) if is_checkpoint(path) else read_file_shape(path)


def read_file_shape(path: Path) -> ModelShape:
    """Read the header of a GGUF file."""
    with GgufFile(path) as file:
        require_whole(path, file.metadata())
        return _shape(path, file.raw_metadata(), file.tensors())


def read_checkpoint_shape(path: Path) -> ModelShape:
    """Read the shape of the file that ``llamad convert`` would write. Raises OSError, too."""
    with open_checkpoint(path, keep_types=True) as checkpoint:
        return _shape(path, raw_entries(checkpoint), tensor_table(checkpoint))


def _shape(path: Path, entries: Sequence[RawEntry], tensors: Sequence[TensorInfo]) -> ModelShape:
    try:
        return describe_shape(entries, tensors)
    except LlamadError as error:
        raise LlamadError(error.kind, error.reason, f"{path}: {error.message}") from error


def memory_here(machine: Machine) -> Memory:
    """Return this machine's budget. Raises LlamadError when nothing about its memory is known."""
    budget = machine.available_bytes()
    if budget is None:
        raise LlamadError(
            ErrorKind.STATE,
            "MEMORY_UNKNOWN",
            "neither /proc/meminfo nor a cgroup says how much memory there is: give --memory",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Memory(
        budget,
        available=machine.system_room(),
        cgroup=machine.cgroup_room(),
        lockable=None if soft == resource.RLIM_INFINITY else soft,
    )


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
    path: Path, shape: ModelShape, memory: Memory, result: Fit, bandwidths: Mapping[str, float]
) -> Iterator[str]:
    """Yield the lines of the report: memory, KV cache, mixes, recommendation."""
    yield f"model       {path}, {shape.weights / 1e6:.1f} M weights"
    yield f"budget      {_mib(result.budget_bytes)} MiB: {_origin(memory)}"
    yield (
        f"of it       {_mib(result.scratch_bytes)} MiB scratch (estimated) and"
        f" {_mib(result.margin_bytes)} MiB margin, besides file and KV cache"
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
    if memory.cgroup == memory.budget:
        return "what the memory cgroup leaves"
    return "MemAvailable; no cgroup allows less"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / MIB:.0f}" if n_bytes >= 10 * MIB else f"{n_bytes / MIB:.1f}"


# ---- arguments ---------------------------------------------------------------------------------


def _memory(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)(?:I?B)?", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no memory size such as 4GB")
    n_bytes = int(match[1]) * _UNITS[match[2]]
    if n_bytes <= SYSTEM_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not more than the {_mib(SYSTEM_BYTES)} MiB that firmware and system take"
        )
    return n_bytes


def _context(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} tokens: 1 to {1 << 20} are possible")
    return int(text)
