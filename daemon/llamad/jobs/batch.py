"""Composing a step: which rows of which running jobs go into it.

Decoding sequences come first, one row each, so that text keeps flowing. What is left of the batch
goes to prompts in the order their jobs started; while anything decodes, prompts share at most
``prefill_chunk`` rows, which bounds how long the next token waits. The cut changes no result: the
engine's arithmetic does not depend on it.
"""

from collections.abc import Sequence

from llamad.engine.worker import Chunk
from llamad.jobs.completion import Running


def compose(
    running: Sequence[Running], *, n_batch: int, prefill_chunk: int
) -> list[tuple[Running, Chunk]]:
    """Return each running job that takes part in the next step with its rows; at most n_batch rows.

    ``n_batch`` must be at least the number of running jobs: every one that decodes gets its row.
    """
    step = [
        (entry, _decode_row(entry, entry.last_token))
        for entry in running
        if entry.last_token is not None
    ]
    budget = n_batch - len(step)
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


def _decode_row(entry: Running, token: int) -> Chunk:
    return Chunk(entry.slot.sequence, (token,), entry.n_cached, entry.sampler)


def _prompt_rows(entry: Running, budget: int) -> Chunk:
    prompt = entry.job.prompt_tokens
    end = min(entry.n_cached + budget, len(prompt))
    sampler = entry.sampler if end == len(prompt) else None
    return Chunk(entry.slot.sequence, prompt[entry.n_cached : end], entry.n_cached, sampler)
