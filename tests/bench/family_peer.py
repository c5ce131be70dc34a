"""The logits of tiny models of each family, in llamad and in llama.cpp, against exact arithmetic.

    PYTHONPATH=tests .venv/bin/python -m bench.family_peer [FAMILY...]

Needs the PyPI package ``xllamacpp``, which is no dependency of anything here. A table, one line for
each family, shape and type of the weights:

KL      of the next token's probabilities from the oracle's, the mean over a prompt of 40 tokens, in
        nats: llamad, llama.cpp
most    the largest difference of a logit from the oracle's, in the logits' standard deviations:
        llamad, llama.cpp

The oracle (``reference``) is float64 and rounds nothing. Both engines round activations of
quantized types to int8 and keep keys and values in f16; llama.cpp computes GELU through a table in
half precision.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import llama_cpp
from family_models import FAMILY_MODELS, family_specs
from llama_cpp import LlamaCpp
from llamad.engine import Model
from reference import Array, forward, load, log_softmax
from tiny_gguf import TinySpec, write_tiny_model

N_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Distance:
    """Of logits from the oracle's, as the module says."""

    divergence: float
    largest: float


def tokens_of_prompt() -> list[int]:
    """Return BOS and random tokens, bytes and words."""
    return [1, *np.random.default_rng(5).integers(3, 300, N_TOKENS - 1).tolist()]


def distance(logits: NDArray[np.float32], truth: Array) -> Distance:
    """Compare (n_tokens, vocab_size) logits with exact ones."""
    exact, got = log_softmax(truth), log_softmax(logits)
    divergence = np.sum(np.exp(exact) * (exact - got), axis=-1).mean()
    return Distance(float(divergence), float(np.abs(logits - truth).max() / truth.std()))


def compare(path: Path) -> tuple[Distance, Distance]:
    """Return how far llamad and llama.cpp are from exact arithmetic on one file."""
    tokens = tokens_of_prompt()
    truth = forward(load(path), tokens, n_ctx=llama_cpp.N_CTX)
    with Model(path, n_threads=1, n_ctx=llama_cpp.N_CTX) as ours:
        mine = distance(ours.logits(tokens), truth)
    with LlamaCpp(path, n_threads=1) as theirs:
        return mine, distance(theirs.logits(tokens), truth)


def rows(family: str, folder: Path) -> Iterator[str]:
    """Yield the lines of the table for one family."""
    for title, spec in family_specs(family):
        mine, peer = compare(_write(folder, spec))
        yield (
            f"{family:14} {title:14} {mine.divergence:9.1e} {peer.divergence:9.1e}   "
            f"{mine.largest:7.4f} {peer.largest:7.4f}"
        )


def _write(folder: Path, spec: TinySpec) -> Path:
    return write_tiny_model(folder / "model.gguf", spec)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", metavar="FAMILY", nargs="*", default=list(FAMILY_MODELS))
    options = parser.parse_args()
    if not llama_cpp.is_available():
        parser.error("xllamacpp is not installed: pip install xllamacpp")
    print("family         model            KL llamad llama.cpp   most llamad llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families:
            for line in rows(family, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
