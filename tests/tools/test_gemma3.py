"""Gemma 3 270M in Q4_K_M, a file that people run: the golden passage in llamad and in llama.cpp.

Both against the numpy oracle in float64 with the dequantized weights. ``make peer`` fetches the
file and llama.cpp; ``-s`` shows the figures.
"""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import gemma3
import llama_cpp
from engine.feeding import Logits
from golden_files import DEMO_FIGURES, PASSAGE
from llama_cpp import LlamaCpp
from llamad.engine import Model
from llamad.engine.bindings import Engine
from llamad.engine.single_sequence import SingleSequence
from reference import Array, ReferenceModel, forward, load, log_softmax

if not gemma3.MODEL.exists():
    pytest.skip(gemma3.MISSING, allow_module_level=True)
if not llama_cpp.is_available():
    pytest.skip("no peer xllamacpp: make peer installs it", allow_module_level=True)

NLL_BOUND = 0.003  # relative: what activations in int8 cost
GREEDY_MARGIN = 0.15  # logits; a choice by less may fall to the other side
N_GREEDY = 24  # tokens


@dataclass(frozen=True, slots=True)
class Figures:
    """Of an engine's log-probabilities on the passage, against the oracle's."""

    nll: float  # a token
    divergence: float  # mean over the positions, nats
    n_others: int  # positions whose likeliest token is another, by more than the margin


@pytest.fixture(scope="module")
def oracle() -> ReferenceModel:
    return load(gemma3.MODEL)


def figures_of(logprobs: Array, exact: Array, tokens: list[int]) -> Figures:
    nll = -logprobs[np.arange(len(tokens) - 1), tokens[1:]].mean()
    divergence = np.sum(np.exp(exact) * (exact - logprobs), axis=-1).mean()
    return Figures(float(nll), float(divergence), int(others(logprobs, exact).sum()))


def others(logits: Array, exact: Array) -> Array:
    """Return where the likeliest token is not the oracle's, and no near tie either."""
    last_two = np.partition(exact, -2, axis=-1)[:, -2:]
    result: Array = (logits.argmax(axis=-1) != exact.argmax(axis=-1)) & (
        last_two[:, 1] - last_two[:, 0] > GREEDY_MARGIN
    )
    return result


def test_the_passage_is_as_likely_as_in_exact_arithmetic(oracle: ReferenceModel) -> None:
    text = PASSAGE.read_text(encoding="utf-8")
    with Model(gemma3.MODEL, n_ctx=llama_cpp.N_CTX) as model, LlamaCpp(gemma3.MODEL) as peer:
        ids = model.tokenize(text)
        assert peer.tokenize(text) == ids
        tokens = ids[: llama_cpp.N_CTX]
        ours, theirs = log_softmax(model.logits(tokens)), log_softmax(peer.logits(tokens))
    exact = log_softmax(forward(oracle, tokens))
    true, mine, other = (figures_of(found, exact, tokens) for found in (exact, ours, theirs))
    print(f"oracle {true}\nllamad {mine}\nllama.cpp {other}")
    assert abs(mine.nll - true.nll) <= NLL_BOUND * true.nll
    assert mine.divergence <= other.divergence
    assert mine.n_others <= other.n_others


def test_a_greedy_text_is_that_of_exact_arithmetic(oracle: ReferenceModel) -> None:
    """Given what it wrote: the next token is the oracle's, but near ties."""
    text = json.loads(DEMO_FIGURES.read_text(encoding="utf-8"))["prompts"][1]["text"]
    with Model(gemma3.MODEL, n_ctx=64) as model:
        tokens = model.tokenize(text)
        n_prompt = len(tokens)
        logits = written(model.engine, tokens)
    exact = forward(oracle, tokens)[n_prompt - 1 : -1]
    assert not others(logits, exact).any()


def written(engine: Engine, tokens: list[int]) -> Logits:
    """Append what is likeliest, token by token; return the logits of each choice."""
    sequence, rows, unread = SingleSequence(engine), [], list(tokens)
    for _ in range(N_GREEDY):
        sequence.feed(unread, n_out=1)
        rows.append(np.array(engine.logits(0)))
        unread = [int(rows[-1].argmax())]
        tokens += unread
    return np.stack(rows)
