"""The report of ``llamad fit`` as lines of text: what to do first, and no more than one screen.

Lines are at most 79 characters wide, but for a path. ``details`` are what --verbose adds.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamad.config import DEFAULT_PATH
from llamad.engine.bindings import KV_TYPES
from llamad.memory.plan import MIB, MemoryPlan
from llamad_tools.advice.choice import Memory
from llamad_tools.advice.loss import Loss, tables_for
from llamad_tools.advice.measured import Measured
from llamad_tools.advice.recommendation import SYSTEM_BYTES, Fit, MixFit
from llamad_tools.advice.shape import ModelShape
from llamad_tools.advice.way import Way

COLUMNS = 79


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about."""

    path: Path
    shape: ModelShape
    memory: Memory
    bandwidths: Mapping[str, float]  # bytes per second, by machine
    is_checkpoint: bool
    as_it_is: MemoryPlan | None  # of the service with default settings


def summary(subject: Subject, result: Fit, measured: Sequence[Measured]) -> Iterator[str]:
    """Yield the report: model and memory, the recommendation, the ways, what losses are."""
    types = ", ".join(subject.shape.quantized_types) or "not quantized"
    yield f"{subject.path}: {subject.shape.weights / 1e6:.1f} M weights, {types}"
    yield f"memory for the service: {mib(result.budget_bytes)} MiB, {_origin(subject.memory)}"
    yield ""
    advice = result.recommendation
    title = {"quantize": f"take {advice.mix}", "keep": "keep it as it is", "none": "nothing fits"}
    yield from _filled(f"{title[advice.action]}: {advice.reason}")
    if advice.action == "quantize":
        yield f"  {_command(subject, advice.mix or '')}"
    if result.settings:
        yield f"  and in {DEFAULT_PATH}, under [model]:"
        yield from (f"  {key} = {json.dumps(value)}" for key, value in result.settings.items())
    if result.ways:
        yield ""
        yield from _table(result.ways, list(subject.bandwidths))
    yield ""
    for item in measured:
        yield from _filled(str(item))
    if not result.ways:
        yield "--verbose: every mix"
        return
    yield from _filled(_about_losses(subject.shape.weights, bool(measured)))
    yield "tokens/s: the most, with every weight read once a token. --verbose: every mix"


def details(subject: Subject, result: Fit) -> Iterator[str]:
    """Yield what lies behind the summary: the cache, every mix, the sources of the figures."""
    yield (
        f"of the memory {mib(result.fixed_bytes)} MiB are for the service itself, of which"
        f" {mib(result.scratch_bytes)} MiB scratch"
    )
    for kind in KV_TYPES:
        sizes = (f"{mib(kv[kind])} at {n}" for n, kv in result.kv_bytes.items())
        yield f"KV cache of {kind}, MiB: {', '.join(sizes)} tokens"
    if subject.as_it_is is not None:
        plan = subject.as_it_is
        yield from _filled(
            f"as it is, with default settings: {mib(plan.resident_bytes)} MiB of the file stay in"
            f" memory, {mib(plan.token_read_bytes)} are read for every token; {plan.n_ctx} tokens"
            f" of context, KV cache {mib(plan.kv_bytes)} MiB"
        )
    lockable = subject.memory.lockable
    if lockable is not None and result.plan is not None and lockable < result.plan.resident_bytes:
        yield from _filled(
            f"RLIMIT_MEMLOCK lets this process lock {mib(lockable)} MiB: the rest is in the page"
            " cache and may be evicted"
        )
    yield ""
    columns = "".join(f" {name:>6}" for name in subject.bandwidths)
    yield f"{'':38}context beside it  tokens/s"
    yield f"{'mix':<7} {'MiB':>7} {'bits':>5} {'loses':>13} {'f16':>8} {'q8_0':>8}{columns}"
    yield from map(_mix_row, result.mixes)
    yield ""
    for table in tables_for(subject.shape.weights):
        yield f"losses of {table.model}: {table.source}"
    rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in subject.bandwidths.items())
    yield f"GB/s: {rates}"


def mib(n_bytes: int) -> str:
    """Return bytes in MiB, small numbers with a digit behind the point."""
    return f"{n_bytes / MIB:.0f}" if n_bytes >= 10 * MIB else f"{n_bytes / MIB:.1f}"


def _command(subject: Subject, mix: str) -> str:
    if subject.is_checkpoint:
        return f"llamad convert {subject.path} OUT.gguf --type {mix}"
    return f"llamad quantize {subject.path} OUT.gguf {mix}"


def _table(ways: Sequence[Way], machines: Sequence[str]) -> Iterator[str]:
    width = max(len(way.name) for way in ways)
    columns = "".join(f" {name:>6}" for name in machines)
    yield f"{'':{width}}  {'':<8} {'MiB':>6} {'context':>8} {'loses':>13}{columns}  tokens/s"
    for way in ways:
        n_ctx = str(way.n_ctx) if way.n_ctx else "-"
        speeds = "".join(f" {way.tokens_per_second.get(name, 0.0):>6.1f}" for name in machines)
        yield (
            f"{way.name:<{width}}  {way.what:<8} {mib(way.file_bytes):>6} {n_ctx:>8}"
            f" {_loss(way.loss):>13}{speeds}"
        )


def _mix_row(mix: MixFit) -> str:
    f16, q8_0 = (str(n) if n else "-" for n in mix.resident_context.values())
    speeds = "".join(f" {speed:>6.2f}" for speed in mix.tokens_per_second.values())
    return (
        f"{mix.name:<7} {mib(mix.file_bytes):>7} {mix.bits_per_weight:>5.2f}"
        f" {_loss(mix.loss):>13} {f16:>8} {q8_0:>8}{speeds}"
    )


def _loss(loss: Loss | None) -> str:
    return "not known" if loss is None else str(loss)


def _about_losses(n_weights: int, is_measured: bool) -> str:
    models = ", ".join(table.model for table in tables_for(n_weights))
    text = f"losses: of perplexity, cited ({models} on wikitext-2, from an unquantized file)"
    smallest = min(table.weights for table in tables_for(n_weights))
    if n_weights < smallest / 1.2:
        text += "; smaller models lose more"
    return text if is_measured else f"{text}; --measure TEXT measures this model's"


def _origin(memory: Memory) -> str:
    if memory.machine is not None:
        return f"{mib(memory.machine)} less {mib(SYSTEM_BYTES)} for firmware and system"
    if memory.cgroup is not None and memory.cgroup < (memory.available or memory.cgroup + 1):
        return "what the memory cgroup leaves"
    return "what is available now"


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  ", break_long_words=False)
