"""What files, models and engines say of themselves: plain values, filled by the bindings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a GGUF file; ``shape`` is as in the file, the row length first."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    n_bytes: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The hyperparameters and sizes of a model; bytes and tokens."""

    architecture: str
    n_layers: int
    dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_ctx_train: int
    file_bytes: int
    weight_bytes: int
    streamed_bytes: int
    kv_bytes_per_token_f16: int
    kv_bytes_per_token_q8_0: int


@dataclass(frozen=True, slots=True)
class EngineBytes:
    """What an engine will allocate, to the byte.

    The scratch, logits included, takes memory at create; a KV block when it is first used.
    sampler_bytes: the most that one sampler over the engine's vocabulary takes.
    """

    n_blocks: int
    kv_block_tokens: int
    kv_block_bytes: int
    kv_bytes: int
    scratch_bytes: int
    sampler_bytes: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine allocated."""

    kv_bytes: int
    scratch_bytes: int
    kv_block_tokens: int
    kv_blocks_total: int
    n_threads: int
    kernel_set: str


@dataclass(frozen=True, slots=True)
class Locked:
    """What ``EngineModel.lock`` locked: bytes of whole pages, and one line on what stopped it."""

    n_bytes: int
    fault: str  # empty: all weights that the limit holds are locked
