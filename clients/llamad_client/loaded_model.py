"""The model that a service has loaded: what it is, and what its memory was divided into."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The model that answers."""

    name: str
    path: str
    architecture: str
    file_bytes: int
    locked_bytes: int
    n_ctx: int
    n_ctx_train: int
    vocab_size: int
    load_seconds: float
    kv_type: str
    streamed_bytes: int
    bytes_read_per_token: int
    seconds_per_token: float
    disk_read_bytes_per_second: float
    share_of_disk_time_hidden: float
    expert_uses: int = 0
    expert_hits: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What the loaded model's memory was divided into, in bytes: `MemoryPlan` in status.proto."""

    budget_bytes: int
    process_bytes: int
    connections_bytes: int
    template_bytes: int
    vocabulary_bytes: int
    samplers_bytes: int
    scratch_bytes: int
    kv_bytes: int
    resident_bytes: int
    streamed_bytes: int
    lockable_bytes: int
    kv_blocks: int
    on_demand_bytes: int
    streaming_bytes: int
    draft_bytes: int
    kv_local_blocks: int = 0
    draft_local_blocks: int = 0
    adapters_bytes: int = 0
    expert_bytes: int = 0
    token_read_bytes: int = 0
