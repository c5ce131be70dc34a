"""Which mix of a model fits a machine: memory, speed, loss, and a recommendation.

Pure arithmetic on the shape of a model and a budget in bytes. Loss and the boards' speed come from
tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from llamad.config import ModelConfig
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.plan import MIB, Demand, MemoryPlan, fixed_bytes
from llamad_tools.advice.shape import MixSizes, ModelShape
from llamad_tools.quantize.mixes import MIXES, Mix

# A 4 GB Raspberry Pi has 3.4 GiB free for us without a desktop: firmware and kernel keep 304 MiB,
# the system takes 310. Neither grows with the memory, so the same is taken from every machine.
SYSTEM_BYTES = 614 * MIB

# Added perplexity of LLaMA-7B on wikitext-2 (5.9066 in F16), as llama.cpp's quantize printed it in
# 2023; first measured in https://github.com/ggml-org/llama.cpp/pull/1684. Other models lose
# otherwise, small ones more; the order stays. Mixes without a figure are never recommended: the
# IQ4s, and Q2_K, which was larger then (2.63 GiB, +0.6717) and loses more today.
LOSS_SOURCE = "LLaMA-7B on wikitext-2, llama.cpp pull request 1684 and its later figures"
F16_PERPLEXITY = 5.9066
PERPLEXITY_LOSS: Mapping[str, float] = {
    "F32": 0.0, "F16": 0.0, "BF16": 0.0, "Q8_0": 0.0004, "Q6_K": 0.0008, "Q5_K_M": 0.0122,
    "Q5_1": 0.0349, "Q5_K_S": 0.0400, "Q4_K_M": 0.0532, "Q5_0": 0.0683, "Q4_K_S": 0.0992,
    "Q4_1": 0.1585, "Q3_K_L": 0.1764, "Q4_0": 0.2166, "Q3_K_M": 0.2496, "Q3_K_S": 0.5551,
}  # fmt: skip
SMALL_LOSS = 0.01 * F16_PERPLEXITY  # below it a larger file is only slower
LARGE_LOSS = 0.02 * F16_PERPLEXITY  # from it on a smaller model is worth a thought

# Bytes per second that decoding can read, by board.
BOARD_BANDWIDTH: Mapping[str, float] = {"Pi 4": 4.5e9, "Pi 5": 10.5e9}

CONTEXTS = (512, 1024, 2048, 4096)  # tokens that a report shows
LEAST_CONTEXT, MOST_CONTEXT = 512, 2048  # tokens that a recommendation needs, and then offers


@dataclass(frozen=True, slots=True)
class MixFit:
    """One mix on one machine."""

    name: str
    file_bytes: int
    streamed_bytes: int  # read for one decoded token
    bits_per_weight: float
    perplexity_loss: float | None  # of LLaMA-7B; None: unknown
    resident_context: Mapping[str, int]  # KV type -> tokens beside the whole file, as trained
    tokens_per_second: Mapping[str, float]  # machine -> bandwidth / streamed_bytes


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The mix to take, None when none fits; context: tokens of q8_0 KV cache beside it."""

    mix: str | None
    context: int
    reason: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What section [model] of the configuration must say for a mix to stay in memory.

    By default it asks for more: 2048 tokens of f16 to a sequence.
    """

    kv_type: str
    ctx_size: int  # tokens of one sequence
    n_sequences: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The whole answer. Bytes."""

    budget_bytes: int
    fixed_bytes: int  # that the service takes besides file and KV cache, scratch included
    scratch_bytes: int
    kv_bytes: Mapping[int, Mapping[str, int]]  # context in tokens -> KV type -> bytes
    mixes: Sequence[MixFit]
    recommendation: Recommendation
    settings: Settings | None  # for the recommended mix; None when there is none
    plan: MemoryPlan | None  # of the recommended mix with these settings


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A mix with its sizes, and the bytes that the budget leaves to its file and KV cache."""

    mix: Mix
    sizes: MixSizes
    room: int

    def kv_bytes(self, kv_type: str, n_tokens: int) -> int:
        demand = self.sizes.demands[kv_type]
        return -(-n_tokens // demand.kv_block_tokens) * demand.kv_block_bytes

    def context(self, kv_type: str) -> int:
        """Return the tokens of KV cache beside the file, at most the trained context."""
        demand = self.sizes.demands[kv_type]
        blocks = max(0, self.room - self.sizes.file_bytes) // demand.kv_block_bytes
        return min(blocks * demand.kv_block_tokens, self.sizes.n_ctx_train)

    def lacking_mib(self, n_tokens: int) -> int:
        needed = self.sizes.file_bytes + self.kv_bytes("q8_0", n_tokens)
        return -(-(needed - self.room) // MIB)


def fit(
    shape: ModelShape,
    budget_bytes: int,
    *,
    context: int | None = None,
    bandwidths: Mapping[str, float] = BOARD_BANDWIDTH,
) -> Fit:
    """Return every mix on a machine with budget_bytes, the largest first.

    context: tokens that a recommended mix must leave room for; by default 512, and up to 2048 are
    offered. bandwidths: bytes per second, by machine. Raises LlamadError for a context beyond what
    the model was trained on, and for a model that the engine does not run.
    """
    config = ModelConfig()
    candidates = [_candidate(shape, mix, config, budget_bytes) for mix in MIXES.values()]
    candidates.sort(key=lambda item: -item.sizes.file_bytes)
    least = candidates[-1]
    if context is not None and context > least.sizes.n_ctx_train:
        raise LlamadError(
            ErrorKind.INVALID,
            "INVALID_ARGUMENT",
            f"{context} tokens are more than the model's context of {least.sizes.n_ctx_train}",
        )
    best, advice = _recommend(candidates, context)
    settings = None if best is None else _settings(best, advice, config)
    plan = None
    if best is not None and settings is not None:
        plan = shape.plan(best.mix, replace(config, memory_budget=budget_bytes, **asdict(settings)))
    shown = best or least
    return Fit(
        budget_bytes=budget_bytes,
        fixed_bytes=budget_bytes - shown.room,
        scratch_bytes=_common(shown.sizes).scratch_bytes,
        kv_bytes={n: {kind: shown.kv_bytes(kind, n) for kind in ("f16", "q8_0")} for n in CONTEXTS},
        mixes=[_fit_of(shape, candidate, bandwidths) for candidate in candidates],
        recommendation=advice,
        settings=settings,
        plan=plan,
    )


def _candidate(shape: ModelShape, mix: Mix, config: ModelConfig, budget_bytes: int) -> _Candidate:
    sizes = shape.sizes(mix, config)
    fixed = fixed_bytes(_common(sizes), config.n_sequences)
    return _Candidate(mix, sizes, budget_bytes - fixed)


def _common(sizes: MixSizes) -> Demand:
    """Return the demand with the larger scratch: a candidate is judged by one figure."""
    return max(sizes.demands.values(), key=lambda demand: demand.scratch_bytes)


def _fit_of(shape: ModelShape, candidate: _Candidate, bandwidths: Mapping[str, float]) -> MixFit:
    sizes = candidate.sizes
    return MixFit(
        name=candidate.mix.name,
        file_bytes=sizes.file_bytes,
        streamed_bytes=sizes.streamed_bytes,
        bits_per_weight=8 * sizes.file_bytes / shape.weights,
        perplexity_loss=PERPLEXITY_LOSS.get(candidate.mix.name),
        resident_context={kind: candidate.context(kind) for kind in ("f16", "q8_0")},
        tokens_per_second={name: rate / sizes.streamed_bytes for name, rate in bandwidths.items()},
    )


# ---- the recommendation ------------------------------------------------------------------------


def _recommend(
    candidates: Sequence[_Candidate], context: int | None
) -> tuple[_Candidate | None, Recommendation]:
    """Take the smallest mix that loses little; where none of those fits, the one losing least."""
    needed = context or min(LEAST_CONTEXT, candidates[0].sizes.n_ctx_train)
    known = [item for item in candidates if item.mix.name in PERPLEXITY_LOSS]
    fitting = [item for item in known if item.context("q8_0") >= needed]
    if not fitting:
        least = min(known, key=_file_bytes)
        return None, Recommendation(
            None,
            0,
            f"no mix of known quality stays in memory with {needed} tokens of context: the"
            f" smallest, {least.mix.name}, lacks {least.lacking_mib(needed)} MiB; take a smaller"
            " model",
        )
    good = [item for item in fitting if _loss(item) < SMALL_LOSS]
    if good:
        best = min(good, key=_file_bytes)
        reason = (
            f"the smallest mix that loses less than 1 % of perplexity (+{_loss(best):.2f})"
            f" stays in memory; more bits would only decode slower"
        )
    else:
        best = min(fitting, key=_loss)
        following = min((item for item in known if _loss(item) < _loss(best)), key=_file_bytes)
        reason = (
            f"the least loss (+{_loss(best):.2f} perplexity) of what stays in memory with"
            f" {needed} tokens of q8_0 KV cache; {following.mix.name} lacks"
            f" {following.lacking_mib(needed)} MiB"
        )
    if _loss(best) >= LARGE_LOSS:
        reason += "; a model of half the size as Q4_K_M may serve better, and faster"
    offered = context or min(MOST_CONTEXT, best.context("q8_0"))
    return best, Recommendation(best.mix.name, offered, reason)


def _file_bytes(candidate: _Candidate) -> int:
    return candidate.sizes.file_bytes


def _loss(candidate: _Candidate) -> float:
    return PERPLEXITY_LOSS[candidate.mix.name]


def _settings(best: _Candidate, advice: Recommendation, config: ModelConfig) -> Settings:
    """Return what the service needs to be told; sequences are as many as have their own context."""
    ctx_size = max(advice.context, _common(best.sizes).kv_block_tokens)
    sequences = (best.room - best.sizes.file_bytes) // best.kv_bytes("q8_0", ctx_size)
    return Settings("q8_0", ctx_size, min(config.n_sequences, max(1, sequences)))
