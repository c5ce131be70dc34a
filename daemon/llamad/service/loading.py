"""Loading a model: resolve, map, plan memory, read and lock, create the engine.

Owns the order of these phases and the life of what they make. Blocking: ``load`` runs in a thread,
and nothing else uses the model meanwhile.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from llamad.config import ModelConfig
from llamad.engine.bindings import (
    NO_LIMIT,
    Constraint,
    Engine,
    EngineInfo,
    EngineModel,
    ModelInfo,
    ResidencyInfo,
    Sampler,
    StopFlag,
)
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.digest import model_digest
from llamad.gguf.value import MetadataValue
from llamad.jobs.request import GenerationRequest, Pooling
from llamad.logs import fields
from llamad.memory.context import USUAL_TOKENS
from llamad.memory.demand import engine_params, memory_of, state_slots_of
from llamad.memory.formats import format_caches
from llamad.memory.guess_layer import open_model
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan, plan_huge_pages
from llamad.memory.pressure import Grant
from llamad.memory.replan import least_budget, plan_again, whole_budget
from llamad.memory.residency import choose_residency
from llamad.memory.states import state_interval
from llamad.schedule.prompt import offered_tools
from llamad.service.adapters import Adapters, open_adapters
from llamad.service.answer_formats import AnswerFormats
from llamad.service.draft import LoadedDraft, plan_with_draft
from llamad.service.engine_sizes import EngineSizes
from llamad.service.guess_layer import NAME, GuessLayer, guess_layer_of
from llamad.service.settings import own_sampling, recommended_sampling
from llamad.sizes import compact_size, size
from llamad.store.registry import ModelFile, ModelRegistry
from llamad.text import tokenizer_from_metadata
from llamad.text.channels import find_channels
from llamad.text.chat_template import ChatTemplate
from llamad.text.detokenizer import Detokenizer
from llamad.text.rank_prompt import RankPrompt
from llamad.text.thinking import TAIL_TOKENS, Splitter, ThoughtMarks, find_marks
from llamad.text.tokenizer import Tokenizer
from llamad.text.tools.call import Tools
from llamad.text.tools.splitter import CallSplitter
from llamad.text.vocabulary import TokenType, Vocabulary

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0  # between two lines of it
CARD_BYTES_PER_SECOND = 40e6  # of a disk from which nothing was read yet: an SD card


@dataclass(slots=True)
class LoadedModel(EngineSizes):
    """A model in memory with its engine: what ``schedule.runtime.ModelRuntime`` asks for, and more.

    The tokenizer and the template may be used by any thread; the engine belongs to the engine
    thread; everything else is constant.
    """

    name: str
    path: Path
    info: ModelInfo
    engine_info: EngineInfo  # as created: sizes, threads, kernel set
    model: EngineModel
    engine: Engine
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    thinking: ThoughtMarks
    own_sampling: Mapping[str, float]  # that its file asks for
    recommended_sampling: Mapping[str, float]  # that was said when it was added
    digest: str  # tells its file from others (gguf/digest.py)
    pooling: Pooling | None  # what its file says vectors are made of
    rank_prompt: RankPrompt | None  # how it wants a question and a text; None: it does not rank
    kv_type: str
    n_sequences: int  # decoded together; the engine knows blocks only
    plan: MemoryPlan
    config: ModelConfig
    stop: StopFlag  # ends what still reads when the model is closed
    load_seconds: float
    disk_bytes_per_second: float | None  # in which it was read; None: most was in memory already
    draft: LoadedDraft | None  # which guesses for it, on the same thread
    guess_layer: GuessLayer | None  # of its own, which guesses where there is no draft
    draft_name: str  # of what guesses, or as it was asked for
    draft_fault: str  # why nothing guesses though it was asked for, or the file has a layer
    adapters: Adapters  # that requests may go through
    formats: AnswerFormats = field(init=False)

    def __post_init__(self) -> None:
        self.formats = AnswerFormats(
            self.tokenizer,
            self.thinking,
            lambda: self.chat_template.tool_format,
            format_caches(memory_of(self.config), self.n_sequences),
        )

    @property
    def file(self) -> ModelFile:
        """The file it was loaded from."""
        return ModelFile(self.name, self.path, self.info.file_bytes)

    @property
    def locked_bytes(self) -> int:
        """Bytes of the file, and of its draft's, that are locked."""
        draft = 0 if self.draft is None else self.draft.locked_bytes
        return self.residency().locked_bytes + draft

    @property
    def progress(self) -> int:
        """A number that a running step changes, the draft's too. Any thread."""
        draft = 0 if self.draft is None else self.draft.engine.progress
        return self.engine.progress + draft

    def residency(self) -> ResidencyInfo:
        """Return what of the file is in memory now, and what was read. Any thread."""
        return self.model.residency()

    def grant(self) -> Grant:
        """Return the budget that the model was loaded with, as the beginning of a grant."""
        whole = whole_budget(self.plan, self.info.file_bytes)
        return Grant(
            whole if self.plan.budget_bytes is None else self.plan.budget_bytes,
            wanted_bytes=min(whole, self.config.memory_budget or whole),
            least_bytes=least_budget(self.plan, self.model.extents(), self.info.file_bytes),
            file_bytes=self.info.file_bytes,
            limit_bytes=Machine().limit_bytes(),
        )

    def plan_again(self, budget_bytes: int) -> MemoryPlan:
        """Divide another budget, and move the weights. Blocks; beside steps that run.

        Raises LlamadError when the file cannot be read, or with kind CANCELLED by ``stop``.
        """
        self.plan, residency = plan_again(
            self.plan, self.model.extents(), self.info.file_bytes, budget_bytes
        )
        self.model.set_residency(
            residency.resident,
            residency.ring_bytes,
            expert_slots=residency.expert_slots,
            lock_bytes=NO_LIMIT if self.config.lock else 0,
            stop=self.stop,
        )
        return self.plan

    @property
    def ends_answers(self) -> bool:
        """Whether it has a chat template of its own and a token that ends an answer."""
        return not self.chat_template.substitute and bool(self.tokenizer.vocabulary.end_ids)

    @property
    def is_encoder(self) -> bool:
        """Whether it makes vectors only, of texts that are computed in one step each."""
        return bool(self.info.is_encoder)

    @property
    def embedding_dim(self) -> int:
        """Numbers of a vector."""
        return self.info.dim

    @property
    def n_rank_scores(self) -> int:
        """Scores that it gives a text that it ranks; 0: it does not rank."""
        return self.info.n_rank_scores

    @property
    def guess_rows(self) -> int:
        """Rows of logits one step may keep beyond one for each sequence."""
        return self.engine.n_logits - self.n_sequences

    @property
    def n_states(self) -> int:
        """Slots of states of the engine; 0: every layer attends."""
        return self.engine_info.n_states

    @property
    def state_interval(self) -> int:
        """KV blocks from one state that is kept to the next."""
        return state_interval(self.info.state_bytes, self.engine_info.kv_block_bytes)

    @property
    def step_read_seconds(self) -> float:
        """How long the disk needs for a token of one sequence, at the speed seen so far."""
        info = self.model.residency()
        seen = info.read_bytes / info.read_seconds if info.read_bytes else CARD_BYTES_PER_SECOND
        return self.plan.token_read_bytes / seen

    def new_detokenizer(self) -> Detokenizer:
        """Create a detokenizer for one completion."""
        return Detokenizer(self.tokenizer)

    def new_thinking_splitter(self, prompt: Sequence[int]) -> Splitter | None:
        """Create what tells thoughts from the answer to this prompt; None for a model without."""
        return self.thinking.splitter(self._tail(prompt))

    def _tail(self, prompt: Sequence[int]) -> str:
        """Return the end of a prompt as text, control tokens with their names."""
        tail = (self.tokenizer.piece(token, special=True) for token in prompt[-TAIL_TOKENS:])
        return b"".join(tail).decode(errors="replace")

    def new_call_splitter(
        self, request: GenerationRequest, prompt: Sequence[int]
    ) -> CallSplitter | None:
        """Create what tells calls of tools from the answer; None for a request without tools."""
        tools = offered_tools(request)
        if not tools:
            return None
        row = self.chat_template.tool_format
        controls = row.controls_in(self.tokenizer.vocabulary)
        return CallSplitter(row, Tools(tools), row.opened(self._tail(prompt)), controls)

    def begun_answer(self, prompt: Sequence[int], request: GenerationRequest) -> list[int]:
        """Return what follows a prompt, so that the answer has no thought."""
        if request.continue_final_message or request.thinking.enabled is not False:
            return []
        told = bool(self.chat_template.thinking_arguments(False))
        tail, calls = self._tail(prompt), request.offers_tools
        text = self.thinking.without_thought(tail, told=told, calls=calls)
        return self.tokenizer.encode(text, add_bos=False, parse_special=True) if text else []

    def new_sampler(
        self,
        request: GenerationRequest,
        *,
        seed: int,
        n_draws: int = 0,
        mu: float | None = None,
        constraint: Constraint | None = None,
    ) -> Sampler:
        """Create a sampler for one sequence; raise LlamadError when a parameter is refused."""
        sampler = Sampler(
            request.sampling,
            vocab_size=self.vocab_size,
            n_ctx=self.n_ctx,
            seed=seed,
            n_draws=n_draws,
            mu=mu,
            forbidden=self.tokenizer.vocabulary.end_ids,
            first_draw=request.min_tokens,
            piece=self.tokenizer.piece,
        )
        if constraint is not None:
            sampler.constrain(constraint)
        return sampler

    def close(self) -> None:
        """Destroy the engine, then unmap the model. No other thread may be in either."""
        self.chat_template.close()
        self.formats.close()
        if self.draft is not None:
            self.draft.close()
        self.engine.close()
        self.adapters.close()
        self.model.close()


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
