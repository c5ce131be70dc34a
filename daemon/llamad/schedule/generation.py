"""A job while the engine works for it: its sequence, its sampler, its text and its turns.

Owns what is kept between two steps. Which rows a step holds is step.py's; what a token means for
the job is outcome.py's.
"""

import itertools

from llamad.engine.worker import StepSampler
from llamad.jobs.job import Job
from llamad.sampling.parameters import Sampling
from llamad.schedule.block_keys import BlockKeys, scope_of
from llamad.schedule.guesser import Guesser
from llamad.schedule.runtime import Detokenizer, ModelRuntime
from llamad.schedule.sequence import Sequence
from llamad.schedule.standing import Standing
from llamad.text.stop_strings import StopStrings
from llamad.text.thinking import Piece, ThinkingSplitter

_numbers = itertools.count()


class CompletionText:
    """Tokens to text that may be shown: whole characters, thoughts apart, nothing of a stop string.

    Stop strings are looked for in the answer only: what a model thinks is no part of what was asked
    for, and often names the very thing that is to end the answer.
    """

    def __init__(
        self, detokenizer: Detokenizer, stop: tuple[str, ...], splitter: ThinkingSplitter | None
    ) -> None:
        """splitter: None where all of the text is answer."""
        self._detokenizer = detokenizer
        self._stops = StopStrings(stop)
        self._splitter = splitter

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""
        return self._splitter is not None and self._splitter.thinking

    def push(self, token: int) -> tuple[list[Piece], str | None]:
        """Add a token; return the text that is now certain, and the stop string that matched."""
        text = self._detokenizer.push(token)
        if self._splitter is None:
            return self._stopped([(text, False)])
        return self._stopped(self._splitter.push(text + self._splitter.control_text(token)))

    def flush(self) -> tuple[list[Piece], str | None]:
        """Return what was held back, at the end, and the stop string that its last bytes made."""
        rest = [(self._detokenizer.flush(), False)]
        if self._splitter is not None:
            rest = [*self._splitter.push(rest[0][0]), *self._splitter.flush()]
        pieces, matched = self._stopped(rest)
        held = "" if matched is not None else self._stops.flush()
        return [*pieces, (held, False)] if held else pieces, matched

    def _stopped(self, pieces: list[Piece]) -> tuple[list[Piece], str | None]:
        """Return the pieces, none empty, as far as no stop string may begin; and one that ended."""
        certain: list[Piece] = []
        matched = None
        for text, thinking in pieces:
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
        self.sequence = Sequence(
            tokens,
            len(prompt),
            n_draws=len(tokens) - len(prompt),
            own_keys=BlockKeys(scope_of(request)),
        )
        self.sampler: StepSampler | None = None  # while it has blocks
        # a prompt that is continued has no thoughts
        splitter = model.new_thinking_splitter(prompt) if job.record.is_chat else None
        self.text = CompletionText(model.new_detokenizer(), request.stop, splitter)
        for token in tokens[len(prompt) :]:
            self.text.push(token)  # what it says was said before
        self.substitute_template = model.chat_template.substitute if job.record.is_chat else ""
        self.standing = Standing(request.owner, job.record.priority, job.record.submitted_at)
        self.turn = Turn()
        self.blocks_coming = False  # from the disk; until they are here no step computes them
        self.prompt_counted = False  # as one that the cache helped, or did not help
        self.progress_at = 0.0  # when the last PrefillProgress was sent, monotonic seconds
        self.guesser: Guesser | None = None  # of the next tokens, once it has started
        self._speculation = speculation if request.speculation is None else request.speculation

    def start(self, model: ModelRuntime) -> None:
        """Make the sampler that draws what comes next, with the tokens so far behind it.

        Raises the LlamadError of a sampler that refuses its parameters.
        """
        record, n_draws = self.job.record, self.sequence.n_draws
        sampling = record.request.sampling
        sampler = model.new_sampler(
            record.request, seed=record.seed, n_draws=n_draws, mu=record.mirostat_mu
        )
        first, first_penalized = self._recent(sampling)
        for i in range(first, len(self.sequence.tokens)):
            sampler.accept(self.sequence.tokens[i], penalized=i >= first_penalized)
        self.sampler = sampler
        if self._speculation and self.guesser is None:
            self.guesser = Guesser(self.sequence.tokens)

    def _recent(self, sampling: Sampling) -> tuple[int, int]:
        """Return from which token on the sampler begins, and from which the penalties do.

        The penalties see the completion, or all; DRY sees all.
        """
        end = len(self.sequence.tokens)
        penalized = 0 if sampling.penalize_prompt else self.sequence.n_prompt
        if sampling.repeat_last_n >= 0:
            penalized = max(penalized, end - sampling.repeat_last_n)
        if sampling.dry_multiplier == 0:
            return penalized, penalized
        dry = 0 if sampling.dry_penalty_last_n < 0 else max(0, end - sampling.dry_penalty_last_n)
        return min(dry, penalized), penalized

    def pause(self) -> None:
        """Forget the sampler: its blocks are gone, and ``start`` will make it anew."""
        self.sampler = None


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
