"""The oracle of the samplers: from logits to the probabilities of the next token, in float64.

Written from the papers and from llama.cpp's description of its samplers, with full sorts and no
heap, so that it shares nothing with the engine but the mathematics. Ranges are the caller's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamad.sampling.parameters import SAMPLERS, Sampling

Logits = NDArray[np.float64]
Probabilities = NDArray[np.float64]
MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
DRAW, XTC = 0, 1  # the streams of random numbers


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def random(seed: int, stream: int, index: int) -> float:
    """Return random number ``index`` of a stream of a seed, in [0, 1)."""
    start = _mix((seed + GAMMA) & MASK)
    if stream:
        start = _mix((start + stream * GAMMA) & MASK)
    return float(_mix((start + (index + 1) * GAMMA) & MASK) >> 11) * 2.0**-53


def softmax(logits: Logits) -> Probabilities:
    """Return the probabilities; a logit of minus infinity has none."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def best_first(logits: Logits) -> NDArray[np.int64]:
    """Return the tokens, likeliest first, of equal ones the lower first."""
    return np.lexsort((np.arange(len(logits)), -logits))


def _last(recent: Sequence[int], n: int) -> list[int]:
    """Return the last n tokens; all of them for -1."""
    return list(recent if n < 0 else recent[max(0, len(recent) - n) :])


def penalize(logits: Logits, p: Sampling, recent: Sequence[int]) -> Logits:
    """Repetition penalty (Keskar et al. 2019), then frequency and presence."""
    out = logits.copy()
    window = _last(recent, p.repeat_last_n)
    for token in set(window):
        x = out[token] / p.repeat_penalty if out[token] > 0 else out[token] * p.repeat_penalty
        out[token] = x - window.count(token) * p.frequency_penalty - p.presence_penalty
    return out


def dry(logits: Logits, p: Sampling, recent: Sequence[int], breakers: frozenset[int]) -> Logits:
    """DRY, token by token: how long is the end of the text that stood before each earlier place."""
    out = logits.copy()
    text = _last(recent, p.dry_penalty_last_n)
    longest: dict[int, int] = {}
    for i in range(1, len(text)):  # text[i] followed text[:i]
        n = 0
        while n < i and text[i - 1 - n] == text[-1 - n] and text[-1 - n] not in breakers:
            n += 1
        if n >= p.dry_allowed_length and text[i] not in breakers:
            longest[text[i]] = max(n, longest.get(text[i], 0))
    for token, n in longest.items():
        out[token] -= p.dry_multiplier * p.dry_base ** (n - p.dry_allowed_length)
    return out


def _keep(logits: Logits, kept: NDArray[np.int64] | NDArray[np.bool_]) -> Logits:
    out = np.full_like(logits, -np.inf)
    out[kept] = logits[kept]
    return out


def _dynamic(logits: Logits, p: Sampling) -> Logits:
    probabilities = softmax(logits)
    present = probabilities[probabilities > 0]
    entropy = -(present * np.log(present)).sum()
    n = int(np.isfinite(logits).sum())
    even = entropy / np.log(n) if n > 1 else 0.0
    low, high = max(0.0, p.temperature - p.dynatemp_range), p.temperature + p.dynatemp_range
    temperature = low + (high - low) * even**p.dynatemp_exponent
    if temperature == 0:
        return _keep(logits, best_first(logits)[:1])
    return np.asarray(logits / temperature)


def sampler(name: str, logits: Logits, p: Sampling, excluding: bool) -> Logits:
    """Apply one of the samplers but for penalties and DRY. excluding: chance wants XTC."""
    finite = np.isfinite(logits)
    order = best_first(logits)[: finite.sum()]
    probabilities = softmax(logits)
    match name:
        case "top_n_sigma" if p.top_n_sigma > 0:
            return _keep(logits, logits >= logits.max() - p.top_n_sigma * logits[finite].std())
        case "top_k" if p.top_k > 0:
            return _keep(logits, order[: p.top_k])
        case "typ_p" if p.typical_p < 1:
            surprise = -np.log(probabilities[order])
            off = np.abs(surprise - (probabilities[order] * surprise).sum())
            order = order[np.lexsort((order, off))]
            n = int((np.cumsum(probabilities[order]) <= p.typical_p).sum()) + 1
            return _keep(logits, order[:n])
        case "top_p" if p.top_p < 1:
            n = int((np.cumsum(probabilities[order]) < p.top_p).sum()) + 1
            return _keep(logits, order[:n])
        case "min_p" if p.min_p > 0:
            return _keep(logits, probabilities >= p.min_p * probabilities.max())
        case "xtc" if excluding:
            n = int((probabilities >= p.xtc_threshold).sum())
            return _keep(logits, order[max(0, n - 1) :])
        case "temperature":
            return _dynamic(logits, p) if p.dynatemp_range > 0 else logits / p.temperature
    return logits


def penalized(
    logits: Logits, p: Sampling, recent: Sequence[int], breakers: frozenset[int] = frozenset()
) -> Logits:
    """Apply penalties and DRY, where they are in the order."""
    for name in p.samplers or SAMPLERS:
        if name == "penalties":
            logits = penalize(logits, p, recent)
        elif name == "dry" and p.dry_multiplier > 0:
            logits = dry(logits, p, recent, breakers)
    return logits


def probabilities(logits: Logits, p: Sampling, *, excluding: bool = False) -> Probabilities:
    """Return the probabilities after all samplers but for penalties and DRY. temperature > 0."""
    for name in p.samplers or SAMPLERS:
        logits = sampler(name, logits, p, excluding)
    return softmax(logits)


def mirostat(logits: Logits, p: Sampling, mu: float) -> Probabilities:
    """Return the probabilities under mirostat, version 1 or 2 (Basu et al. 2021)."""
    scaled = logits / p.temperature
    given, order = softmax(scaled), best_first(scaled)
    order = order[: np.isfinite(scaled).sum()]
    if p.mirostat == 2:
        n = int((-np.log2(given[order]) <= mu).sum())
        return softmax(_keep(scaled, order[: max(1, n)]))
    first = given[order][:100]
    t = np.log(np.arange(2, len(first) + 1) / np.arange(1, len(first)))
    s = (t * np.log(first[:-1] / first[1:])).sum() / (t * t).sum()
    epsilon = s - 1
    k = (epsilon * 2**mu / (1 - len(logits) ** -epsilon)) ** (1 / s)
    return softmax(_keep(scaled, order[: max(1, int(k))]))
