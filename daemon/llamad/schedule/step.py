"""Composing a step: which rows of which running jobs go into it.

Decoding sequences come first, one row each, so that text keeps flowing, and a few rows of guesses
where the step stays bound by memory, not by arithmetic. What is left of the batch goes to prompts
in the order their jobs started; while anything decodes, prompts share at most ``prefill_chunk``
rows, which bounds how long the next token waits. The cut changes no result: the engine's
arithmetic does not depend on it.
"""

from collections.abc import Sequence

from llamad.engine.worker import Chunk
from llamad.schedule.completion import Running

MAX_DECODE_ROWS = 8  # with guesses; beyond this a small board's step is bound by arithmetic


def compose(
    running: Sequence[Running], *, n_batch: int, prefill_chunk: int, guess_rows: int
) -> list[tuple[Running, Chunk]]:
    """Return each running job that takes part in the next step with its rows; at most n_batch rows.

    ``guess_rows``: most rows of guesses that the engine has room for.
    ``n_batch`` must be at least the number of running jobs: every one that decodes gets its row.
    """
    decoding = [(entry, entry.last_token) for entry in running if entry.last_token is not None]
    spare = min(guess_rows, MAX_DECODE_ROWS - len(decoding), n_batch - len(decoding))
    step = []
    for entry, token in decoding:
        chunk = _decode_rows(entry, token, spare)
        spare -= chunk.n_drafts
        step.append((entry, chunk))
    budget = n_batch - sum(len(chunk.tokens) for _, chunk in step)
    if step:
        budget = min(budget, prefill_chunk)
    for entry in running:
        if budget == 0:
            break
        if entry.last_token is None:
            chunk = _prompt_rows(entry, budget)
            budget -= len(chunk.tokens)
            step.append((entry, chunk))
    return step


def _decode_rows(entry: Running, token: int, spare: int) -> Chunk:
    """Return the row of the last token, and guesses within what the job may still say."""
    left = entry.job.max_tokens - entry.job.completion_tokens - 1
    drafts = () if entry.lookup is None else entry.lookup.draft(min(spare, left))
    tokens = (token, *drafts)
    return Chunk(entry.slot.sequence, tokens, entry.n_cached, entry.sampler, len(drafts))


def _prompt_rows(entry: Running, budget: int) -> Chunk:
    prompt = entry.job.prompt_tokens
    end = min(entry.n_cached + budget, len(prompt))
    sampler = entry.sampler if end == len(prompt) else None
    return Chunk(entry.slot.sequence, prompt[entry.n_cached : end], entry.n_cached, sampler)
