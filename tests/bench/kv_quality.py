"""What a smaller KV cache costs: likelihoods, and KL divergence from the f16 cache's predictions.

    PYTHONPATH=tests python tests/bench/kv_quality.py TEXT N_TOKENS MODEL.gguf...

A model's first lines are the engine's: f16, q8_0, q4_0. Then the numpy oracle's, which rounds keys
and values only: q4_0 as the engine has it, and without its rotation, which the engine has not; both
are compared with the oracle that rounds nothing. KL is the mean and the 99th percentile over the
text's positions, in nats; "same" the share of positions with the same likeliest token.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamad.engine import Model
from llamad.engine.bindings import KV_TYPES
from reference import forward, load
from reference.rounding import Rounding

Logits = NDArray[np.float32]
PIECE = 32  # rows of logits in float64 at a time: a vocabulary may have 262,144 tokens


def _log_probabilities(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def line(name: str, tokens: list[int], logits: Logits, base: Logits) -> str:
    """Return a row of the table: logits: (n_tokens, vocab_size) beside those of `base`."""
    nll, kl, same = [], [], []
    for first in range(0, len(tokens) - 1, PIECE):
        rows = slice(first, min(first + PIECE, len(tokens) - 1))
        ours, theirs = _log_probabilities(logits[rows]), _log_probabilities(base[rows])
        nll += list(-ours[np.arange(len(ours)), tokens[first + 1 : rows.stop + 1]])
        kl += list((np.exp(theirs) * (theirs - ours)).sum(axis=-1))
        same += list(ours.argmax(axis=-1) == theirs.argmax(axis=-1))
    return (
        f"| {name} | {np.mean(nll):.4f} | {np.mean(kl):.5f} | {np.quantile(kl, 0.99):.4f}"
        f" | {100 * np.mean(same):.1f} % |"
    )


def quality(path: Path, text: str, n_tokens: int) -> None:
    """Print the rows of one model."""
    with Model(str(path), n_threads=1) as model:
        tokens = model.tokenize(text)[:n_tokens]
    print(f"{path.name}, {len(tokens)} tokens\n| KV | NLL | KL | KL, 99 % | same |", flush=True)
    base = None
    for kv_type in KV_TYPES:
        with Model(str(path), n_threads=2, n_ctx=len(tokens), kv_type=kv_type) as model:
            logits = model.logits(tokens)
        base = logits if base is None else base
        print(line(f"{kv_type}, engine", tokens, logits, base), flush=True)
    oracle, base = load(path), None
    for kept in (None, "q4_0", "q4_0 unrotated"):
        rounding = Rounding(activations=False, kv_type=kept)
        logits = forward(oracle, tokens, rounding, np.float32).astype(np.float32)
        base = logits if base is None else base
        print(line(f"{kept or 'exact'}, oracle", tokens, logits, base), flush=True)


def main() -> None:
    """Measure every model of the command line."""
    text, n_tokens, *paths = sys.argv[1:]
    for path in map(Path, paths):
        quality(path, Path(text).read_text(), int(n_tokens))


if __name__ == "__main__":
    main()
