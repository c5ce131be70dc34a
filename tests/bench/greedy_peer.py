"""The greedy text of llamad beside llama.cpp's, and beside exact arithmetic: reports, no assertion.

    PYTHONPATH=tests .venv/bin/python -m bench.greedy_peer MODEL... [--tokens 32]

Needs the PyPI package ``xllamacpp``, which is no dependency of anything here. Both engines multiply
with activations rounded to int8, so near a tie either may take the other token, and from there on
the texts differ. The numpy oracle, float32 with the dequantized weights, says how near a tie was
and who was right. A table, one line a file:

same            prompts whose whole text is the same in both engines
self            the same for llama.cpp alone, its prompt in one batch and token by token
agree           positions with the same choice, given llama.cpp's text: llamad and llama.cpp,
                llamad and the oracle, llama.cpp and the oracle
noise           root mean square of the logits' errors against the oracle: llamad, llama.cpp
margin          where texts part, the oracle's logit of llamad's choice over llama.cpp's
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import llama_cpp
from llama_cpp import LlamaCpp
from llamad.engine import Model
from llamad.engine.single_sequence import SingleSequence
from reference import EXACT, Array, ReferenceModel, forward, load

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a small robot who",
    "def fibonacci(n):",
    "Question: What is two plus two?\nAnswer:",
    "The most important thing to know about the Raspberry Pi is",
    "In 1969, the first man",
)

Logits = NDArray[np.float32]
Extend = Callable[
    [Sequence[int], int], Logits
]  # tokens, position of the first -> the last's logits


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two greedy texts part: the choices after the same tokens, and the oracle's view.

    margin: of the oracle's logits, ours over theirs.
    """

    position: int  # of the choice, from the first after the prompt
    ours: int
    theirs: int
    margin: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt. Choices: (n_tokens) along llama.cpp's text; noise: of the logits there."""

    parting: Parting | None
    repeats_itself: bool  # llama.cpp, whatever the batches of its prompt
    our_choices: NDArray[np.int64]
    their_choices: NDArray[np.int64]
    true_choices: NDArray[np.int64]
    our_noise: float
    their_noise: float


def compare(
    ours: Model, theirs: LlamaCpp, oracle: ReferenceModel, text: str, n_tokens: int
) -> Comparison:
    """Continue a text in both engines by n_tokens. Raises ValueError when its ids differ."""
    prompt = ours.tokenize(text)
    if prompt != theirs.tokenize(text):
        raise ValueError(f"{text!r} is {prompt} here, {theirs.tokenize(text)} in llama.cpp")
    our_text, _ = _continue(_ours(ours), prompt, n_tokens)
    their_text, their_logits = _continue(_theirs(theirs), prompt, n_tokens)
    their_other_text, _ = _continue(_theirs(theirs, step=1), prompt, n_tokens)
    start = len(prompt) - 1
    our_logits = ours.logits(their_text[:-1])[start:]
    truth = forward(oracle, their_text[:-1], EXACT, np.float32)[start:]
    return Comparison(
        _parting(our_text[start + 1 :], their_text[start + 1 :], truth),
        their_text == their_other_text,
        our_logits.argmax(axis=1),
        their_logits.argmax(axis=1),
        truth.argmax(axis=1),
        _noise(our_logits, truth),
        _noise(their_logits, truth),
    )


def _ours(model: Model) -> Extend:
    sequence = SingleSequence(model.engine)

    def extend(tokens: Sequence[int], first: int) -> Logits:
        sequence.truncate(first)
        sequence.feed(tokens, n_out=1)
        return np.array(model.engine.logits(0), np.float32)

    return extend


def _theirs(model: LlamaCpp, step: int = llama_cpp.N_CTX) -> Extend:
    def extend(tokens: Sequence[int], first: int) -> Logits:
        rows = model.extend(tokens, first) if first else model.logits(tokens, step=step)
        last: Logits = rows[-1]
        return last

    return extend


def _continue(extend: Extend, prompt: Sequence[int], n_tokens: int) -> tuple[list[int], Logits]:
    """Return the prompt with n_tokens greedy ones, and the logits that chose them."""
    text, rows = list(prompt), [extend(prompt, 0)]
    for _ in range(n_tokens - 1):
        text.append(int(rows[-1].argmax()))
        rows.append(extend(text[-1:], len(text) - 1))
    return [*text, int(rows[-1].argmax())], np.stack(rows)


def _parting(ours: Sequence[int], theirs: Sequence[int], truth: Array) -> Parting | None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return Parting(i, a, b, float(truth[i, a] - truth[i, b]))
    return None


def _noise(logits: Logits, truth: Array) -> float:
    """Root mean square of the errors; a constant on all logits of a row is none."""
    error = logits - truth
    return float(np.sqrt(np.mean((error - error.mean(axis=1, keepdims=True)) ** 2)))


def row(path: Path, n_tokens: int) -> str:
    """Return the line of the table for one file."""
    oracle = load(path)
    with Model(path) as ours, LlamaCpp(path) as theirs:
        found = [compare(ours, theirs, oracle, text, n_tokens) for text in PROMPTS]
    mine, peer, true = (
        np.concatenate([getattr(item, name) for item in found])
        for name in ("our_choices", "their_choices", "true_choices")
    )
    partings = [item.parting for item in found if item.parting is not None]
    margins = ", ".join(f"{parting.margin:+.3f}" for parting in partings) or "-"
    return (
        f"{path.stem:12} {len(found) - len(partings)}/{len(found)}  "
        f"{sum(item.repeats_itself for item in found)}/{len(found)}  "
        f"{np.sum(mine == peer):3} {np.sum(mine == true):3} {np.sum(peer == true):3} "
        f"of {len(mine)}  {np.mean([item.our_noise for item in found]):.4f} "
        f"{np.mean([item.their_noise for item in found]):.4f}  {margins}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="+")
    parser.add_argument("--tokens", metavar="N", type=int, default=32)
    options = parser.parse_args()
    if not llama_cpp.is_available():
        parser.error("xllamacpp is not installed: pip install xllamacpp")
    print(
        "file         same self agree           noise          margin of each parting, ours first"
    )
    for path in options.models:
        print(row(path, options.tokens), flush=True)


if __name__ == "__main__":
    main()
