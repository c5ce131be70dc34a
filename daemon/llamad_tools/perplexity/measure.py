"""Perplexity: one window when the text fits the context, else windows that do not overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from llamad.engine.bindings import EngineModel
from llamad_tools.perplexity.scoring import (
    mean_of_scored,
    perplexity_of,
    scored_rows,
    scoring_engine,
)


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result. nll_per_token: natural log, mean over the scored tokens."""

    nll_per_token: float
    perplexity: float
    tokens: int  # of the text, the beginning-of-sequence token included
    scored_tokens: int  # all but the first of each window


def measure(
    model: EngineModel,
    tokens: Sequence[int],
    *,
    n_threads: int,
    n_ctx: int,
    kv_type: str = "f16",
    cpu: str | None = None,
) -> Perplexity:
    """Score tokens in windows of n_ctx.

    Raises LlamadError when there is no token to score, or when the weights give no finite number.
    """
    n_ctx = min(n_ctx, max(len(tokens), 1))
    total, scored = 0.0, 0
    with scoring_engine(
        model, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type, cpu=cpu
    ) as engine:
        for k, token in scored_rows([engine], tokens):
            total -= engine.log_probability(k, token)
            scored += 1
    nll = mean_of_scored(total, scored)
    return Perplexity(nll, perplexity_of(nll), len(tokens), scored)
