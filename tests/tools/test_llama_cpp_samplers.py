"""The oracle of the samplers (reference/sampling.py) against llama.cpp's own, in float32.

``tests/engine/test_samplers.py`` compares the engine with the oracle. Needs ``xllamacpp``.
"""

from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden_files import DEMO_MODEL, needs_demo_model
from llama_cpp import LlamaCpp, is_available
from llama_cpp_samplers import PeerSamplers
from llamad.sampling.parameters import GREEDY, SAMPLERS
from llamad.text import load_tokenizer
from reference import sampling as oracle

if not is_available():
    pytest.skip("xllamacpp is not installed: make peer", allow_module_level=True)

PLAIN = replace(GREEDY, temperature=1.0)
VOCAB = 60
MOST_ERROR = 2e-5  # of a logit of at most 10 in float32, through a dozen operations

CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "top_n_sigma": {"top_n_sigma": 1.3},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.05},
    "xtc_of_one": {"xtc_probability": 1.0, "xtc_threshold": 0.45},
    "dynamic_temperature": {"temperature": 1.1, "dynatemp_range": 0.8, "dynatemp_exponent": 1.4},
    "dynamic_from_0": {"temperature": 0.5, "dynatemp_range": 3.0},
    "penalties": {"repeat_penalty": 1.3, "presence_penalty": 0.3, "frequency_penalty": 0.1,
                  "repeat_last_n": 30},
    # Without top_n_sigma: llama.cpp gives what it drops to the next ones, at minus infinity, and
    # their entropies are NaN or of more tokens.
    "all": {"top_k": 30, "typical_p": 0.98, "top_p": 0.97, "min_p": 0.01,
            "xtc_probability": 1.0, "xtc_threshold": 0.1, "dynatemp_range": 0.5,
            "repeat_penalty": 1.2, "repeat_last_n": 50},
    "reversed": {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02,
                 "xtc_probability": 1.0, "samplers": tuple(reversed(SAMPLERS[2:]))},
    "temperature_first": {"temperature": 1.8, "top_p": 0.8, "typical_p": 0.9, "min_p": 0.05,
                          "samplers": ("temperature", "min_p", "top_p", "typ_p")},
}  # fmt: skip


def random_logits(rng: np.random.Generator, n: int = VOCAB) -> NDArray[np.float32]:
    return rng.normal(0, 2, n).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_of_the_logits_is_the_same(name: str) -> None:
    sampling = replace(PLAIN, **CASES[name])
    rng, wants = np.random.default_rng(1), sampling.xtc_probability > 0
    recent = [int(token) for token in rng.integers(0, VOCAB, 70)]
    with closing(PeerSamplers(sampling, VOCAB)) as peer:
        peer.accept(recent)
        for _ in range(100):
            logits = random_logits(rng)
            left, _ = peer.apply(logits)
            expected = oracle.penalized(logits.astype(np.float64), sampling, recent)
            same(oracle.probabilities(expected, sampling, excluding=wants), oracle.softmax(left))


def same(expected: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    assert np.array_equal(expected > 0, found > 0)
    assert np.abs(expected - found).max() < MOST_ERROR


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_and_learns_the_same(version: int) -> None:
    """Fed with what llama.cpp chose. Where its float32 k or mu is rounded, one set may differ."""
    sampling = replace(PLAIN, mirostat=version, mirostat_tau=2.0, mirostat_eta=0.3, temperature=0.9)
    rng = np.random.default_rng(2)
    mu, n_equal = 4.0, 0
    with closing(PeerSamplers(sampling, VOCAB)) as peer:
        for _ in range(200):
            logits = random_logits(rng)
            left, chosen = peer.apply(logits)
            expected = oracle.mirostat(logits.astype(np.float64), sampling, mu)
            found = oracle.softmax(left)
            n_equal += np.array_equal(expected > 0, found > 0)
            mu -= 0.3 * (-np.log2(found[chosen]) - 2.0)
    assert n_equal >= 199


@needs_demo_model
@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_dry_takes_the_same(allowed: int) -> None:
    """With the demo model's vocabulary, whose tokens have the breakers in them."""
    sampling = replace(PLAIN, dry_multiplier=0.9, dry_allowed_length=allowed, dry_penalty_last_n=48)
    tokenizer = load_tokenizer(DEMO_MODEL)
    texts = [tokenizer.piece(i).decode(errors="replace") for i in range(tokenizer.vocab_size)]
    breaks = [any(text in one for text in sampling.dry_sequence_breakers) for one in texts]
    breakers = frozenset(i for i, is_one in enumerate(breaks) if is_one)
    used = [*sorted(breakers)[:1], *(i for i in range(1000, 1040) if i not in breakers)][:9]
    rng = np.random.default_rng(3)
    with (
        LlamaCpp(DEMO_MODEL) as model,
        closing(PeerSamplers(sampling, tokenizer.vocab_size, model)) as peer,
    ):
        recent: list[int] = []
        n_changed = 0
        for _ in range(60):
            recent += [used[i] for i in rng.choice(9, 4, p=[0.04, *[0.12] * 8])]
            peer.accept(recent[-4:])
            logits = random_logits(rng, tokenizer.vocab_size)
            left, _ = peer.apply(logits)
            expected = oracle.dry(logits.astype(np.float64), sampling, recent, breakers)
            n_changed += int((expected != logits).sum())
            assert np.abs(expected - left).max() < MOST_ERROR
    assert n_changed >= {1: 50, 2: 20, 3: 2}[allowed]


def test_the_order_is_llama_cpps() -> None:
    """The names and the default of ``--samplers`` (llama.cpp, common/common.h and sampling.cpp)."""
    assert ";".join(SAMPLERS) == (
        "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
    )
