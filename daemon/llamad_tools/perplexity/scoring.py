"""Runs a text through engines, window by window, and hands out the rows that score its tokens.

For tools that need every token's distribution and no memory for all of them; what is made of a row
is theirs.
"""

import math
from collections.abc import Iterator, Sequence

from llamad.engine.bindings import Engine, EngineModel
from llamad.engine.single_sequence import SingleSequence
from llamad.errors import ErrorKind, LlamadError
from llamad_tools.progress_line import TOKENS, Progress

ROWS_A_STEP = 32  # rows of logits in memory: 16 MB for a vocabulary of 128,000


def scoring_engine(
    model: EngineModel, *, n_ctx: int, n_threads: int, kv_type: str, cpu: str | None = None
) -> Engine:
    """Return an engine that keeps the logits of every row of a step."""
    n_rows = min(ROWS_A_STEP, n_ctx)
    return Engine(
        model,
        n_threads=n_threads,
        n_ctx=n_ctx,
        n_batch=n_rows,
        n_logits=n_rows,
        kv_type=kv_type,
        cpu=cpu,
    )


def scored_rows(engines: Sequence[Engine], tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (k, token): row k of each engine's logits predicts the token.

    Windows of the engines' context, which is the same for all, do not overlap; the first token of
    a window is not scored. A row is gone with the next step.
    """
    n_ctx, n_batch = engines[0].n_ctx, engines[0].n_batch
    n_windows = -(-len(tokens) // n_ctx)
    with Progress(len(tokens), unit=TOKENS).begin("reading the text") as progress:
        for first in range(0, len(tokens), n_ctx):
            window = tokens[first : first + n_ctx]
            sequences = [SingleSequence(engine) for engine in engines]
            n_inputs = len(window) - 1  # the last token predicts nothing that is scored
            for start in range(0, n_inputs, n_batch):
                rows = range(start, min(start + n_batch, n_inputs))
                for sequence in sequences:
                    sequence.feed(window[rows.start : rows.stop], n_out=len(rows))
                progress.advance(len(rows), f"window {first // n_ctx + 1} of {n_windows}")
                for k, position in enumerate(rows):
                    yield k, window[position + 1]


def mean_of_scored(total: float, n_scored: int) -> float:
    """Return the mean of what was summed over the scored tokens.

    Raises LlamadError when nothing was scored, or when the sum is no finite number.
    """
    if n_scored == 0:
        raise LlamadError(
            ErrorKind.INVALID,
            "TEXT_TOO_SHORT",
            "the text has nothing to score: at least 2 tokens in a window are needed",
        )
    if not math.isfinite(total):
        raise LlamadError(
            ErrorKind.CORRUPT, "MODEL_NOT_FINITE", f"the model's log-probabilities sum to {-total}"
        )
    return total / n_scored


def perplexity_of(nll: float) -> float:
    """Return e^nll; raises LlamadError when that is too large for a number."""
    try:
        return math.exp(nll)
    except OverflowError:
        message = f"{nll:.1f} nats per token are no finite perplexity"
        raise LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", message) from None
