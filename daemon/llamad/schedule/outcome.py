"""What a step means for a job: the one place that turns drawn tokens into text and ends.

Owns the order of these questions: does the token end the generation, does its text complete a stop
string, is its format complete, is the length reached, does the answer only repeat itself, does the
client still read. It ends nothing itself but through the book.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from llamad.engine.worker import Chunk, Drawn, Probabilities
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Delta, Embedded, FinishReason, PrefillProgress, ToolCallHead
from llamad.jobs.record import JobRecord, JobState
from llamad.jobs.token_logprob import TokenLogprob, pack_logprobs
from llamad.schedule.estimate import Estimate
from llamad.schedule.generation import Generation, Part
from llamad.schedule.loop_guard import MOST_TOKENS, is_due, is_loop
from llamad.schedule.runtime import Tokenizer
from llamad.text.tools.call import Call, arguments_text

PROGRESS_INTERVAL_SECONDS = 0.25


class Outcome:
    """Reads the results of steps for the jobs of one model."""

    def __init__(
        self, book: JobBook, tokenizer: Tokenizer, estimate: Estimate, stream_buffer_bytes: int
    ) -> None:
        self._book = book
        self._estimate = estimate
        self._tokenizer = tokenizer
        self.stream_buffer_bytes = stream_buffer_bytes  # only for the message of a slow client

    def apply(self, generation: Generation, chunk: Chunk, drawn: Drawn, now: float) -> None:
        """Take over what a step computed and drew for one job; one that has ended ignores it.

        ``now``: the monotonic time in seconds at which the step was complete.
        """
        job = generation.job
        if job.ended:
            return
        if isinstance(drawn, LlamadError):
            self._book.end(job, JobState.FAILED, error=drawn)
            return
        sequence = generation.sequence
        # The row of a right guess is computed too; those behind a wrong one are overwritten later.
        sequence.n_computed += len(chunk.tokens) - chunk.n_drafts + max(0, len(drawn) - 1)
        sequence.n_draws += len(drawn)
        if generation.sampler is not None and job.record.request.sampling.mirostat:
            job.record.mirostat_mu = generation.sampler.mu
        self._count_prompt(generation, now)
        if generation.pool is not None and sequence.n_pending == 0:
            job.stream.put(Embedded(generation.pool.vector(), job.record.truncated_tokens))
            self._book.end(job, JobState.FINISHED, reason=FinishReason.STOP)
            return
        if generation.guesser is not None and chunk.n_drafts:
            generation.guesser.judge(chunk.n_drafts, len(drawn) - 1)
        noted = [] if generation.recorder is None else generation.recorder.take()
        for i, token in enumerate(drawn):
            if not job.ended:
                logprobs = self._packed(noted[i]) if noted else b""
                self._apply_token(generation, token, logprobs, now, is_last=i == len(drawn) - 1)

    def _packed(self, noted: Probabilities) -> bytes:
        piece = self._tokenizer.piece
        return pack_logprobs(TokenLogprob(token, p, piece(token)) for token, p in noted)

    def _count_prompt(self, generation: Generation, now: float) -> None:
        """Count the prompt's rows, once each; tell of progress where it takes several steps."""
        record, n_prompt = generation.job.record, generation.sequence.n_prompt
        processed = min(generation.sequence.n_computed, n_prompt)
        n_new = processed - record.processed_prompt_tokens
        if n_new <= 0:
            return
        record.processed_prompt_tokens = processed
        self._book.totals.prompt_tokens += n_new
        due = now - generation.progress_at >= PROGRESS_INTERVAL_SECONDS
        if due or (processed == n_prompt and n_new < n_prompt):
            generation.progress_at = now
            seconds_left = self._estimate.prompt_seconds(generation)
            generation.job.stream.put(PrefillProgress(processed, n_prompt, seconds_left))
        generation.job.touch()

    def _apply_token(
        self, generation: Generation, token: int, logprobs: bytes, now: float, *, is_last: bool
    ) -> None:
        """Take over one token; is_last: of those drawn, so that the constraint is behind it."""
        job, record = generation.job, generation.job.record
        generation.sequence.tokens.append(token)
        if generation.guesser is not None:
            generation.guesser.append(token)
        record.last_token_at = now
        if record.first_token_at is None:
            record.first_token_at = now
        if record.state is JobState.PREFILL:
            job.move(JobState.DECODE)
        record.completion_tokens += 1
        self._book.totals.generated_tokens += 1
        was_thinking, n_calls = generation.text.thinking, generation.text.n_calls
        constraint = generation.constraint
        complete = is_last and constraint is not None and constraint.complete
        parts, stop_string, reason = self._read(generation, token, complete=complete)
        if stop_string is not None:
            record.stop_string, reason = stop_string, FinishReason.STOP_STRING
        if constraint is not None and reason is not None:
            cut = stop_string is not None and record.request.response_format is not None
            ends = is_last and constraint.accepts and not cut
            record.format_incomplete = not ends and reason is not FinishReason.TOOL_CALLS
        deltas = list(_deltas(record, parts, n_calls))
        if logprobs and not was_thinking:
            deltas = _with_logprobs(deltas, logprobs, record.completion_tokens)
        if was_thinking or generation.text.thinking:
            record.reasoning_tokens += 1
        if not all(job.stream.put(delta) for delta in deltas):
            error = _slow_client(self.stream_buffer_bytes)
            self._book.end(job, JobState.CANCELLED, error=error)
        elif reason is not None:
            self._book.end(job, JobState.FINISHED, reason=reason)
        else:
            job.touch()

    def _read(
        self, generation: Generation, token: int, *, complete: bool
    ) -> tuple[list[Part], str | None, FinishReason | None]:
        """Return a token's text, the stop string that it completes, and why it is the last one.

        complete: the format that was asked for allows nothing behind it.
        """
        record, text = generation.job.record, generation.text
        is_given = record.request.scoring is not None
        if self._tokenizer.is_end_of_generation(token) and not is_given:
            parts, stop_string = text.flush()
            return parts, stop_string, _called(text.n_calls) or FinishReason.STOP
        parts, stop_string = text.push(token)
        reason = None
        if text.n_calls and not record.request.parallel_tool_calls:
            end = next(i for i, part in enumerate(parts) if isinstance(part, Call))
            return parts[: end + 1], stop_string, FinishReason.TOOL_CALLS
        if complete:
            reason = FinishReason.STOP
        elif record.completion_tokens >= record.max_tokens:
            reason = FinishReason.LENGTH
        elif _repeats_itself(generation):
            reason = FinishReason.LOOP
        if reason is not None and stop_string is None:
            rest, stop_string = text.flush()
            parts += rest
        if complete:
            reason = _called(text.n_calls) or reason
        return parts, stop_string, reason


def _called(n_calls: int) -> FinishReason | None:
    return FinishReason.TOOL_CALLS if n_calls else None


def _deltas(record: JobRecord, parts: Iterable[Part], n_calls: int) -> Iterator[Delta]:
    """Yield what is told of a token. n_calls: how many calls were told before."""
    tokens = record.completion_tokens
    for part in parts:
        if isinstance(part, Call):
            call_id = part.id or _call_id(record.id, n_calls)
            head = ToolCallHead(n_calls, call_id, part.name)
            yield Delta(arguments_text(part.arguments), tokens, call=head)
            n_calls += 1
        else:
            yield Delta(part[0], tokens, part[1])


def _with_logprobs(deltas: list[Delta], logprobs: bytes, tokens: int) -> list[Delta]:
    """Return what is told of a token of the answer: some part of it has its probabilities."""
    if not deltas or deltas[0].thinking or deltas[0].call is not None:
        deltas = [Delta("", tokens), *deltas]
    return [replace(deltas[0], logprobs=logprobs), *deltas[1:]]


def _call_id(job_id: str, index: int) -> str:
    """Return the id of a call: the same when the job goes on. Nine characters, as Mistral's are."""
    return hashlib.sha256(f"{job_id} {index}".encode()).hexdigest()[:9]


def _repeats_itself(generation: Generation) -> bool:
    record = generation.job.record
    if not record.request.loop_guard or not is_due(record.completion_tokens):
        return False
    return is_loop(generation.sequence.tokens[-min(record.completion_tokens, MOST_TOKENS) :])


def _slow_client(max_bytes: int) -> LlamadError:
    return LlamadError(
        ErrorKind.CANCELLED,
        "SLOW_CLIENT",
        f"the client left {max_bytes} bytes of text unread, so the job was cancelled",
    )
