"""Shapes of models of LLaMA's architecture, as files with F16 weights would have them."""

import math
from dataclasses import replace

from llamad.engine.bindings import TensorInfo
from llamad.gguf.value import MetadataValue, RawEntry, ValueType, encode_scalar
from llamad_tools.advice.shape import ModelShape, describe_shape

VOCABULARY = 32_000


def llama_shape(
    layers: int,
    dim: int,
    hidden: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    context: int = 2048,
    tied: bool = False,
    pieces: bool = True,
) -> ModelShape:
    """Return the shape of a model; ``pieces``: with the texts of its vocabulary."""
    kv_heads = kv_heads or heads
    kv_dim = dim // heads * kv_heads
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (dim, VOCABULARY)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in (
                ("attn_q", (dim, dim)),
                ("attn_k", (dim, kv_dim)),
                ("attn_v", (dim, kv_dim)),
                ("attn_output", (dim, dim)),
                ("ffn_gate", (dim, hidden)),
                ("ffn_up", (dim, hidden)),
                ("ffn_down", (hidden, dim)),
                ("attn_norm", (dim,)),
                ("ffn_norm", (dim,)),
            )
        }
    shapes["output_norm.weight"] = (dim,)
    if not tied:
        shapes["output.weight"] = (dim, VOCABULARY)
    entries = [
        text("general.architecture", "llama"),
        number("llama.block_count", layers),
        number("llama.attention.head_count", heads),
        number("llama.attention.head_count_kv", kv_heads),
        number("llama.context_length", context),
        number("llama.embedding_length", dim),
        number("llama.feed_forward_length", hidden),
        real("llama.attention.layer_norm_rms_epsilon", 1e-6),
    ]
    shape = describe_shape(entries, [tensor(name, shape) for name, shape in shapes.items()])
    if not pieces:
        return shape
    tokens: list[MetadataValue] = ["piece"] * VOCABULARY
    return replace(shape, metadata={**shape.metadata, "tokenizer.ggml.tokens": tokens})


def number(key: str, value: int) -> RawEntry:
    """Return a metadata entry with a whole number."""
    kind = ValueType.UINT32
    return RawEntry(key, kind, kind, 1, encode_scalar(value, kind))


def real(key: str, value: float) -> RawEntry:
    """Return a metadata entry with a real number."""
    kind = ValueType.FLOAT32
    return RawEntry(key, kind, kind, 1, encode_scalar(value, kind))


def text(key: str, value: str) -> RawEntry:
    """Return a metadata entry with a text."""
    return RawEntry(key, ValueType.STRING, ValueType.STRING, 1, value.encode())


def tensor(name: str, shape: tuple[int, ...]) -> TensorInfo:
    """Return a tensor: vectors as F32, matrices as F16."""
    type_name, size = ("F32", 4) if len(shape) == 1 else ("F16", 2)
    return TensorInfo(name, type_name, shape, size * math.prod(shape), 0)
