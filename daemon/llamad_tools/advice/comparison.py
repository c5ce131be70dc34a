"""The three ways of ``streaming_ways.py`` for one model and budget: types, plans and disks.

Asks the planner what would stream, so the figures are those that the service would say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llamad.config import ModelConfig
from llamad.errors import LlamadError
from llamad_tools.advice.candidate import HERE
from llamad_tools.advice.loss import expected_loss
from llamad_tools.advice.shape import ModelShape
from llamad_tools.advice.streaming_ways import (
    CARD,
    DRAFT_GUESSES,
    DRAFT_SHARE,
    FAST_CARD,
    NVME_DISK,
    RIGHT_GUESSES,
    USB_DISK,
    Reader,
    Sized,
    StreamingWay,
    three_ways,
    verdict,
)
from llamad_tools.disk_speed import disk_speed
from llamad_tools.quantize.mixes import FILE_TYPE, MIXES, Mix

SMALL_LOSS = 0.02  # of perplexity: what unquantized weights are compared as loses less
AS_IT_IS = "as it is"
BOARD_DISKS: Mapping[str, Mapping[str, float]] = {
    "Pi 4": {"card": CARD, "USB 3": USB_DISK},
    "Pi 5": {"card": FAST_CARD, "NVMe": NVME_DISK},
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ways, and the machines that they were computed for."""

    ways: list[StreamingWay]
    readers: Mapping[str, Reader]


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the comparison: a row for each way, then which is the fastest where."""
    names = list(comparison.readers)
    heads = [name.partition(", ")[::2] for name in names]
    yield "It is larger than this memory. Tokens a second, at most, by board and disk:"
    yield f"{'':21} {'':7} {'':13} {'MiB a':>6}" + "".join(f" {head:>6}" for head, _ in heads)
    yield (
        f"{'':21} {'':7} {'loses':>13} {'token':>6}"
        + "".join(f" {disk or 'disk':>6}" for _, disk in heads)
    )
    for way in comparison.ways:
        name = f"{way.name} *" if way.assumed else way.name
        loss = "not known" if way.loss is None else str(way.loss)
        speeds = "".join(f" {way.tokens_per_second[name]:>6.2g}" for name in names)
        yield (
            f"{name:<21} {way.type_name:<7} {loss:>13} {way.streamed_bytes >> 20:>6}{speeds}"
        ).rstrip()
    for name in names:
        yield verdict(comparison.ways, name)
    if any(way.assumed for way in comparison.ways):
        yield (
            f"* a small model guesses (model.draft): computed for {DRAFT_GUESSES} guesses of which"
            f" {100 * RIGHT_GUESSES:.0f} % are right; `llamad bench --draft` measures"
        )


def readers_of(
    bandwidths: Mapping[str, float], path: Path | None, here: str = HERE
) -> dict[str, Reader]:
    """Return what each machine reads at: boards with their usual disks, this one with its own.

    path: a file on this machine's disk that tells its speed; None: none does.
    """
    readers = {}
    for name, memory in bandwidths.items():
        if name == here:
            disk = None if path is None else _disk_here(path)
            if disk is not None:
                readers[here] = Reader(memory, disk)
        for kind, disk in BOARD_DISKS.get(name, {}).items():
            readers[f"{name}, {kind}"] = Reader(memory, disk)
    return readers


def compare(
    shape: ModelShape, budget_bytes: int, smaller: str | None, readers: Mapping[str, Reader]
) -> Comparison | None:
    """Return the three ways; None where the model fits, or runs in no way.

    The type at hand is the file's own; of unquantized weights it is the smallest that loses less
    than 2 %. smaller: the mix that is recommended, None when none stays in memory.
    """
    mix = wanted_mix(shape)
    wanted = _sized(shape, mix, budget_bytes)
    if wanted is None or wanted.streamed_bytes == 0 or not readers:
        return None
    draft_bytes = int(DRAFT_SHARE * wanted.read_bytes)
    return Comparison(
        three_ways(
            None if smaller is None else _resident(shape, MIXES[smaller]),
            wanted,
            _sized(shape, mix, budget_bytes - draft_bytes),
            draft_bytes,
            readers,
        ),
        readers,
    )


def wanted_mix(shape: ModelShape) -> Mix | None:
    """Return the mix to compare with; None: the file's own types."""
    if shape.quantized_types:
        return None
    config = ModelConfig()
    losses = {mix.name: expected_loss(shape.weights, mix.name) for mix in MIXES.values()}
    good = [
        mix
        for mix in MIXES.values()
        if (loss := losses[mix.name]) is not None and loss.high < SMALL_LOSS
    ]
    return min(good, key=lambda mix: shape.sizes(mix, config).file_bytes)


def own_mix(shape: ModelShape) -> str | None:
    """Return the name of the mix that a file says it is; None when it does not."""
    file_type = shape.metadata.get(FILE_TYPE)
    return next((mix.name for mix in MIXES.values() if mix.file_type == file_type), None)


def _sized(shape: ModelShape, mix: Mix | None, budget_bytes: int) -> Sized | None:
    """Return what streams under the service's plan; None where there is none."""
    if budget_bytes <= 0:
        return None
    name = (own_mix(shape) or AS_IT_IS) if mix is None else mix.name
    try:
        plan = shape.plan(mix, replace(ModelConfig(), memory_budget=budget_bytes))
        with shape.opened(mix) as model:
            read_bytes = model.info.streamed_bytes
    except LlamadError:
        return None
    loss = expected_loss(shape.weights, name)
    return Sized(name, read_bytes, plan.token_read_bytes, loss)


def _resident(shape: ModelShape, mix: Mix) -> Sized:
    with shape.opened(mix) as model:
        loss = expected_loss(shape.weights, mix.name)
        return Sized(mix.name, model.info.streamed_bytes, 0, loss)


def _disk_here(path: Path) -> float | None:
    try:
        return disk_speed(path)
    except OSError:
        return None
