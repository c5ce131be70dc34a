"""Which mix of a model fits a machine: memory, speed, loss, and a recommendation.

Pure arithmetic on the shape of a model and a budget in bytes. Loss and the boards' speed come from
tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamad.errors import ErrorKind, LlamadError
from llamad.memory.plan import KV_BLOCK_TOKENS, MARGIN_BYTES, MIB
from llamad_tools.advice.shape import MOST_CONTEXT, ModelShape, bytes_as, mix_types, padded
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
LEAST_CONTEXT = 512  # tokens that a recommendation needs
MOST_SEQUENCES = 4  # of a recommendation: the service's default


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
    margin_bytes: int
    scratch_bytes: int
    kv_bytes: Mapping[int, Mapping[str, int]]  # context in tokens -> KV type -> bytes
    mixes: Sequence[MixFit]
    recommendation: Recommendation
    settings: Settings | None  # for the recommended mix; None when there is none


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
    the model was trained on.
    """
    if context is not None and context > shape.n_ctx_train:
        raise LlamadError(
            ErrorKind.INVALID,
            "INVALID_ARGUMENT",
            f"{context} tokens are more than the model's context of {shape.n_ctx_train}",
        )
    fixed = MARGIN_BYTES + shape.scratch_bytes()
    mixes = [_fit_mix(shape, mix, budget_bytes - fixed, bandwidths) for mix in MIXES.values()]
    mixes.sort(key=lambda item: -item.file_bytes)
    advice = _recommend(shape, mixes, budget_bytes - fixed, context)
    return Fit(
        budget_bytes=budget_bytes,
        margin_bytes=MARGIN_BYTES,
        scratch_bytes=shape.scratch_bytes(),
        kv_bytes={n: {kind: shape.kv_bytes(kind, n) for kind in ("f16", "q8_0")} for n in CONTEXTS},
        mixes=mixes,
        recommendation=advice,
        settings=_settings(shape, mixes, budget_bytes - fixed, advice),
    )


def _fit_mix(shape: ModelShape, mix: Mix, room: int, bandwidths: Mapping[str, float]) -> MixFit:
    """room: bytes for the file and the KV cache."""
    types = mix_types(shape, mix)
    sizes = {tensor.name: bytes_as(tensor, types[tensor.name]) for tensor in shape.tensors}
    file_bytes = shape.header_bytes + sum(padded(n, shape.alignment) for n in sizes.values())
    streamed = sum(sizes.values())
    if not shape.mixed.tied_output:  # of the embedding one row is read
        streamed -= sizes["token_embd.weight"] // shape.vocab_size * (shape.vocab_size - 1)
    return MixFit(
        name=mix.name,
        file_bytes=file_bytes,
        streamed_bytes=streamed,
        bits_per_weight=8 * file_bytes / shape.weights,
        perplexity_loss=PERPLEXITY_LOSS.get(mix.name),
        resident_context={
            kind: _context_in(shape, kind, room - file_bytes) for kind in ("f16", "q8_0")
        },
        tokens_per_second={name: rate / streamed for name, rate in bandwidths.items()},
    )


def _context_in(shape: ModelShape, kv_type: str, n_bytes: int) -> int:
    """Return the tokens of KV cache in n_bytes, in whole blocks, at most the trained context."""
    blocks = max(0, n_bytes) // shape.kv_bytes(kv_type, KV_BLOCK_TOKENS)
    return min(blocks * KV_BLOCK_TOKENS, shape.n_ctx_train)


# ---- the recommendation ------------------------------------------------------------------------


def _recommend(
    shape: ModelShape, mixes: Sequence[MixFit], room: int, context: int | None
) -> Recommendation:
    """Take the smallest mix that loses little; where none of those fits, the one losing least."""
    needed = context or min(LEAST_CONTEXT, shape.n_ctx_train)
    losses = {mix.name: mix.perplexity_loss for mix in mixes if mix.perplexity_loss is not None}
    known = [mix for mix in mixes if mix.name in losses]
    fitting = [mix for mix in known if mix.resident_context["q8_0"] >= needed]
    kv_bytes = shape.kv_bytes("q8_0", padded(needed, KV_BLOCK_TOKENS))
    if not fitting:
        least = min(known, key=lambda mix: mix.file_bytes)
        lacking = -(-(least.file_bytes + kv_bytes - room) // MIB)
        return Recommendation(
            None,
            0,
            f"no mix of known quality stays in memory with {needed} tokens of context: the"
            f" smallest, {least.name}, lacks {lacking} MiB; take a smaller model",
        )
    good = [mix for mix in fitting if losses[mix.name] < SMALL_LOSS]
    if good:
        best = min(good, key=lambda mix: mix.file_bytes)
        reason = (
            f"the smallest mix that loses less than 1 % of perplexity (+{losses[best.name]:.2f})"
            f" stays in memory; more bits would only decode slower"
        )
    else:
        best = min(fitting, key=lambda mix: losses[mix.name])
        better = [mix for mix in known if losses[mix.name] < losses[best.name]]
        following = min(better, key=lambda mix: mix.file_bytes)
        lacking = -(-(following.file_bytes + kv_bytes - room) // MIB)
        reason = (
            f"the least loss (+{losses[best.name]:.2f} perplexity) of what stays in memory with"
            f" {needed} tokens of q8_0 KV cache; {following.name} lacks {lacking} MiB"
        )
    if losses[best.name] >= LARGE_LOSS:
        reason += "; a model of half the size as Q4_K_M may serve better, and faster"
    offered = context or min(MOST_CONTEXT, best.resident_context["q8_0"])
    return Recommendation(best.name, offered, reason)


def _settings(
    shape: ModelShape, mixes: Sequence[MixFit], room: int, advice: Recommendation
) -> Settings | None:
    """Return what the service needs to be told; sequences are as many as have their own context."""
    if advice.mix is None:
        return None
    [file_bytes] = (mix.file_bytes for mix in mixes if mix.name == advice.mix)
    ctx_size = max(advice.context, KV_BLOCK_TOKENS)
    sequences = (room - file_bytes) // shape.kv_bytes("q8_0", ctx_size)
    return Settings("q8_0", ctx_size, min(MOST_SEQUENCES, max(1, sequences)))
