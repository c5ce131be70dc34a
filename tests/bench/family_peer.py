"""The logits of tiny models of each family, in llamad and in llama.cpp, against exact arithmetic.

    PYTHONPATH=tests .venv/bin/python -m bench.family_peer [--summary] [FAMILY...]

Needs the PyPI package ``xllamacpp``, which is no dependency of anything here. A table, one line for
each family, shape and type of the weights:

KL      of the next token's probabilities from the oracle's, the mean over a prompt of 40 tokens, in
        nats: llamad, llama.cpp; of an encoder, which has none, 1 - the cosine of a token's rows
most    the largest difference of a logit from the oracle's, in the logits' standard deviations:
        llamad, llama.cpp; of an encoder, of an element of a row

The oracle (``reference``) is float64 and rounds nothing; it has the weights as the file's type
gives them. So what a line of a quantized type shows is what activations in int8 cost, not what the
type does. Both engines round them, and keep keys and values in f16; llama.cpp computes GELU through
a table in half precision. ``--summary`` prints the table of docs/accuracy.md: a line for each
family, the mean of KL and the largest of most over all shapes, of types of floats and of Q8_0.
"""

import argparse
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import llama_cpp
from family_models import FAMILY_MODELS, TYPES, family_specs
from llama_cpp import LlamaCpp
from llamad.engine import Model
from llamad.engine.bindings import Engine, EngineModel, Run
from reference import Array, forward, load, log_softmax
from reference.encoder import encode
from tiny_encoder import ENCODER_SHAPES, ENCODERS, TinyEncoder
from tiny_gguf import write_tiny_model

N_TOKENS, N_CTX_ENCODER = 40, 64
FAMILIES = (*FAMILY_MODELS, *ENCODERS)
FLOATS = ("F32", "F16")


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


def compare_encoder(path: Path, encoder: TinyEncoder) -> tuple[Distance, Distance]:
    """Return how far the rows of an encoder's file are from exact ones in llamad and llama.cpp."""
    dim = encoder.dim
    tokens = np.random.default_rng(5).integers(0, encoder.vocab_size, N_TOKENS).tolist()
    truth = encode(path, tokens)
    with EngineModel(path) as model, Engine(model, n_threads=1, n_ctx=N_CTX_ENCODER) as engine:
        engine.forward([Run(tokens, 0, range(N_CTX_ENCODER // engine.block_tokens), 0)])
        sums = [array("d", bytes(8 * dim)) for _ in tokens]
        for i, row in enumerate(sums):
            engine.add_rows(i, 1, row)
    with LlamaCpp(path, n_threads=1) as theirs:
        return _row_distance(np.array(sums), truth), _row_distance(theirs.rows(tokens, dim), truth)


def _row_distance(rows: Array, truth: Array) -> Distance:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(truth, axis=1)
    cosine = np.sum(rows * truth, axis=1) / lengths
    return Distance(float(1 - cosine.mean()), float(np.abs(rows - truth).max() / truth.std()))


def cells(family: str, folder: Path) -> Iterator[tuple[str, str, Distance, Distance]]:
    """Yield shape and type, the type, and both engines' distances for each model of a family."""
    path = folder / "model.gguf"
    if family not in ENCODERS:
        for title, spec in family_specs(family):
            yield title, spec.weight_type, *compare(write_tiny_model(path, spec))
        return
    for shape, weight_type in product(ENCODER_SHAPES, TYPES):
        encoder = TinyEncoder(family, *shape, weight_type=weight_type, pooling=0)
        yield (
            f"{shape[0]} {weight_type}",
            weight_type,
            *compare_encoder(encoder.write(path), encoder),
        )


def rows(family: str, folder: Path) -> Iterator[str]:
    """Yield the lines of the table for one family."""
    for title, _, mine, peer in cells(family, folder):
        yield (
            f"{family:14} {title:14} {mine.divergence:9.1e} {peer.divergence:9.1e}   "
            f"{mine.largest:7.4f} {peer.largest:7.4f}"
        )


def summary(family: str, folder: Path) -> str:
    """Return the line of a family in docs/accuracy.md."""
    found = list(cells(family, folder))
    columns = [family]
    for is_float in (True, False):
        of_kind = [item for item in found if (item[1] in FLOATS) == is_float]
        both = [[item[2] for item in of_kind], [item[3] for item in of_kind]]
        columns += [f"{np.mean([d.divergence for d in each]):.1e}" for each in both]
        columns += [f"{max(d.largest for d in each):.4f}" for each in both]
    return f"| {' | '.join(columns)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", metavar="FAMILY", nargs="*", default=list(FAMILIES))
    parser.add_argument("--summary", action="store_true", help="a line for each family, Markdown")
    options = parser.parse_args()
    if not llama_cpp.is_available():
        parser.error("xllamacpp is not installed: pip install xllamacpp")
    if not options.summary:
        print("family         model            KL llamad llama.cpp   most llamad llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families:
            if options.summary:
                print(summary(family, Path(folder)), flush=True)
                continue
            for line in rows(family, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
