"""Which mix of a model fits a machine: memory, speed, loss, what is recommended, and the ways.

Pure arithmetic on the shape of a model and a budget in bytes. Loss comes from loss.py, the boards'
speed from a table, the choice from rule.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from llamad.config import ModelConfig
from llamad.engine.bindings import KV_TYPES
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.plan import MIB, MemoryPlan, fixed_bytes
from llamad_tools.advice.candidate import Candidate, common_demand, file_bytes_of, is_smaller
from llamad_tools.advice.loss import Loss, expected_loss
from llamad_tools.advice.rule import choose, from_original, may_be_quantized
from llamad_tools.advice.shape import ModelShape
from llamad_tools.advice.way import Way
from llamad_tools.quantize.mixes import MIXES, Mix

# A 4 GB Raspberry Pi has 3.4 GiB free for us without a desktop: firmware and kernel keep 304 MiB,
# the system takes 310. Neither grows with the memory, so the same is taken from every machine.
SYSTEM_BYTES = 614 * MIB

# Bytes per second that decoding can read, by board.
BOARD_BANDWIDTH: Mapping[str, float] = {"Pi 4": 4.5e9, "Pi 5": 10.5e9}

FASTER = 0.9  # of the recommended file's bytes: what is worth a row as faster
CONTEXTS = (512, 1024, 2048, 4096)  # tokens that a report shows
LEAST_CONTEXT, GOOD_CONTEXT = 512, 2048  # tokens that a recommendation needs, and settings aim at
NOTHING_MEASURED: Mapping[str, Loss] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MixFit:
    """One mix on one machine."""

    name: str
    file_bytes: int
    streamed_bytes: int  # read for one decoded token
    bits_per_weight: float
    loss: Loss | None  # of perplexity, from an unquantized original; None: nobody published it
    resident_context: Mapping[str, int]  # KV type -> tokens beside the whole file, as trained
    tokens_per_second: Mapping[str, float]  # machine -> bandwidth / streamed_bytes


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do. action: quantize (to the mix), keep (the file as it is), or none (fits)."""

    action: str
    mix: str | None
    context: int  # tokens of one sequence
    reason: str


@dataclass(frozen=True, slots=True)
class Fit:
    """The whole answer. Bytes."""

    budget_bytes: int
    fixed_bytes: int  # that the service takes besides file and KV cache, scratch included
    scratch_bytes: int
    kv_bytes: Mapping[int, Mapping[str, int]]  # context in tokens -> KV type -> bytes
    mixes: Sequence[MixFit]
    recommendation: Recommendation
    settings: Mapping[str, object] | None  # of [model] for it; None when nothing is recommended
    plan: MemoryPlan | None  # of what is recommended, with these settings
    ways: Sequence[Way]  # the recommended one first


def fit(
    shape: ModelShape,
    budget_bytes: int,
    *,
    context: int | None = None,
    bandwidths: Mapping[str, float] = BOARD_BANDWIDTH,
    measured: Mapping[str, Loss] = NOTHING_MEASURED,
) -> Fit:
    """Return every mix on a machine with budget_bytes, the largest first.

    context: tokens that a recommended mix must leave room for, by default 512. bandwidths: bytes
    per second, by machine. measured: losses that take the place of the cited ones. Raises
    LlamadError for a context beyond what the model was trained on, and for a model that the engine
    does not run.
    """
    config = ModelConfig(memory_budget=budget_bytes)

    def candidate(mix: Mix | None, loss: Loss | None) -> Candidate:
        sizes = shape.sizes(mix, config)
        room = budget_bytes - fixed_bytes(common_demand(sizes), config.n_sequences)
        speeds = {name: rate / sizes.streamed_bytes for name, rate in bandwidths.items()}
        return Candidate(mix, sizes, room, loss, speeds)

    mixes = [
        candidate(mix, measured.get(mix.name) or expected_loss(shape.weights, mix.name))
        for mix in MIXES.values()
    ]
    mixes.sort(key=file_bytes_of, reverse=True)
    least = mixes[-1]
    if context is not None and context > least.sizes.n_ctx_train:
        raise LlamadError(
            ErrorKind.INVALID,
            "INVALID_ARGUMENT",
            f"{context} tokens are more than the model's context of {least.sizes.n_ctx_train}",
        )
    try:
        own = candidate(None, None if shape.quantized_types else Loss(0.0, 0.0))
    except LlamadError:  # a file that can be quantized but not run as it is
        own = None
    needed = context or min(LEAST_CONTEXT, least.sizes.n_ctx_train)
    best, reason = choose(shape.quantized_types, mixes, own, needed)
    settled = None if best is None else _settle(shape, best.mix, config, context, needed)
    settings, plan = (None, None) if settled is None else settled
    shown = best or least
    return Fit(
        budget_bytes=budget_bytes,
        fixed_bytes=budget_bytes - shown.room,
        scratch_bytes=common_demand(shown.sizes).scratch_bytes,
        kv_bytes={n: {kind: shown.kv_bytes(kind, n) for kind in KV_TYPES} for n in CONTEXTS},
        mixes=[_fit_of(shape, item) for item in mixes],
        recommendation=_advice(best, plan, reason),
        settings=settings,
        plan=plan,
        ways=list(_ways(shape, config, mixes, own, best, needed)),
    )


def _fit_of(shape: ModelShape, candidate: Candidate) -> MixFit:
    return MixFit(
        name=candidate.name,
        file_bytes=candidate.sizes.file_bytes,
        streamed_bytes=candidate.sizes.streamed_bytes,
        bits_per_weight=8 * candidate.sizes.file_bytes / shape.weights,
        loss=candidate.loss,
        resident_context={kind: candidate.context(kind) for kind in ("f16", "q8_0")},
        tokens_per_second=candidate.tokens_per_second,
    )


# ---- what is recommended -------------------------------------------------------------------------


def _advice(best: Candidate | None, plan: MemoryPlan | None, reason: str) -> Recommendation:
    if best is None:
        return Recommendation("none", None, 0, reason)
    n_ctx = 0 if plan is None else plan.n_ctx
    if best.mix is None:
        return Recommendation("keep", None, n_ctx, reason)
    return Recommendation("quantize", best.mix.name, n_ctx, reason)


def _settle(
    shape: ModelShape, mix: Mix | None, config: ModelConfig, context: int | None, needed: int
) -> tuple[Mapping[str, object], MemoryPlan] | None:
    """Return the fewest settings with which the service keeps the file and a context in memory.

    Nothing to set is best; then a smaller cache; then a context that is fixed.
    """
    wishes: list[dict[str, object]] = [{}, {"kv_type": "q8_0"}]
    if context is not None:
        fixed = {"ctx_size": max(context, 32)}
        wishes += [{**wish, **fixed} for wish in wishes]
    wishes.append({**wishes[-1], "n_sequences": 1})
    plans = []
    for wish in wishes:
        try:
            plan = shape.plan(mix, replace(config, **wish))  # type: ignore[arg-type]
        except LlamadError:  # no room for its cache
            continue
        if plan.model_fits:
            plans.append((wish, plan))
    for least in (max(needed, min(GOOD_CONTEXT, _trained(shape, mix, config))), needed):
        for wish, plan in plans:
            if plan.n_ctx >= least:
                return wish, plan
    return None


def _trained(shape: ModelShape, mix: Mix | None, config: ModelConfig) -> int:
    return shape.sizes(mix, config).n_ctx_train


# ---- the ways ----------------------------------------------------------------------------------


def _ways(
    shape: ModelShape,
    config: ModelConfig,
    mixes: Sequence[Candidate],
    own: Candidate | None,
    best: Candidate | None,
    needed: int,
) -> list[Way]:
    """Return the recommended way, then those that trade size for loss, in both directions."""
    found: list[tuple[str, Candidate]] = []
    if best is not None:
        found.append(("best", best))
    if not may_be_quantized(shape.quantized_types):
        original = from_original(mixes, best, needed)
        found += [] if original is None else [("original", original)]
    elif best is not None:
        fitting = [
            item
            for item in mixes
            if item.loss is not None
            and item.context("q8_0") >= needed
            and (is_smaller(item, own) and item is not best)
        ]
        smaller = [i for i in fitting if i.sizes.file_bytes < FASTER * best.sizes.file_bytes]
        larger = [i for i in fitting if i.sizes.file_bytes > best.sizes.file_bytes]
        larger = [i for i in larger if i.worst < best.worst]
        if smaller:
            found.append(("faster", min(smaller, key=lambda i: (i.worst, i.sizes.file_bytes))))
        if larger:
            found.append(("closer", min(larger, key=file_bytes_of)))
    if own is not None and own is not best and own.context("q8_0") >= needed:
        found.append(("as it is", own))
    return [_way(shape, config, name, item, needed) for name, item in found]


def _way(shape: ModelShape, config: ModelConfig, name: str, item: Candidate, needed: int) -> Way:
    settled = _settle(shape, item.mix, config, None, needed)
    settings, plan = ({}, None) if settled is None else settled
    return Way(
        name=name,
        what=item.name,
        file_bytes=item.sizes.file_bytes,
        n_ctx=0 if plan is None else plan.n_ctx,
        loss=item.loss,
        tokens_per_second=item.tokens_per_second,
        settings=settings,
    )
