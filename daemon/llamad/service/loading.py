"""Loading a model: resolve, map, plan memory, read and lock, create the engine.

Owns the order of these phases, and what they made when a later one fails. Blocking: ``load`` runs
in a thread, and nothing else uses the model meanwhile.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from llamad.config import ModelConfig
from llamad.engine.bindings import (
    NO_LIMIT,
    Engine,
    EngineModel,
    ModelInfo,
    StopFlag,
)
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.digest import model_digest
from llamad.gguf.value import MetadataValue
from llamad.jobs.request import Pooling
from llamad.logs import fields
from llamad.memory.context import USUAL_TOKENS
from llamad.memory.demand import engine_params, state_slots_of
from llamad.memory.guess_layer import open_model
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan, plan_huge_pages
from llamad.memory.residency import choose_residency
from llamad.service.adapters import open_adapters
from llamad.service.draft import plan_with_draft
from llamad.service.guess_layer import NAME, guess_layer_of
from llamad.service.loaded_model import LoadedModel
from llamad.service.settings import own_sampling, recommended_sampling
from llamad.sizes import compact_size, size
from llamad.store.registry import ModelFile, ModelRegistry
from llamad.text import tokenizer_from_metadata
from llamad.text.channels import find_channels
from llamad.text.chat_template import ChatTemplate
from llamad.text.rank_prompt import RankPrompt
from llamad.text.thinking import ThoughtMarks, find_marks
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import TokenType, Vocabulary

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0  # between two lines of it


def load(
    config: ModelConfig,
    stop: StopFlag,
    progress: Callable[[str], None] | None = None,
    ctx_sizes: Mapping[str, int | None] = MappingProxyType({}),
) -> LoadedModel:
    """Load the configured model; blocks, so it runs in a thread.

    ctx_sizes: of models that have one of their own, by name; None is auto. ``stop`` ends it early
    with kind CANCELLED; ``progress`` gets a line per phase, and more of a long one, on any thread.
    Raises LlamadError: MODEL_NOT_FOUND, MODEL_CORRUPT, OUT_OF_MEMORY and so on.
    """
    started = time.monotonic()
    tell = progress or (lambda line: None)
    registry = ModelRegistry(Path(config.directory))
    file = registry.resolve(config.path)
    config = replace(config, ctx_size=ctx_sizes.get(file.name, config.ctx_size))
    tell(f"mapping {file.name}")
    model, layer_fault = open_model(file.path, config)
    template = draft = adapters = None
    try:
        metadata = model.metadata()
        digest = _digest(file)
        tokenizer, template = _text(metadata, model.info)
        adapters = open_adapters(registry, file, model, config, metadata)
        planned = plan_with_draft(config, file, model, metadata, stop, adapters.sizes)
        config, plan, draft = planned.config, planned.plan, planned.draft
        _tell_context(config, model.info.n_ctx_train, plan)
        params = engine_params(
            config,
            plan.n_ctx,
            streams=not plan.model_fits,
            is_encoder=bool(model.info.is_encoder),
        )
        speed = _make_resident(config, file, model, plan, stop, tell)
        params["n_blocks"], params["n_local_blocks"] = plan.kv_blocks, plan.kv_local_blocks
        params["n_states"] = state_slots_of(config, model)
        engine = Engine(model, **params)
        adapters.reserve(engine)
    except BaseException:
        if adapters is not None:
            adapters.close()
        if template is not None:
            template.close()
        if draft is not None:
            draft.close()
        model.close()
        raise
    has_layer = bool(model.info.n_guess_layers)
    return LoadedModel(
        name=file.name,
        path=file.path,
        info=model.info,
        engine_info=engine.info,
        model=model,
        engine=engine,
        tokenizer=tokenizer,
        chat_template=template,
        own_sampling=own_sampling(file.name, metadata),
        recommended_sampling=recommended_sampling(file.name, registry.recommended(file)),
        digest=digest,
        thinking=_thinking_marks(template, tokenizer.vocabulary),
        pooling=_pooling(metadata, model.info.architecture),
        rank_prompt=_rank_prompt(metadata, model.info, tokenizer),
        kv_type=config.kv_type,
        n_sequences=config.n_sequences,
        plan=plan,
        config=config,
        stop=StopFlag(),
        load_seconds=time.monotonic() - started,
        disk_bytes_per_second=speed,
        draft=draft,
        guess_layer=guess_layer_of(engine) if has_layer else None,
        draft_name=planned.name or (NAME if has_layer or layer_fault else ""),
        draft_fault=planned.fault or layer_fault,
        adapters=adapters,
    )


def _digest(file: ModelFile) -> str:
    try:
        return model_digest(file.path)
    except OSError as error:
        raise LlamadError(
            ErrorKind.STATE, "MODEL_UNREADABLE", f"{file.path}: {error.strerror}"
        ) from error


def _text(metadata: Mapping[str, MetadataValue], info: ModelInfo) -> tuple[Tokenizer, ChatTemplate]:
    tokenizer = tokenizer_from_metadata(metadata)
    if tokenizer.vocab_size != info.vocab_size:
        raise LlamadError(
            ErrorKind.CORRUPT,
            "MODEL_CORRUPT",
            f"vocabulary has {tokenizer.vocab_size} tokens, the embedding {info.vocab_size}",
        )
    return tokenizer, ChatTemplate.from_metadata(metadata, tokenizer)


def _pooling(metadata: Mapping[str, MetadataValue], architecture: str) -> Pooling | None:
    value = metadata.get(f"{architecture}.pooling_type")
    return Pooling(value) if value in [pooling.value for pooling in Pooling] else None


def _rank_prompt(
    metadata: Mapping[str, MetadataValue], info: ModelInfo, tokenizer: Tokenizer
) -> RankPrompt | None:
    """Return how a reranker wants its pairs; None of a model that is none.

    One says how well a text answers, or yes and no (a decoder does); more scores are classes.
    """
    is_reranker = info.n_rank_scores == (1 if info.is_encoder else 2)
    return RankPrompt.of_model(metadata, tokenizer) if is_reranker else None


def _thinking_marks(template: ChatTemplate, vocabulary: Vocabulary) -> ThoughtMarks:
    controls = frozenset(vocabulary.ids_of(TokenType.CONTROL, TokenType.UNKNOWN))
    channels = find_channels(vocabulary.tokens, controls)
    return channels or find_marks(template.source, vocabulary.tokens, controls)


def _tell_context(config: ModelConfig, n_ctx_train: int, plan: MemoryPlan) -> None:
    """Warn of a context that is smaller than who configured it, or nobody, would think."""
    if config.ctx_size is not None and plan.n_ctx < config.ctx_size:
        logger.warning(
            fields(
                "context reduced to the model's", ctx_size=config.ctx_size, n_ctx_train=plan.n_ctx
            )
        )
    elif config.ctx_size is None and plan.n_ctx < min(n_ctx_train, USUAL_TOKENS):
        logger.warning(
            fields(
                "context reduced to what memory allows beside the model: a smaller quantization,"
                ' or model.kv_type = "q8_0", leaves more',
                n_ctx=plan.n_ctx,
                n_ctx_train=n_ctx_train,
                kv_type=config.kv_type,
            )
        )


def _make_resident(
    config: ModelConfig,
    file: ModelFile,
    model: EngineModel,
    plan: MemoryPlan,
    stop: StopFlag,
    tell: Callable[[str], None],
) -> float | None:
    """Read in what stays in memory and lock it, stream the rest; return the disk's speed.

    In bytes per second; None where the most was in the page cache already.
    """
    machine = Machine()
    began, read_before = time.monotonic(), machine.disk_read_bytes()
    huge_pages = plan_huge_pages(
        config.huge_pages,
        file_bytes=file.file_bytes,
        available_bytes=machine.available_bytes(),
        is_board=machine.is_board(),
    )
    copied = plan.model_fits and huge_pages
    if copied:
        tell(f"copying {file.name}, {size(file.file_bytes)}, into huge pages")
        model.use_huge_pages(stop)
    if plan.streamed_bytes:
        logger.warning(
            fields(
                "model does not fit its memory, part of it is read for every token",
                size=compact_size(file.file_bytes),
                resident=compact_size(plan.resident_bytes),
                streamed=compact_size(plan.streamed_bytes),
            )
        )
    residency = choose_residency(model.extents(), file.file_bytes, plan.room_bytes)
    assert residency is not None, "the plan has room for one"
    doing = "locking" if copied else "reading"
    with _told_how_far(model, f"{doing} {file.name}", residency.resident_bytes, tell):
        locked = model.set_residency(
            residency.resident,
            residency.ring_bytes,
            expert_slots=residency.expert_slots,
            lock_bytes=NO_LIMIT if config.lock else 0,  # the kernel knows how much it may be
            stop=stop,
        )
    if locked.fault:
        logger.warning(
            fields(
                "model locked in part",
                fault=locked.fault,
                locked=compact_size(locked.n_bytes),
                resident=compact_size(plan.resident_bytes),
            )
        )
    read_bytes = machine.disk_read_bytes() - read_before
    if read_bytes < plan.resident_bytes // 2:
        return None
    return read_bytes / (time.monotonic() - began)


@contextlib.contextmanager
def _told_how_far(
    model: EngineModel, doing: str, n_bytes: int, tell: Callable[[str], None]
) -> Iterator[None]:
    """Say what is done, and each second how much of it, until it is over."""
    tell(f"{doing}, {size(n_bytes)}")
    over = threading.Event()

    def follow() -> None:
        while not over.wait(PROGRESS_SECONDS):
            done = min(model.residency().populated_bytes, n_bytes)
            tell(f"{doing}, {size(done)} of {size(n_bytes)}")

    thread = threading.Thread(target=follow, name="llamad-loading")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
