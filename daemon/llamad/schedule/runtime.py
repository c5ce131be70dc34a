"""What the scheduler needs of a loaded model, as protocols.

``service.loaded_model.LoadedModel`` has this shape; tests bring their own. So ``schedule/`` runs
without the C library and without a model file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llamad.engine.drafting import DraftChunk, DraftRound
from llamad.engine.run import AdapterUse
from llamad.engine.worker import StepConstraint, StepSampler
from llamad.jobs.request import AdapterChoice, GenerationRequest, Pooling
from llamad.text.rank_prompt import RankTokens
from llamad.text.thinking import Splitter
from llamad.text.tools.call import Tool
from llamad.text.tools.splitter import CallSplitter


class Tokenizer(Protocol):
    """Text to token ids and back; any thread."""

    def encode(
        self, text: str, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Return the ids of ``text``; ``add_bos`` None follows the model's metadata."""

    def piece(self, token: int, special: bool = False) -> bytes:
        """Return the bytes of one token; of a control token b"", or its name when ``special``."""

    def is_end_of_generation(self, token: int) -> bool:
        """Whether the model ends its answer with this token."""


class Detokenizer(Protocol):
    """The text of one token stream, piece by piece; one thread."""

    def push(self, token: int) -> str:
        """Return the whole characters that this token completes."""

    def flush(self) -> str:
        """Return what an unfinished character is shown as, at the end."""


class RankPrompt(Protocol):
    """A question and a text as a model that ranks texts wants them; any thread."""

    def encode(self, query: str, document: str) -> RankTokens:
        """Return the tokens of both."""


class ChatTemplate(Protocol):
    """A conversation as the token ids the model was trained on; any thread."""

    @property
    def substitute(self) -> str:
        """The name of the template that stands in for one; empty for the model's own."""

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] = ...,
        tools: Sequence[Tool] = ...,
        continue_final: bool = ...,
    ) -> list[int]:
        """Return the ids of the rendered conversation, control tokens from the template only.

        arguments: of the template, beside the messages (template_arguments.py). continue_final:
        end within the last message, the assistant's.
        """

    def thinking_arguments(
        self, enabled: bool | None, effort: str | None = None
    ) -> dict[str, bool | str]:
        """Return the arguments that tell the template whether the model is to think, how hard."""


class Formats(Protocol):
    """What the answers to constrained requests must look like, for one model's vocabulary."""

    def find(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> Any | None:
        """Return the grammar of the answer to a prompt if it was compiled, and not forgotten."""

    def compile(self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool) -> Any:
        """Return the grammar of the answer to a prompt; blocks; any thread.

        Raises INVALID_SCHEMA and INVALID_GRAMMAR.
        """

    def constraint(self, grammar: Any, tokens: Sequence[int]) -> StepConstraint:
        """Return where an answer is behind its first tokens."""


class Adapters(Protocol):
    """The adapters (LoRA) in memory beside a model."""

    def digest(self, name: str) -> str:
        """Return the digest of an adapter's file. Raises ADAPTER_NOT_FOUND."""

    def use(self, choice: AdapterChoice) -> AdapterUse:
        """Return what a request chose, of the digest that it names.

        Raises ADAPTER_NOT_FOUND, ADAPTER_CHANGED.
        """


class EngineRuntime(Protocol):
    """A model in memory with its engine, by its sizes. Tokens, rows and blocks."""

    @property
    def name(self) -> str:
        """What it is called; what ``model`` in a request names."""

    @property
    def vocab_size(self) -> int:
        """Token ids that it can read are 0..vocab_size-1."""

    @property
    def n_ctx(self) -> int:
        """Most tokens in one sequence."""

    @property
    def n_batch(self) -> int:
        """Most rows in one step; at least one for each sequence of the model."""

    @property
    def kv_block_tokens(self) -> int:
        """Tokens of one KV block."""

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks of its engine."""

    @property
    def kv_local_blocks(self) -> int:
        """Blocks of layers with a window; 0: there are no such layers."""

    @property
    def kv_window(self) -> int:
        """Tokens that such a layer sees, their own included; 0: there are none."""


class DraftRuntime(EngineRuntime, Protocol):
    """A small model that guesses, with its own engine."""

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Read and guess, on the engine thread. Raises the LlamadError of a step."""


class GuessLayerRuntime(Protocol):
    """A layer of the model that guesses, on the model's own engine."""

    @property
    def name(self) -> str:
        """What it is called."""

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Guess behind tokens of the last step, on the engine thread; raise as ``forward``."""


class ModelRuntime(EngineRuntime, Protocol):
    """A loaded model and the sizes of its engine. Tokens, blocks and seconds."""

    @property
    def n_sequences(self) -> int:
        """Sequence slots, 0..n_sequences-1."""

    @property
    def is_encoder(self) -> bool:
        """Whether it makes vectors only, of texts that are computed in one step each."""

    @property
    def embedding_dim(self) -> int:
        """Numbers of a vector."""

    @property
    def rank_prompt(self) -> RankPrompt | None:
        """How it wants a question and a text that it ranks; None: it does not rank."""

    @property
    def n_rank_scores(self) -> int:
        """Scores that it gives such a text; 0: it does not rank."""

    @property
    def pooling(self) -> Pooling | None:
        """What its file says vectors are made of; None: nothing."""

    @property
    def guess_rows(self) -> int:
        """Rows of logits one step may keep beyond one for each sequence."""

    @property
    def n_states(self) -> int:
        """Slots of states; 0: every layer attends."""

    @property
    def state_interval(self) -> int:
        """KV blocks from one state that is kept to the next."""

    @property
    def step_read_seconds(self) -> float:
        """How long the disk needs for the weights that a step streams; 0: none does."""

    @property
    def ends_answers(self) -> bool:
        """Whether it has a chat template of its own and a token that ends an answer."""

    @property
    def draft(self) -> DraftRuntime | None:
        """What guesses for it, if anything does."""

    @property
    def guess_layer(self) -> GuessLayerRuntime | None:
        """A layer of its own that guesses for it, where it has one and no draft."""

    @property
    def load_seconds(self) -> float:
        """How long loading took."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's vocabulary."""

    @property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template, or the fallback."""

    @property
    def adapters(self) -> Adapters:
        """What requests may go through."""

    @property
    def formats(self) -> Formats:
        """What answers must look like, for those that must."""

    def new_detokenizer(self) -> Detokenizer:
        """Create a detokenizer for one completion."""

    def new_thinking_splitter(self, prompt: Sequence[int]) -> Splitter | None:
        """Create what tells thoughts from the answer to this prompt; None for a model without."""

    def new_call_splitter(
        self, request: GenerationRequest, prompt: Sequence[int]
    ) -> CallSplitter | None:
        """Create what tells calls of tools from the answer; None for a request without tools."""

    def begun_answer(self, prompt: Sequence[int], request: GenerationRequest) -> list[int]:
        """Return what follows a chat's prompt so that the answer has no thought, mostly nothing."""

    def new_sampler(
        self,
        request: GenerationRequest,
        *,
        seed: int,
        n_draws: int = 0,
        mu: float | None = None,
        constraint: Any | None = None,
    ) -> StepSampler:
        """Create the sampler of a request, as it is after n_draws draws.

        mu: what mirostat has learned then. constraint: of ``formats``; it goes on with each draw.
        Raises LlamadError when a parameter is refused.
        """
