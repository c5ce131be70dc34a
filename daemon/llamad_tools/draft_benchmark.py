"""Measuring what a draft model saves: the same greedy answer with it and without, by the engine.

It guesses as the service lets it: as long as its guesses are likely enough to be worth their time.
What the service does beyond that (rest where it loses, guess from n-grams first) is not measured.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import NO_LIMIT, Engine, EngineModel, Sampler
from llamad.engine.drafting import DraftChunk, Drafter
from llamad.engine.single_sequence import SingleSequence, blocks_for
from llamad.memory.demand import draft_params, engine_params, plan_of
from llamad.memory.plan import MemoryPlan
from llamad.memory.residency import choose_residency
from llamad.sampling.parameters import GREEDY
from llamad.text import tokenizer_from_metadata
from llamad.text.same_vocabulary import check_vocabulary
from llamad_tools.progress_line import TOKENS, Progress

PROMPT = (
    "A small computer stood on a shelf in the kitchen. It answered questions, it never slept, and"
    " nobody remembered who had put it there. One evening it was asked"
)
MOST_GUESSES = 8  # in a pass
WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class DraftResult:
    """One greedy answer of ``tokens`` tokens, without the draft and with it; speeds per second."""

    draft: str
    draft_bytes: int  # weights, scratch and cache
    streamed_bytes: int  # of the model, beside the draft
    tokens: int
    tokens_per_second_alone: float
    tokens_per_second: float
    guessed_tokens: int
    accepted_tokens: int
    same_tokens: bool


def measure_draft(
    path: str, draft_path: str, *, n_threads: int, n_tokens: int, kv_type: str, budget: int | None
) -> DraftResult:
    """Load both models and time an answer of n_tokens, without guesses and with them.

    budget: bytes for a service in all; None: what this machine has. Raises LlamadError when one
    cannot be loaded, when their vocabularies differ, or when there is no room for both.
    """
    name, draft_name = Path(path).name, Path(draft_path).name
    with EngineModel(path) as model, EngineModel(draft_path) as small:
        metadata = model.metadata()
        check_vocabulary(name, metadata, draft_name, small.metadata())
        prompt = tokenizer_from_metadata(metadata).encode(PROMPT)
        n_ctx = len(prompt) + n_tokens + MOST_GUESSES + 1
        config = ModelConfig(
            threads=n_threads,
            ctx_size=max(32, n_ctx),
            kv_type=kv_type,
            n_sequences=1,
            memory_budget=budget,
            draft=draft_path,
        )
        plan = plan_of(model, metadata, config, small)
        with Progress(0).begin(f"reading {draft_name} and {name}"):
            small.set_residency([True] * len(small.extents()), lock_bytes=NO_LIMIT)
            _load(model, plan)
        params, small_params = engine_params(config, plan.n_ctx), draft_params(config, small, n_ctx)
        params["n_blocks"] = small_params["n_blocks"] = blocks_for(plan.n_ctx)
        with Engine(model, **params) as engine, Engine(small, **small_params) as small_engine:
            pair = _Pair(engine, small_engine)
            pair.answer(prompt, WARM_UP_TOKENS, guess=True)
            with Progress(2 * n_tokens, unit=TOKENS).begin("decode") as progress:
                alone = pair.answer(prompt, n_tokens, guess=False, progress=progress)
                helped = pair.answer(prompt, n_tokens, guess=True, progress=progress)
            return DraftResult(
                draft=draft_name,
                draft_bytes=plan.draft_bytes,
                streamed_bytes=plan.streamed_bytes,
                tokens=n_tokens,
                tokens_per_second_alone=round(n_tokens / alone.seconds, 3),
                tokens_per_second=round(n_tokens / helped.seconds, 3),
                guessed_tokens=helped.guessed,
                accepted_tokens=helped.accepted,
                same_tokens=alone.tokens == helped.tokens,
            )


def _load(model: EngineModel, plan: MemoryPlan) -> None:
    residency = choose_residency(model.extents(), model.info.file_bytes, plan.room_bytes)
    assert residency is not None, "the plan has room for one"
    model.set_residency(
        residency.resident,
        residency.ring_bytes,
        expert_slots=residency.expert_slots,
        lock_bytes=NO_LIMIT,
    )


@dataclass(slots=True)
class _Answer:
    """Tokens that were drawn behind a prompt, and how."""

    tokens: list[int]
    seconds: float = 0.0
    guessed: int = 0
    accepted: int = 0


class _Pair:
    """A model and its draft, one sequence in each."""

    def __init__(self, engine: Engine, small: Engine) -> None:
        self._engine, self._small = engine, small
        self._sampler = _greedy(engine)
        self._drafter = Drafter(
            small, _greedy(small), vocab_size=engine.vocab_size, now=time.perf_counter
        )
        self._pass_seconds = 0.0  # of the model, without guesses
        self._guess_seconds = 0.0  # of a step of the draft

    def answer(
        self, prompt: list[int], n_tokens: int, *, guess: bool, progress: Progress | None = None
    ) -> _Answer:
        """Read a prompt, then draw tokens; only the latter is timed."""
        sequence = SingleSequence(self._engine)
        for at in range(0, len(prompt), self._engine.n_batch):
            part = prompt[at : at + self._engine.n_batch]
            sequence.feed(part, n_out=int(at + len(part) == len(prompt)))
        draft = _Draft(SingleSequence(self._small), self._small.n_batch, self._drafter)
        if guess:
            draft.read(prompt)
        found = _Answer([self._sampler.sample(self._engine, 0)])
        began = time.perf_counter()
        while len(found.tokens) < n_tokens:
            most = min(MOST_GUESSES, n_tokens - len(found.tokens) - 1) if guess else 0
            least = self._guess_seconds / self._pass_seconds if self._pass_seconds else 0.0
            guesses = draft.guess([*prompt, *found.tokens], most, least) if most else ()
            drawn = self._pass(sequence, [found.tokens[-1], *guesses])
            found.tokens += drawn
            found.guessed += len(guesses)
            found.accepted += len(drawn) - 1
            if progress is not None:
                progress.advance(len(drawn), "decode")
        found.seconds = time.perf_counter() - began
        if guess:
            self._guess_seconds = draft.step_seconds
        else:
            self._pass_seconds = found.seconds / n_tokens
        return found

    def _pass(self, sequence: SingleSequence, tokens: list[int]) -> list[int]:
        """Compute a token and its guesses; return what is drawn as long as they are right."""
        self._engine.forward([sequence.run(tokens, n_out=len(tokens))])
        drawn = [self._sampler.sample(self._engine, 0)]
        while len(drawn) < len(tokens) and drawn[-1] == tokens[len(drawn)]:
            drawn.append(self._sampler.sample(self._engine, len(drawn)))
        sequence.length += len(drawn)
        return drawn


class _Draft:
    """How far the draft has read one sequence."""

    def __init__(self, sequence: SingleSequence, n_batch: int, drafter: Drafter) -> None:
        self._sequence = sequence
        self._n_batch = n_batch
        self._drafter = drafter
        self._ahead: tuple[int, ...] = ()  # guesses that it has read behind that
        self.step_seconds = 0.0  # of its last step

    def read(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), self._n_batch):
            self._sequence.feed(tokens[at : at + self._n_batch])

    def guess(self, tokens: list[int], most: int, least_chance: float) -> tuple[int, ...]:
        """Read what is new, and guess behind it."""
        sequence = self._sequence
        for token in self._ahead:
            if sequence.length == len(tokens) - 1 or tokens[sequence.length] != token:
                break
            sequence.length += 1
        new = tuple(tokens[sequence.length :])
        chunk = DraftChunk(new, sequence.length, tuple(sequence.blocks), most, least_chance)
        result = self._drafter.run([chunk])
        sequence.length = len(tokens)
        guesses = result.guesses[0].tokens
        self._ahead = guesses[:-1]
        self.step_seconds = result.steps[-1][1]
        return guesses


def _greedy(engine: Engine) -> Sampler:
    return Sampler(GREEDY, vocab_size=engine.vocab_size, n_ctx=engine.n_ctx, seed=0)
