"""Loading a draft model beside the model that it guesses for: check, plan, read, create.

Owns what keeps a draft out: another vocabulary, no room in the plan, a fault of its file. Then the
model is served without it, and the fault is told. Blocking, as ``loading.load``, which calls this.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import NO_LIMIT, Engine, EngineModel, Sampler, StopFlag
from llamad.engine.drafting import DraftChunk, Drafter, DraftRound
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue
from llamad.logs import fields
from llamad.memory.demand import NO_ADAPTERS, AdapterSizes, draft_params, plan_of
from llamad.memory.plan import MIB, MemoryPlan
from llamad.sampling.parameters import GREEDY
from llamad.service.engine_sizes import EngineSizes
from llamad.sizes import compact_size
from llamad.store.registry import ModelFile, ModelRegistry, comparable_path
from llamad.text.same_vocabulary import check_vocabulary

logger = logging.getLogger(__name__)

MOST_TIMES_STREAMED = 2  # what a token may read beside a draft, over what it reads alone


@dataclass(slots=True)
class LoadedDraft(EngineSizes):
    """A draft in memory with its engine: what ``schedule.runtime.DraftRuntime`` asks for."""

    name: str
    path: Path
    model: EngineModel
    engine: Engine
    drafter: Drafter

    @property
    def locked_bytes(self) -> int:
        """Bytes of its file that are locked."""
        return self.model.residency().locked_bytes

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Read and guess, on the engine thread. Raises the LlamadError of a step."""
        return self.drafter.run(chunks)

    def close(self) -> None:
        """Destroy the engine, then unmap the file. No other thread may be in either."""
        self.engine.close()
        self.model.close()


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a model; with its draft, or what is wrong with that (empty: there is none)."""

    config: ModelConfig  # without a draft where it is left out
    plan: MemoryPlan
    name: str = ""  # of the draft, or as it was asked for
    draft: LoadedDraft | None = None
    fault: str = ""


def plan_with_draft(
    config: ModelConfig,
    file: ModelFile,
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    stop: StopFlag,
    adapters: AdapterSizes = NO_ADAPTERS,
) -> Planned:
    """Return the plan of a model as configured, with the draft in memory where it can be used.

    The draft comes first, so that what may be locked is its own before the model's. Raises
    OUT_OF_MEMORY when the model alone does not fit, and CANCELLED by ``stop``.
    """
    alone = replace(config, draft="")
    plan_alone = plan_of(model, metadata, alone, adapters=adapters)
    if not config.draft:
        return Planned(alone, plan_alone)
    try:
        return _with_draft(config, file, model, metadata, plan_alone, stop, adapters)
    except LlamadError as error:
        if error.kind is ErrorKind.CANCELLED:
            raise
        logger.error(
            fields("draft left out", draft=config.draft, reason=error.reason, message=error.message)
        )
        return Planned(alone, plan_alone, config.draft, fault=error.message)


def _with_draft(
    config: ModelConfig,
    file: ModelFile,
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    plan_alone: MemoryPlan,
    stop: StopFlag,
    adapters: AdapterSizes,
) -> Planned:
    found = ModelRegistry(Path(config.directory)).resolve(config.draft)
    if comparable_path(found.path) == comparable_path(file.path):
        logger.info(fields("model is its own draft, none is used", model=file.name))
        return Planned(replace(config, draft=""), plan_alone)
    draft = EngineModel(found.path)
    try:
        check_vocabulary(file.name, metadata, found.name, draft.metadata())
        if draft.info.state_bytes:  # its guesses are taken back by cutting its cache
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_UNSUPPORTED",
                f"{found.name} has layers without attention, whose states cannot be cut:"
                " it is no draft",
            )
        plan = _plan(config, model, metadata, draft, found.name, plan_alone, adapters)
        locked = draft.set_residency(
            [True] * len(draft.extents()), lock_bytes=NO_LIMIT if config.lock else 0, stop=stop
        )
        if locked.fault:
            logger.warning(fields("draft locked in part", fault=locked.fault))
        params = draft_params(config, draft, plan.n_ctx)
        params["n_blocks"], params["n_local_blocks"] = plan.kv_blocks, plan.draft_local_blocks
        engine = Engine(draft, **params)
    except BaseException:
        draft.close()
        raise
    logger.info(
        fields(
            "draft loaded", draft=found.name, size=compact_size(plan.draft_bytes), model=file.name
        )
    )
    sampler = Sampler(GREEDY, vocab_size=engine.vocab_size, n_ctx=engine.n_ctx, seed=0)
    drafter = Drafter(engine, sampler, vocab_size=model.info.vocab_size, now=time.monotonic)
    return Planned(
        config, plan, found.name, LoadedDraft(found.name, found.path, draft, engine, drafter)
    )


def _plan(
    config: ModelConfig,
    model: EngineModel,
    metadata: Mapping[str, MetadataValue],
    draft: EngineModel,
    name: str,
    plan_alone: MemoryPlan,
    adapters: AdapterSizes,
) -> MemoryPlan:
    """Return the plan of both, unless the draft takes memory that the model needs more."""
    try:
        plan = plan_of(model, metadata, config, draft, adapters)
    except LlamadError as error:
        raise LlamadError(
            error.kind, error.reason, f"no room for {name}: {error.message}"
        ) from None
    with_it = f"no room for {name}: with its {-(-plan.draft_bytes // MIB)} MiB"
    if plan_alone.model_fits and not plan.model_fits:
        raise _no_room(
            f"{with_it} the model would no longer stay in the memory budget of"
            f" {(plan.budget_bytes or 0) // MIB} MiB"
        )
    if plan.token_read_bytes > MOST_TIMES_STREAMED * plan_alone.token_read_bytes:
        raise _no_room(
            f"{with_it} {plan.token_read_bytes // MIB} MiB would be read for every token instead of"
            f" {plan_alone.token_read_bytes // MIB}, more than it can save"
        )
    return plan


def _no_room(message: str) -> LlamadError:
    return LlamadError(ErrorKind.EXHAUSTED, "OUT_OF_MEMORY", message)
