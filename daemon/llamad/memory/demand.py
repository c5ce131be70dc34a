"""What one model takes in memory: the engine's own sizes, and those of our tables beside it.

The only place where a plan's sizes come from; for a file that exists only as a plan the same is
asked of its header. It decides nothing: plan.py divides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llamad.config import MAX_THREADS, ModelConfig
from llamad.door.capacity import Capacity, capacity_for
from llamad.engine.bindings import EngineModel, EngineParams, adapter_room_bytes, engine_bytes
from llamad.engine.run import blocks_seen
from llamad.gguf.value import MetadataValue, StringArray
from llamad.memory.context import MOST_TOKENS, plan_context
from llamad.memory.formats import formats_bytes
from llamad.memory.machine import Machine
from llamad.memory.plan import Demand, MemoryPlan, plan_memory, vocabulary_bytes
from llamad.memory.states import state_slots

GUESS_ROWS = 8  # of logits, for guessed tokens; over all sequences
DRAFT_GUESS_ROWS = 16  # with a draft model, which guesses further
DRAFT_BATCH = 64  # most rows of a draft's step: it reads prompts beside the model's steps
DRAFT_KV_TYPE = "q8_0"  # a rounded cache costs a draft some right guesses, and the text nothing
STREAMED_GUESS_ROWS = 16  # where weights stream: rows cost nothing while the disk reads
ENCODER_TOKENS = 2048  # most of a text, where nobody says: a step takes all of it
TEMPLATE_BYTES = 12 << 20  # of its own, between requests; the libraries are the service's too


@dataclass(frozen=True, slots=True)
class AdapterSizes:
    """What adapters (LoRA) beside a model take: bytes of their own, and the largest rank."""

    n_bytes: int = 0
    max_rank: int = 0


NO_ADAPTERS = AdapterSizes()


def capacity_of(config: ModelConfig) -> Capacity:
    """Return how many callers a service with this configuration serves.

    By the memory that it may have, not by what of it is free now: so the door, which opens before a
    model is loaded, and each plan come to the same.
    """
    return capacity_for(memory_of(config))


def state_slots_of(config: ModelConfig, model: EngineModel) -> int:
    """Return how many states of sequences the engine of a model has room for; 0: it has none."""
    return state_slots(model.info.state_bytes, config.n_sequences, memory_of(config))


def memory_of(config: ModelConfig) -> int | None:
    """Return the memory that a service may have, whatever of it is free now; None: not known."""
    return config.memory_budget or Machine().total_bytes()


def engine_params(
    config: ModelConfig, n_ctx: int, *, streams: bool = False, is_encoder: bool = False
) -> EngineParams:
    """Return what the engine of a configuration is created with, but for its KV blocks.

    streams: whether weights are read for every step. is_encoder: whether a step takes whole texts.
    """
    rows = STREAMED_GUESS_ROWS if streams else GUESS_ROWS
    if config.draft:
        rows = max(rows, DRAFT_GUESS_ROWS)
    return EngineParams(
        n_threads=config.threads or min(Machine().cpus(), MAX_THREADS),
        n_ctx=n_ctx,
        n_batch=max(config.batch, n_ctx) if is_encoder else config.batch,
        n_logits=1 if is_encoder else min(config.batch, config.n_sequences + rows),
        kv_type=config.kv_type,
    )


def draft_params(config: ModelConfig, draft: EngineModel, n_ctx: int) -> EngineParams:
    """Return what the engine of a draft is created with, but for its KV blocks."""
    return EngineParams(
        n_threads=engine_params(config, n_ctx)["n_threads"],
        n_ctx=min(n_ctx, draft.info.n_ctx_train or n_ctx),
        n_batch=max(config.n_sequences, DRAFT_BATCH),
        n_logits=config.n_sequences,
        kv_type=DRAFT_KV_TYPE,
    )


def context(
    config: ModelConfig,
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    budget_bytes: int | None,
    draft: EngineModel | None = None,
    adapters: AdapterSizes = NO_ADAPTERS,
) -> int:
    """Return the tokens of one sequence: as configured, at most what the model was trained on.

    Where the configuration does not say: what memory allows, at most its ``kv_tokens``.
    """
    trained = model.info.n_ctx_train
    if model.info.is_encoder:
        return min(config.ctx_size or ENCODER_TOKENS, trained)
    asked = config.ctx_size or config.kv_tokens
    if asked:
        most = trained if trained > 0 else asked
        return min(asked, most) if config.ctx_size else min(asked, most, MOST_TOKENS)

    capacity, memory = capacity_of(config), memory_of(config)

    def demand(n_ctx: int) -> Demand:
        params = _with_all_blocks(config, model, n_ctx)
        own = demand_of(model, metadata, params, capacity, memory, adapters)
        return _beside(own, config, draft, n_ctx)

    return plan_context(
        demand, budget_bytes=budget_bytes, n_ctx_train=trained, n_sequences=config.n_sequences
    )


def _with_all_blocks(config: ModelConfig, model: EngineModel, n_ctx: int) -> EngineParams:
    """Return the parameters with as many blocks as are configured, or one context a sequence.

    The scratch has some bytes for each block.
    """
    params = engine_params(config, n_ctx, is_encoder=bool(model.info.is_encoder))
    params["n_states"] = state_slots_of(config, model)
    block = engine_bytes(model, **params).kv_block_tokens
    params["n_blocks"] = -(-(config.kv_tokens or n_ctx * config.n_sequences) // block)
    return params


def demand_of(
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    params: EngineParams,
    capacity: Capacity,
    memory_bytes: int | None = None,
    adapters: AdapterSizes = NO_ADAPTERS,
) -> Demand:
    """Return what a model, its engine and callers take; raise EngineError as creating it would.

    memory_bytes: that the service may have, by which caches are bounded; None: not known.
    """
    sizes = engine_bytes(model, **params)
    room = adapter_room_bytes(model, adapters.max_rank, **params)
    n_tokens = _length(metadata, "tokenizer.ggml.tokens")
    vocabulary = vocabulary_bytes(n_tokens, _length(metadata, "tokenizer.ggml.merges"))
    if not model.info.is_encoder:
        vocabulary += formats_bytes(n_tokens, memory_bytes)
    return Demand(
        file_bytes=model.info.file_bytes,
        extents=model.extents(),
        kv_block_bytes=sizes.kv_block_bytes,
        kv_block_tokens=sizes.kv_block_tokens,
        scratch_bytes=sizes.scratch_bytes,
        sampler_bytes=sizes.sampler_bytes,
        vocabulary_bytes=vocabulary,
        template_bytes=TEMPLATE_BYTES,
        connections_bytes=capacity.memory_bytes,
        states_bytes=sizes.n_states * sizes.state_bytes,
        kv_local_bytes=sizes.kv_local_block_bytes,
        kv_window=sizes.kv_window,
        step_rows=params.get("n_batch", 0),
        adapters_bytes=adapters.n_bytes + room,
        expert_share=model.info.n_experts_used / max(1, model.info.n_experts),
    )


def _beside(demand: Demand, config: ModelConfig, draft: EngineModel | None, n_ctx: int) -> Demand:
    """Return the demand of a model and its draft."""
    if draft is None:
        return demand
    params = draft_params(config, draft, n_ctx)
    params["n_blocks"] = -(-n_ctx // demand.kv_block_tokens) * config.n_sequences
    sizes = engine_bytes(draft, **params)
    # the window of each sequence and its guesses, and a step that reads
    seen = blocks_seen(sizes.kv_window, 1, sizes.kv_block_tokens) + 1
    n_local = config.n_sequences * seen + -(-params.get("n_batch", 0) // sizes.kv_block_tokens)
    return replace(
        demand,
        draft_fixed_bytes=draft.info.file_bytes + sizes.scratch_bytes + sizes.sampler_bytes,
        draft_block_bytes=sizes.kv_block_bytes,
        draft_local_bytes=sizes.kv_local_block_bytes,
        draft_local_blocks=n_local,
    )


def plan_of(
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    config: ModelConfig,
    draft: EngineModel | None = None,
    adapters: AdapterSizes = NO_ADAPTERS,
    *,
    locked_bytes: int = 0,
) -> MemoryPlan:
    """Return the plan of a model as configured, on this machine. Raises OUT_OF_MEMORY.

    draft: the model that guesses for it, which stays in memory whole, as adapters do.
    locked_bytes: of files that this process has in memory now and not beside the model.
    """
    machine, budget = Machine(), config.memory_budget
    if budget is None:
        budget = machine.budget_bytes(locked_bytes)
    lock_limit = machine.lock_limit_bytes()
    n_ctx = context(config, model, metadata, budget, draft, adapters)
    params = _with_all_blocks(config, model, n_ctx)
    capacity, memory = capacity_of(config), memory_of(config)

    def plan(kv_tokens: int) -> MemoryPlan:
        return plan_memory(
            _beside(
                demand_of(model, metadata, params, capacity, memory, adapters), config, draft, n_ctx
            ),
            budget_bytes=budget,
            lock_limit_bytes=lock_limit,
            kv_tokens=kv_tokens,
            n_ctx=n_ctx,
            n_sequences=config.n_sequences,
            n_local_blocks=n_local,
        )

    # With the most blocks first, then with exactly those that there are.
    n_local = 0
    most = plan(config.kv_tokens)
    params["n_blocks"], n_local = most.kv_blocks, most.kv_local_blocks
    params["n_local_blocks"] = n_local
    kv_tokens = params["n_blocks"] * engine_bytes(model, **params).kv_block_tokens
    planned = plan(kv_tokens)
    if planned.model_fits:
        return planned
    params |= engine_params(config, n_ctx, streams=True, is_encoder=bool(model.info.is_encoder))
    return plan(kv_tokens)


def _length(metadata: Mapping[str, MetadataValue], key: str) -> int:
    value = metadata.get(key)
    return len(value) if isinstance(value, list | StringArray) else 0
