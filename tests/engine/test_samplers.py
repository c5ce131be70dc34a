"""The engine's samplers against the oracle in float64 (reference/sampling.py).

Logits are random float32, so the sets of tokens that stay and the greedy choices must be the same;
mu of mirostat, which follows from the probability of each drawn token, within rounding.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from llamad._engine import ffi
from numpy.typing import NDArray

from llamad.engine.bindings import Engine, EngineError, Sampler
from llamad.sampling.parameters import GREEDY, SAMPLERS, Sampling
from reference import sampling as oracle

PLAIN = replace(GREEDY, temperature=1.0, repeat_last_n=64, dry_penalty_last_n=-1)
N_CTX = 128
MOST_MU_ERROR = 1e-9  # relative: sums of 1e3 doubles


class Row:
    """Logits as an engine keeps them."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.vocab_size = len(logits)
        self._logits = ffi.new("float[]", logits.tolist())

    def _row(self, k: int) -> Any:
        return self._logits


def draw(sampler: Sampler, logits: NDArray[np.float32]) -> int:
    return sampler.sample(cast(Engine, Row(logits)), 0)


def random_logits(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    return rng.normal(0, 2.5, n).astype(np.float32)


def make(sampling: Sampling, n: int, **more: Any) -> closing[Sampler]:
    return closing(Sampler(sampling, vocab_size=n, n_ctx=N_CTX, seed=7, **more))


FILTERS = {
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_n_sigma_wide": {"top_n_sigma": 1.7, "temperature": 2.5},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.1},
    "xtc_now_and_then": {"xtc_probability": 0.4, "xtc_threshold": 0.05},
    "xtc_of_one": {"xtc_probability": 1.0, "xtc_threshold": 0.9},
    "dynamic_temperature": {"temperature": 1.2, "dynatemp_range": 0.9},
    "dynamic_from_0": {"temperature": 0.5, "dynatemp_range": 2.0, "dynatemp_exponent": 0.7},
    "all": {
        "top_n_sigma": 2.0,
        "top_k": 9,
        "typical_p": 0.97,
        "top_p": 0.95,
        "min_p": 0.02,
        "xtc_probability": 0.7,
        "xtc_threshold": 0.08,
        "dynatemp_range": 0.5,
    },
    "temperature_first": {
        "temperature": 2.0,
        "top_p": 0.8,
        "min_p": 0.1,
        "typical_p": 0.95,
        "samplers": ("temperature", "typ_p", "top_p", "min_p"),
    },
    "reversed": {
        "temperature": 0.6,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.02,
        "xtc_probability": 1.0,
        "top_n_sigma": 2.0,
        "samplers": tuple(reversed(SAMPLERS)),
    },
    "left_out": {"top_k": 3, "top_p": 0.5, "samplers": ("top_p",), "temperature": 3.0},
}


@pytest.mark.parametrize("name", FILTERS)
def test_what_is_drawn_has_the_probabilities_of_the_oracle(name: str) -> None:
    changed: Any = FILTERS[name]
    sampling = replace(PLAIN, **changed)
    rng = np.random.default_rng(1)
    for n in (1, 2, 14, 14, 14):
        logits = random_logits(rng, n)
        if n > 8:
            logits[3] = -np.inf
            logits[5] = logits[6]
        compare(sampling, logits, 1500)


def compare(sampling: Sampling, logits: NDArray[np.float32], n_draws: int) -> None:
    """Draw often; nothing that the oracle excludes may come, and all else as often as it says."""
    exact = logits.astype(np.float64)
    given = {on: oracle.probabilities(exact, sampling, excluding=on) for on in (False, True)}
    counts, expected, variance = np.zeros((3, len(logits)))
    with make(sampling, len(logits)) as sampler:
        for i in range(n_draws):
            uniform = oracle.random(7, oracle.XTC, i)
            probabilities = given[uniform < sampling.xtc_probability]
            token = draw(sampler, logits)
            assert probabilities[token] > 0, (i, token)
            counts[token] += 1
            expected += probabilities
            variance += probabilities * (1 - probabilities)
    assert (np.abs(counts - expected) <= 5 * np.sqrt(variance) + 1e-6).all(), (counts, expected)


@pytest.mark.parametrize("dry_last_n", [-1, 40, 0])
@pytest.mark.parametrize("allowed", [1, 2, 4])
@pytest.mark.parametrize("breakers", [frozenset[int](), frozenset({0}), frozenset({1, 3})])
def test_dry_and_penalties_take_what_the_oracle_takes(
    dry_last_n: int, allowed: int, breakers: frozenset[int]
) -> None:
    sampling = replace(
        GREEDY,
        dry_multiplier=0.8,
        dry_allowed_length=allowed,
        dry_penalty_last_n=dry_last_n,
        dry_sequence_breakers=tuple("abcde"[i] for i in breakers) or ("",),
        repeat_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.05,
        repeat_last_n=20,
    )
    rng = np.random.default_rng(2)
    tokens = [int(token) for token in rng.integers(0, 5, 30)]
    with make(sampling, 5, piece=lambda token: b"abcde"[token : token + 1]) as sampler:
        for token in tokens:
            sampler.accept(token)
        for _ in range(120):
            logits = (rng.normal(0, 1, 5) + 3 * (np.arange(5) == len(tokens) % 3)).astype(
                np.float32
            )
            recent = tokens[-N_CTX:]
            expected = oracle.penalized(logits.astype(np.float64), sampling, recent, breakers)
            tokens.append(draw(sampler, logits))
            assert tokens[-1] == expected.argmax()


def test_penalties_behind_the_filters_and_the_temperature() -> None:
    """As llama.cpp has it: the penalty of a logit that was divided before it."""
    sampling = replace(
        PLAIN, temperature=2.0, presence_penalty=1.0, top_k=3, samplers=("top_k", "temperature")
    )
    behind = replace(sampling, samplers=(*sampling.samplers, "penalties"))
    logits = np.array([3, 2, 1, 0], np.float32)
    counts = np.zeros(4)
    for seed in range(4000):
        with closing(Sampler(behind, vocab_size=4, n_ctx=N_CTX, seed=seed)) as sampler:
            sampler.accept(0)
            counts[draw(sampler, logits)] += 1
    expected = 4000 * oracle.softmax(np.array([3 / 2 - 1, 2 / 2, 1 / 2, -np.inf]))
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 1e-6).all()


def test_a_breaker_may_begin_in_one_token_and_end_in_another() -> None:
    sampling = replace(
        GREEDY, dry_multiplier=5.0, dry_penalty_last_n=-1, dry_sequence_breakers=("b--c",)
    )
    pieces = [b"a", b"ab-", b"-cd", b"e"]

    def chosen(tokens: Sequence[int]) -> int:
        with make(sampling, 4, piece=pieces.__getitem__) as sampler:
            for token in tokens:
                sampler.accept(token, penalized=False)
            return draw(sampler, np.array([1, 0, 0, 1.5], np.float32))

    assert chosen([0, 0, 3, 0, 0]) == 0  # "aae" may not come again
    assert chosen([0, 1, 3, 0, 1]) == 0  # no breaker is whole
    assert chosen([1, 2, 3, 1, 2]) == 3  # what would repeat lies before the breaker


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("tau", "eta", "temperature"), [(5, 0.1, 1), (2, 0.3, 0.7), (0.5, 1, 2)])
def test_mirostat_learns_what_the_oracle_learns(
    version: int, tau: float, eta: float, temperature: float
) -> None:
    sampling = replace(
        PLAIN, mirostat=version, mirostat_tau=tau, mirostat_eta=eta, temperature=temperature
    )
    tau, eta, temperature = (float(np.float32(x)) for x in (tau, eta, temperature))
    exact = replace(sampling, temperature=temperature)
    rng = np.random.default_rng(3)
    mu = 2 * tau
    with make(sampling, 700) as sampler:
        for _ in range(200):
            logits = random_logits(rng, 700)
            probabilities = oracle.mirostat(logits.astype(np.float64), exact, mu)
            token = draw(sampler, logits)
            assert probabilities[token] > 0
            mu -= eta * (-np.log2(probabilities[token]) - tau)
            assert sampler.mu == pytest.approx(mu, rel=MOST_MU_ERROR, abs=MOST_MU_ERROR)


def test_a_sampler_made_anew_goes_on_as_the_old_one() -> None:
    """From the tokens, the seed, the number of draws and mu, at every point."""
    sampling = replace(
        PLAIN,
        temperature=1.4,
        mirostat=2,
        mirostat_tau=3.0,
        dry_multiplier=1.0,
        dry_penalty_last_n=30,
        dry_sequence_breakers=("a",),
        frequency_penalty=0.2,
        repeat_last_n=10,
    )
    rng = np.random.default_rng(4)
    rows = [random_logits(rng, 26) for _ in range(80)]
    more: Any = {"piece": lambda token: bytes([97 + token]), "forbidden": (1, 2), "first_draw": 20}
    tokens, learned = [], []
    with make(sampling, 26, **more) as sampler:
        for row in rows:
            learned.append(sampler.mu)
            tokens.append(draw(sampler, row))
    assert not {1, 2} & set(tokens[:20])
    assert {1, 2} & set(tokens[20:])
    for begin in range(0, 77, 3):
        with make(sampling, 26, n_draws=begin, mu=learned[begin], **more) as sampler:
            for token in tokens[:begin]:
                sampler.accept(token)
            assert [draw(sampler, row) for row in rows[begin : begin + 3]] == (
                tokens[begin : begin + 3]
            )


def test_what_is_forbidden_comes_where_nothing_else_can() -> None:
    logits = np.array([1, 5, -np.inf], np.float32)
    with make(GREEDY, 3, forbidden=(1,), first_draw=2) as sampler:
        assert [draw(sampler, logits) for _ in range(3)] == [0, 0, 1]
    logits[0] = -np.inf
    with make(GREEDY, 3, forbidden=(1,), first_draw=2) as sampler:
        assert draw(sampler, logits) == 1


def test_refusals_name_the_thing() -> None:
    with pytest.raises(EngineError, match="mu is nan, must be finite"):
        Sampler(PLAIN, vocab_size=4, n_ctx=8, seed=1, mu=float("nan"))
    with pytest.raises(EngineError, match=r"forbidden token is 4, must be in \[0, 3\]"):
        Sampler(PLAIN, vocab_size=4, n_ctx=8, seed=1, forbidden=(4,), first_draw=1)
    twice = replace(PLAIN, samplers=("top_k", "top_k"))
    with pytest.raises(EngineError, match="samplers: 3 is there twice"):
        Sampler(twice, vocab_size=4, n_ctx=8, seed=1)
