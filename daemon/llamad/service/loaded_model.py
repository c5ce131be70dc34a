"""A model in memory with its engine, and what the scheduler and the service ask of it.

Owns what it is made of until ``close``; loading.py makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from llamad.jobs.request import GenerationRequest, Pooling
from llamad.memory.demand import memory_of
from llamad.memory.formats import format_caches
from llamad.memory.machine import Machine
from llamad.memory.plan import MemoryPlan
from llamad.memory.pressure import Grant
from llamad.memory.replan import least_budget, plan_again, whole_budget
from llamad.memory.states import state_interval
from llamad.schedule.prompt import template_tools
from llamad.service.adapters import Adapters
from llamad.service.answer_formats import AnswerFormats
from llamad.service.draft import LoadedDraft
from llamad.service.engine_sizes import EngineSizes
from llamad.service.guess_layer import GuessLayer
from llamad.store.registry import ModelFile
from llamad.text.chat_template import ChatTemplate
from llamad.text.detokenizer import Detokenizer
from llamad.text.rank_prompt import RankPrompt
from llamad.text.thinking import TAIL_TOKENS, Splitter, ThoughtMarks
from llamad.text.tokenizer import Tokenizer
from llamad.text.tools.call import Tools
from llamad.text.tools.splitter import CallSplitter

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
        tools = template_tools(request.callable_tools)
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
