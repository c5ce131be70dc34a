"""Which mix of a model fits a machine: sizes, memory, speed, loss, and a recommendation.

Pure arithmetic on the tensor table of a file, written or to be written, and on a budget in bytes;
reading either is the tool's business. Sizes are exact, the scratch is an estimate, loss and the
boards' speed come from tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamad.engine.bindings import TensorInfo, row_bytes
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue, RawEntry, encode_string
from llamad.memory.plan import KV_BLOCK_TOKENS, MARGIN_BYTES, MIB
from llamad_tools.mixes import (
    FILE_TYPE,
    MIXES,
    QUANTIZATION_VERSION,
    Mix,
    MixedModel,
    describe_model,
    hyperparameter,
    is_quantizable,
    tensor_type,
)

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
MOST_SEQUENCES = 4  # of a recommendation: the service's default
DEFAULT_BATCH, LOGIT_ROWS, THREADS = 256, 12, 4  # of the scratch, as the service would allocate it


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the arithmetic asks of a file. Bytes and counts."""

    tensors: Sequence[TensorInfo]
    mixed: MixedModel
    header_bytes: int  # of a quantized copy, padding included
    alignment: int
    n_kv_heads: int
    head_dim: int
    query_dim: int
    dim: int
    hidden_dim: int
    vocab_size: int
    n_ctx_train: int  # tokens

    @property
    def weights(self) -> int:
        """The number of weights, vectors included."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    def kv_bytes(self, kv_type: str, n_tokens: int) -> int:
        """Return the bytes of a KV cache of f16 or q8_0 (a scale of 2 bytes to 32 values)."""
        heads = 2 * self.mixed.n_layers * self.n_kv_heads
        if kv_type == "f16":
            return heads * self.head_dim * 2 * n_tokens
        return heads * (self.head_dim + 2 * -(-self.head_dim // 32)) * n_tokens

    def scratch_bytes(self) -> int:
        """Return about what the engine allocates beside weights and KV cache."""
        floats = 2 * (self.dim + self.query_dim + self.n_kv_heads * self.head_dim)
        quantized = 5 * (max(self.dim, self.query_dim) + self.hidden_dim)  # bytes, in two levels
        rows = DEFAULT_BATCH * (4 * floats + quantized)
        threads = THREADS * 64 * max(self.dim, self.hidden_dim)
        return rows + threads + 4 * LOGIT_ROWS * self.vocab_size


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


def describe_shape(entries: Sequence[RawEntry], tensors: Sequence[TensorInfo]) -> ModelShape:
    """Return the shape of a model file. Raises LlamadError when it is no transformer of ours."""
    metadata = {entry.key: entry.decode() for entry in entries}
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    (dim, vocab_size), (_, query_dim), (_, kv_dim), (_, hidden_dim) = (
        _matrix(shapes, name)
        for name in (
            "token_embd.weight",
            "blk.0.attn_q.weight",
            "blk.0.attn_k.weight",
            "blk.0.ffn_up.weight",
        )
    )
    n_heads = hyperparameter(metadata, "attention.head_count", 1)
    n_kv_heads = hyperparameter(metadata, "attention.head_count_kv", n_heads)
    alignment = _alignment(metadata)
    return ModelShape(
        tensors=tensors,
        mixed=describe_model(metadata, shapes, has_importance=False),
        header_bytes=_padded(_header_bytes(entries, tensors), alignment),
        alignment=alignment,
        n_kv_heads=n_kv_heads,
        head_dim=max(1, kv_dim // n_kv_heads),
        query_dim=query_dim,
        dim=dim,
        hidden_dim=hidden_dim,
        vocab_size=vocab_size,
        n_ctx_train=hyperparameter(metadata, "context_length", MOST_CONTEXT),
    )


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


# ---- sizes -------------------------------------------------------------------------------------


def mix_types(shape: ModelShape, mix: Mix) -> Mapping[str, str]:
    """Return each tensor's type in a mix, as ``llamad quantize`` chooses it."""
    return {
        tensor.name: tensor_type(mix, tensor.name, tensor.shape, shape.mixed)
        if is_quantizable(tensor.name, tensor.shape)
        else tensor.type_name
        for tensor in shape.tensors
    }


def _fit_mix(shape: ModelShape, mix: Mix, room: int, bandwidths: Mapping[str, float]) -> MixFit:
    """room: bytes for the file and the KV cache."""
    types = mix_types(shape, mix)
    sizes = {tensor.name: _bytes_as(tensor, types[tensor.name]) for tensor in shape.tensors}
    file_bytes = shape.header_bytes + sum(_padded(n, shape.alignment) for n in sizes.values())
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


def _bytes_as(tensor: TensorInfo, type_name: str) -> int:
    if type_name == tensor.type_name:
        return tensor.n_bytes
    return row_bytes(type_name, tensor.shape[0]) * math.prod(tensor.shape[1:])


def _context_in(shape: ModelShape, kv_type: str, n_bytes: int) -> int:
    """Return the tokens of KV cache in n_bytes, in whole blocks, at most the trained context."""
    blocks = max(0, n_bytes) // shape.kv_bytes(kv_type, KV_BLOCK_TOKENS)
    return min(blocks * KV_BLOCK_TOKENS, shape.n_ctx_train)


def _header_bytes(entries: Sequence[RawEntry], tensors: Sequence[TensorInfo]) -> int:
    """Return the bytes before the data of a quantized copy, without padding."""
    total = 4 + 4 + 8 + 8  # magic, version, two counts
    for key in (FILE_TYPE, QUANTIZATION_VERSION):
        total += len(encode_string(key)) + 4 + 4
    for entry in entries:
        if entry.key not in (FILE_TYPE, QUANTIZATION_VERSION):
            total += len(encode_string(entry.key)) + len(entry.encode())
    for tensor in tensors:
        total += len(encode_string(tensor.name)) + 4 + 8 * len(tensor.shape) + 4 + 8
    return total


def _matrix(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, int]:
    """Return the columns and rows of a matrix that every model of ours has."""
    shape = shapes.get(name, ())
    if len(shape) != 2 or min(shape) < 1:
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_UNSUPPORTED",
            f"the file has no matrix {name}: the memory of such a model is not known",
        )
    return shape[0], shape[1]


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    value = metadata.get("general.alignment")
    return value if isinstance(value, int) and value > 0 else 32


def _padded(n_bytes: int, alignment: int) -> int:
    return n_bytes + -n_bytes % alignment


# ---- the recommendation ------------------------------------------------------------------------


def _recommend(
    shape: ModelShape, mixes: Sequence[MixFit], room: int, context: int | None
) -> Recommendation:
    """Take the smallest mix that loses little; where none of those fits, the one losing least."""
    needed = context or min(LEAST_CONTEXT, shape.n_ctx_train)
    losses = {mix.name: mix.perplexity_loss for mix in mixes if mix.perplexity_loss is not None}
    known = [mix for mix in mixes if mix.name in losses]
    fitting = [mix for mix in known if mix.resident_context["q8_0"] >= needed]
    kv_bytes = shape.kv_bytes("q8_0", _padded(needed, KV_BLOCK_TOKENS))
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
