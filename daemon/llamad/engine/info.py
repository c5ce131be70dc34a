"""What files, models and engines say of themselves: plain values, filled by the bindings."""

from dataclasses import dataclass
from enum import Enum


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
    kv_bytes_per_token_q4_0: int
    state_bytes: int  # of one sequence, in layers that have a state; 0: every layer attends
    n_guess_layers: int  # 1: a layer guesses tokens (``Engine.guess``)
    is_encoder: int  # 1: no logits; every token sees its whole text
    n_rank_scores: int  # of a model that ranks texts; 0: it does not
    n_experts: int  # of a layer; 0: there are none
    n_experts_used: int  # of them, for a token


@dataclass(frozen=True, slots=True)
class EngineBytes:
    """What an engine will allocate, to the byte.

    The scratch, logits included, takes memory at create; a KV block, or a state, when it is first
    used.
    sampler_bytes: the most that one sampler over the engine's vocabulary takes.
    """

    n_blocks: int
    n_local_blocks: int  # of layers with a window; 0: there are none
    kv_block_tokens: int
    kv_window: int  # tokens that such a layer sees, their own included; 0: there are none
    kv_block_bytes: int
    kv_local_block_bytes: int
    kv_bytes: int  # of all blocks
    scratch_bytes: int
    n_states: int  # slots of states; 0: every layer attends
    state_bytes: int  # of one
    sampler_bytes: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine allocated."""

    kv_bytes: int
    scratch_bytes: int
    kv_block_bytes: int
    kv_local_block_bytes: int
    kv_block_tokens: int
    kv_blocks_total: int
    kv_local_blocks_total: int
    kv_window: int
    n_states: int
    n_threads: int
    long_rope: int  # 1: LongRoPE with the factors for long contexts, because n_ctx is long
    kernel_set: str


class Role(Enum):
    """What an extent of a model file is for."""

    VECTOR = "vector"  # norms, biases and a layer that guesses: always in memory
    ATTENTION = "attention"
    FEED = "feed"
    EXPERT = "expert"  # only some rows use it
    OUTPUT = "output"  # also where it is the embedding's matrix
    EMBEDDING = "embedding"  # of which a step reads a row for each of its tokens


@dataclass(frozen=True, slots=True)
class Extent:
    """Consecutive bytes of a model file that stay in memory, or are streamed, together."""

    role: Role
    layer: int  # -1: of no layer
    file_offset: int
    n_bytes: int
    expert: int = -1  # of an expert: which of its layer's


@dataclass(frozen=True, slots=True)
class ResidencyInfo:
    """What of a model is in memory, and what was read since it was opened. Bytes and seconds."""

    resident_bytes: int  # of the extents that stay
    streamed_bytes: int  # of those that every step reads
    locked_bytes: int  # whole pages, the ring not included
    populated_bytes: int  # so far of the resident ones, in the last change
    ring_bytes: int
    read_bytes: int  # for steps, experts included: whole pages from the disk
    passes: int  # steps to their end that could read weights
    read_seconds: float  # of the reads: read_bytes in them is the disk's speed
    wait_seconds: float  # in which a step could not go on for the disk
    expert_uses: int  # experts that steps chose of those that have no place of their own, and
    expert_hits: int  # found in a slot
    expert_read_bytes: int  # of read_bytes
    expert_guesses: int  # experts not in memory that the next layer was guessed to choose,
    expert_guesses_right: int  # and did
    expert_slots: int
    direct: bool  # past the page cache; else the file system refuses that


@dataclass(frozen=True, slots=True)
class Locked:
    """What ``set_residency`` locked: bytes of whole pages, and one line on what stopped it."""

    n_bytes: int
    fault: str  # empty: everything that was to be locked is


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a file of low-rank adapters has."""

    bytes: int  # of memory; what the file has as Q8_0 is kept as F32
    n_pairs: int  # tensors of the model that it changes
    max_rank: int
    alpha: float  # 0: the file has none, and what it adds is not scaled by alpha / rank
