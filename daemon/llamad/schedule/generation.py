"""A job while the engine works for it: its sequence, its sampler, its text and its turns.

Owns what is kept between two steps. Which rows a step holds is step.py's; what a token means for
the job is outcome.py's.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from llamad.engine.worker import StepConstraint, StepSampler
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest, Pooling, ToolUse
from llamad.sampling.parameters import Sampling
from llamad.schedule.block_keys import BlockKeys, public_scope, scope_of
from llamad.schedule.given_tokens import GivenGuesser, GivenTokens
from llamad.schedule.guesser import Guesser
from llamad.schedule.pooling import Pool
from llamad.schedule.probability_recorder import ProbabilityRecorder
from llamad.schedule.prompt import adapter_of
from llamad.schedule.runtime import Detokenizer, ModelRuntime
from llamad.schedule.sequence import Sequence as TokenSequence
from llamad.schedule.standing import Standing
from llamad.schedule.thought_budget import BudgetSampler
from llamad.text.stop_strings import StopStrings
from llamad.text.thinking import CallChoice, Piece, Splitter
from llamad.text.tools.call import Call
from llamad.text.tools.splitter import CallSplitter

_numbers = itertools.count()


Part: TypeAlias = "Piece | Call"


class CompletionText:
    """Tokens to text that may be shown: whole characters, thoughts and calls apart, no stop string.

    Stop strings are looked for in the answer only: what a model thinks is no part of what was asked
    for, and often names the very thing that is to end the answer.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: tuple[str, ...],
        splitter: Splitter | None,
        calls: CallSplitter | None = None,
    ) -> None:
        """splitter, calls: None where no text is a thought, or a call of a tool."""
        self._detokenizer = detokenizer
        self._stops = StopStrings(stop)
        self._splitter = splitter
        self._calls = calls
        self.n_calls = 0

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""
        return self._splitter is not None and self._splitter.thinking

    def push(self, token: int) -> tuple[list[Part], str | None]:
        """Add a token; return what is now certain, and the stop string that matched."""
        text = self._detokenizer.push(token) + self._control_text(token)
        pieces = [(text, False)] if self._splitter is None else self._splitter.push(text)
        return self._stopped(self._called(pieces))

    def flush(self) -> tuple[list[Part], str | None]:
        """Return what was held back, at the end, and the stop string that its last bytes made."""
        rest = [(self._detokenizer.flush(), False)]
        if self._splitter is not None:
            rest = [*self._splitter.push(rest[0][0]), *self._splitter.flush()]
        last = [] if self._calls is None else self._answer(self._calls.flush)
        parts, matched = self._stopped([*self._called(rest), *last])
        held = "" if matched is not None else self._stops.flush()
        return [*parts, (held, False)] if held else parts, matched

    def _control_text(self, token: int) -> str:
        """Return the text of a control token that is a mark, else ""."""
        text = "" if self._splitter is None else self._splitter.control_text(token)
        if not text and self._calls is not None and not self.thinking:
            return self._calls.control_text(token)
        return text

    def _called(self, pieces: Sequence[Piece]) -> list[Part]:
        """Return the pieces with calls apart from the answer."""
        calls = self._calls
        if calls is None:
            return [*pieces]
        parts: list[Part] = []
        for text, thinking in pieces:
            parts += [(text, True)] if thinking else self._answer(partial(calls.push, text))
        return parts

    def _answer(self, read: Callable[[], Sequence[str | Call]]) -> list[Part]:
        return [(part, False) if isinstance(part, str) else part for part in read()]

    def _stopped(self, parts: Sequence[Part]) -> tuple[list[Part], str | None]:
        """Return the parts as far as no stop string may begin; and one that ended."""
        certain: list[Part] = []
        matched = None
        for part in parts:
            if isinstance(part, Call):
                if matched is None:
                    held = self._stops.flush()  # a call follows: no stop string begins there
                    certain += [(held, False), part] if held else [part]
                    self.n_calls += 1
                continue
            text, thinking = part
            if not thinking:
                text, matched = self._stops.push(text)
            if text:
                certain.append((text, thinking))
        return certain, matched


class Generation:
    """One job's way through the engine; its blocks and its sampler may go and come again."""

    def __init__(self, job: Job, model: ModelRuntime, *, speculation: bool) -> None:
        """Prepare a job that waits.

        ``speculation``: the service's default, for a request that does not say.
        """
        request, prompt = job.record.request, job.record.prompt_tokens
        self.job = job
        self.number = next(_numbers)  # in order of submission
        job.tokens = tokens = job.tokens or list(prompt)  # of one that goes on, also the completion
        self.sequence = TokenSequence(
            tokens,
            len(prompt),
            n_draws=len(tokens) - len(prompt),
            own_keys=BlockKeys(scope_of(request)),
            public_keys=BlockKeys(public_scope(request)),
        )
        self.adapter = adapter_of(model, request)
        self.sampler: StepSampler | None = None  # while it has blocks
        self.constraint: StepConstraint | None = None  # likewise, where a format was asked for
        self.recorder: ProbabilityRecorder | None = None  # likewise, where logprobs were asked for
        self.format_coming = False  # it is compiled again; until then no step computes the job
        # a prompt that is continued has no thoughts
        splitter = model.new_thinking_splitter(prompt) if job.record.is_chat else None
        calls = model.new_call_splitter(request, prompt) if job.record.is_chat else None
        self.text = CompletionText(model.new_detokenizer(), request.stop, splitter, calls)
        for token in tokens[len(prompt) :]:
            self.text.push(token)  # what it says was said before
        self.substitute_template = model.chat_template.substitute if job.record.is_chat else ""
        self.standing = Standing(request.owner, job.record.priority, job.record.submitted_at)
        self.turn = Turn()
        self.pool: Pool | None = None  # of a text that is read for a vector
        if request.embedding is not None:
            pooling, n_scores = request.embedding.pooling or model.pooling or Pooling.MEAN, 0
            if request.embedding.query is not None:
                pooling = Pooling.FIRST if model.is_encoder else Pooling.LAST
                n_scores = model.n_rank_scores
            self.pool = Pool(pooling, len(prompt), model.embedding_dim, n_scores)
        self.blocks_coming = False  # from the disk; until they are here no step computes them
        self.prompt_counted = False  # as one that the cache helped, or did not help
        self.progress_at = 0.0  # when the last PrefillProgress was sent, monotonic seconds
        self.guesser: Guesser | None = None  # of the next tokens, once it has started
        self._speculation = speculation if request.speculation is None else request.speculation

    def start(self, model: ModelRuntime) -> None:
        """Make the sampler that draws what comes next, with the tokens so far behind it.

        Raises the LlamadError of a sampler that refuses its parameters.
        """
        if self.pool is not None:
            return
        record, grammar = self.job.record, None
        if record.request.is_constrained:
            grammar = model.formats.find(
                record.request, record.prompt_tokens, is_chat=record.is_chat
            )
            self.format_coming = grammar is None
        if not self.format_coming:
            self._begin(model, grammar)

    def _begin(self, model: ModelRuntime, grammar: Any | None) -> None:
        """Make the sampler; grammar: of a job that has a format."""
        record = self.job.record
        tokens, n_prompt = self.sequence.tokens, self.sequence.n_prompt
        prompt, completion = tokens[:n_prompt], tokens[n_prompt:]

        def sampler(completion: Sequence[int], mu: float | None) -> StepSampler:
            return self._sampler_behind(model, grammar, [*prompt, *completion], mu)

        budget, scoring = record.request.thinking.budget_tokens, record.request.scoring
        if scoring is not None:
            self.sampler = self.constraint = GivenTokens(scoring.tokens, len(completion))
            self.guesser = self.guesser or GivenGuesser(self.sequence.tokens)
            self.guesser.constraint = self.constraint
        elif budget is None or not record.is_chat:
            self.sampler = sampler(completion, record.mirostat_mu)
        else:
            thought = _OpenThought(model, record.request, prompt)
            self.sampler = BudgetSampler(sampler, completion, record.mirostat_mu, budget, thought)
        if record.request.logprobs is not None:
            self.recorder = ProbabilityRecorder(self.sampler, record.request.logprobs)
            self.sampler = self.recorder
        if self._speculation and self.guesser is None:
            self.guesser = Guesser(self.sequence.tokens)
            self.guesser.constraint = self.constraint

    def format_is_here(self, model: ModelRuntime, grammar: Any) -> None:
        """Go on with the compiled format for which a job waits that has started."""
        if self.format_coming:  # else it was paused meanwhile
            self.format_coming = False
            self._begin(model, grammar)

    def _sampler_behind(
        self, model: ModelRuntime, grammar: Any | None, tokens: Sequence[int], mu: float | None
    ) -> StepSampler:
        """Return the sampler that draws what comes behind these tokens, the prompt's included.

        mu: what mirostat has learned then.
        """
        record = self.job.record
        n_draws = len(tokens) - self.sequence.n_prompt
        if grammar is not None:
            self.constraint = model.formats.constraint(grammar, tokens[self.sequence.n_prompt :])
            if self.guesser is not None:
                self.guesser.constraint = self.constraint
        sampler = model.new_sampler(
            record.request,
            seed=record.seed,
            n_draws=n_draws,
            mu=mu,
            constraint=self.constraint,
        )
        first, first_penalized = self._recent(record.request.sampling, len(tokens))
        for i in range(first, len(tokens)):
            sampler.accept(tokens[i], penalized=i >= first_penalized)
        return sampler

    def _recent(self, sampling: Sampling, end: int) -> tuple[int, int]:
        """Return from which token on the sampler begins, and from which the penalties do.

        The penalties see the completion, or all; DRY sees all. end: tokens in all.
        """
        penalized = 0 if sampling.penalize_prompt else self.sequence.n_prompt
        if sampling.repeat_last_n >= 0:
            penalized = max(penalized, end - sampling.repeat_last_n)
        if sampling.dry_multiplier == 0:
            return penalized, penalized
        dry = 0 if sampling.dry_penalty_last_n < 0 else max(0, end - sampling.dry_penalty_last_n)
        return min(dry, penalized), penalized

    def pause(self) -> None:
        """Forget the sampler: its blocks are gone, and ``start`` will make it anew."""
        self.sampler = self.constraint = self.recorder = None
        self.format_coming = False
        if self.guesser is not None:
            self.guesser.constraint = None
        if self.pool is not None:
            self.pool.clear()


class _OpenThought:
    """The thought behind a completion, and what ends it."""

    def __init__(
        self, model: ModelRuntime, request: GenerationRequest, prompt: Sequence[int]
    ) -> None:
        self._encode = model.tokenizer.encode
        self._splitter = model.new_thinking_splitter(prompt)
        self._detokenizer = model.new_detokenizer()
        self._calls = CallChoice.POSSIBLE if request.offers_tools else CallChoice.NONE
        if request.offers_tools and request.tool_use is ToolUse.REQUIRED:
            self._calls = CallChoice.REQUIRED

    def push(self, token: int) -> None:
        """Take the next token."""
        if self._splitter is not None:
            text = self._detokenizer.push(token) + self._splitter.control_text(token)
            self._splitter.push(text)

    def ending(self, *, again: bool) -> Sequence[int]:
        """Return the tokens that end the thought which is open; none: no thought is."""
        if self._splitter is None or not self._splitter.thinking:
            return []
        text = self._splitter.ending(calls=self._calls, again=again)
        return self._encode(text, add_bos=False, parse_special=True) if text else []


class Turn:
    """Where a prompt stands among the prompts that share the steps, a block of rows at a time."""

    __slots__ = ("ended", "n_turns", "rows")

    def __init__(self) -> None:
        self.ended = 0  # number of the step with which its last turn ended, or it came
        self.n_turns = 0  # turns so far
        self.rows = 0  # rows of the turn that is open

    def rank(self) -> tuple[int, int]:
        """Return the place in the order: who waited longest, and had the fewest turns."""
        return self.ended, self.n_turns

    def come(self, step: int) -> None:
        """Begin to wait, with this step."""
        self.ended, self.n_turns, self.rows = step, 0, 0

    def close(self, step: int) -> None:
        """End an open turn, so that somebody else goes first."""
        if self.rows:
            self.ended, self.rows = step, 0
            self.n_turns += 1

    def count(self, rows: int, step: int, turn_rows: int) -> None:
        """Count rows of this step; a whole turn ends."""
        self.rows += rows
        if self.rows >= turn_rows:
            self.close(step)
