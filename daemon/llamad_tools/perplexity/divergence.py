"""How far a model's predictions are from a reference's on the same text.

The answer to "does quantization hurt?": KL(reference || model) of each next-token distribution, in
nats, beside both likelihoods. Holds a few rows of logits of each model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamad.engine.bindings import Engine, EngineModel
from llamad.errors import ErrorKind, LlamadError
from llamad_tools.perplexity.scoring import (
    mean_of_scored,
    perplexity_of,
    scored_rows,
    scoring_engine,
)

_VOCABULARY = ("tokenizer.ggml.model", "tokenizer.ggml.tokens")


@dataclass(frozen=True, slots=True)
class Divergence:
    """Natural logarithms; means over the scored tokens."""

    perplexity: float
    reference_perplexity: float
    nll_per_token: float
    reference_nll_per_token: float
    nll_difference: float  # the model's less the reference's: above 0, the model is worse
    nll_difference_error: float  # its standard deviation, over the scored tokens
    mean_kl: float  # KL(reference || model)
    max_kl: float
    same_top: float  # share of rows whose likeliest token is the same
    tokens: int
    scored_tokens: int


def measure_divergence(
    model: EngineModel,
    reference: EngineModel,
    tokens: Sequence[int],
    *,
    n_threads: int,
    n_ctx: int,
    kv_type: str = "f16",
) -> Divergence:
    """Score tokens with both models, in windows of n_ctx.

    Raises LlamadError when the vocabularies differ, when there is no token to score, or when the
    weights of either give no finite number.
    """
    _require_same_vocabulary(model, reference)
    n_ctx = min(n_ctx, max(len(tokens), 1))
    total, reference_total, squares, kl_total, max_kl, n_same, scored = (
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0,
        0,
    )
    with (
        scoring_engine(model, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type) as ours,
        scoring_engine(reference, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type) as theirs,
    ):
        for k, token in scored_rows([ours, theirs], tokens):
            log_p, log_q = _log_softmax(theirs, k), _log_softmax(ours, k)
            kl = max(0.0, float(np.exp(log_p) @ (log_p - log_q)))  # rounding may fall below 0
            total -= float(log_q[token])
            reference_total -= float(log_p[token])
            squares += float(log_p[token] - log_q[token]) ** 2
            kl_total += kl
            max_kl = max(max_kl, kl)
            n_same += int(log_p.argmax() == log_q.argmax())
            scored += 1
    nll, reference_nll = mean_of_scored(total, scored), mean_of_scored(reference_total, scored)
    return Divergence(
        perplexity=perplexity_of(nll),
        reference_perplexity=perplexity_of(reference_nll),
        nll_per_token=nll,
        reference_nll_per_token=reference_nll,
        nll_difference=nll - reference_nll,
        nll_difference_error=math.sqrt(
            max(0.0, squares / scored - (nll - reference_nll) ** 2) / scored
        ),
        mean_kl=mean_of_scored(kl_total, scored),
        max_kl=max_kl,
        same_top=n_same / scored,
        tokens=len(tokens),
        scored_tokens=scored,
    )


def _require_same_vocabulary(model: EngineModel, reference: EngineModel) -> None:
    ours, theirs = model.metadata(), reference.metadata()
    sizes = model.info.vocab_size, reference.info.vocab_size
    if sizes[0] != sizes[1]:
        fault = f"{sizes[0]} tokens, the reference {sizes[1]}"
    elif any(ours.get(key) != theirs.get(key) for key in _VOCABULARY):
        fault = f"{sizes[0]} tokens, the reference as many others"
    else:
        return
    raise LlamadError(
        ErrorKind.INVALID,
        "VOCABULARY_MISMATCH",
        f"the models do not share a vocabulary: the model has {fault}",
    )


def _log_softmax(engine: Engine, k: int) -> NDArray[np.float64]:
    """Return kept row k as natural log-probabilities, (vocab_size); NaN where no number is."""
    logits = np.asarray(engine.logits(k), dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits: the sum of what is scored tells
        shifted = logits - logits.max()
        result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
