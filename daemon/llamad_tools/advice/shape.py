"""The shape of a model, written or to be written: its tensors, and their sizes in another mix.

Pure arithmetic on the tensor table of a file; sizes are exact, the scratch is an estimate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamad.engine.bindings import TensorInfo, row_bytes
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue, RawEntry, encode_string
from llamad_tools.quantize.mixes import (
    FILE_TYPE,
    QUANTIZATION_VERSION,
    Mix,
    MixedModel,
    describe_model,
    hyperparameter,
    is_quantizable,
    tensor_type,
)

MOST_CONTEXT = 2048  # tokens that a recommendation offers
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
        header_bytes=padded(_header_bytes(entries, tensors), alignment),
        alignment=alignment,
        n_kv_heads=n_kv_heads,
        head_dim=max(1, kv_dim // n_kv_heads),
        query_dim=query_dim,
        dim=dim,
        hidden_dim=hidden_dim,
        vocab_size=vocab_size,
        n_ctx_train=hyperparameter(metadata, "context_length", MOST_CONTEXT),
    )


def mix_types(shape: ModelShape, mix: Mix) -> Mapping[str, str]:
    """Return each tensor's type in a mix, as ``llamad quantize`` chooses it."""
    return {
        tensor.name: tensor_type(mix, tensor.name, tensor.shape, shape.mixed)
        if is_quantizable(tensor.name, tensor.shape)
        else tensor.type_name
        for tensor in shape.tensors
    }


def bytes_as(tensor: TensorInfo, type_name: str) -> int:
    """Return the bytes of a tensor in another type."""
    if type_name == tensor.type_name:
        return tensor.n_bytes
    return row_bytes(type_name, tensor.shape[0]) * math.prod(tensor.shape[1:])


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


def padded(n_bytes: int, alignment: int) -> int:
    """Return n_bytes up to the next multiple of alignment."""
    return n_bytes + -n_bytes % alignment
