"""``llamad perplexity MODEL TEXT``: how well a model predicts a text.

One window when the text fits the context; else windows of the context's size that do not overlap,
each scored over its second to last token. Needs memory for a few rows of logits only, whatever the
length of the text.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llamad.engine.bindings import KV_TYPES, Engine, EngineModel
from llamad.errors import ErrorKind, LlamadError
from llamad.text import load_tokenizer

DEFAULT_CTX_SIZE = 2048  # tokens
ROWS_A_STEP = 32  # rows of logits in memory: 16 MB for a vocabulary of 128,000


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result. nll_per_token: natural log, mean over the scored tokens."""

    nll_per_token: float
    perplexity: float
    tokens: int  # of the text, the beginning-of-sequence token included
    scored_tokens: int  # all but the first of each window


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "perplexity", help="how well a model predicts a text", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="GGUF file")
    parser.add_argument("text", metavar="TEXT", type=Path, help="UTF-8 text file")
    parser.add_argument("--threads", type=int, default=2, help="compute threads (default 2)")
    parser.add_argument(
        "--ctx-size",
        type=int,
        metavar="TOKENS",
        help=f"window (default: the model's context, at most {DEFAULT_CTX_SIZE})",
    )
    parser.add_argument("--kv-type", choices=sorted(KV_TYPES), default="f16")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the perplexity of a text; return 0."""
    text = _read_text(arguments.text)
    tokens = load_tokenizer(arguments.model).encode(text)
    with EngineModel(arguments.model) as model:
        result = measure(
            model,
            tokens,
            n_threads=arguments.threads,
            n_ctx=arguments.ctx_size or min(DEFAULT_CTX_SIZE, model.info.n_ctx_train),
            kv_type=arguments.kv_type,
        )
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"perplexity {result.perplexity:.4f}")
        print(f"nll per token {result.nll_per_token:.6f}")
        print(f"tokens {result.tokens}, scored {result.scored_tokens}")
    return 0


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
    with Engine(
        model,
        n_threads=n_threads,
        n_ctx=n_ctx,
        n_batch=min(ROWS_A_STEP, n_ctx),
        n_logits=min(ROWS_A_STEP, n_ctx),
        kv_type=kv_type,
        cpu=cpu,
    ) as engine:
        for start in range(0, len(tokens), n_ctx):
            for logprob in _window_logprobs(engine, tokens[start : start + n_ctx]):
                total -= logprob
                scored += 1
    if scored == 0:
        raise LlamadError(
            ErrorKind.INVALID,
            "TEXT_TOO_SHORT",
            f"text has {len(tokens)} tokens in windows of {n_ctx}, nothing to score: "
            "at least 2 tokens in a window are needed",
        )
    nll = total / scored
    if not math.isfinite(nll):
        raise LlamadError(
            ErrorKind.CORRUPT, "MODEL_NOT_FINITE", f"the model's log-probabilities sum to {-total}"
        )
    return Perplexity(nll, math.exp(nll), len(tokens), scored)


def _window_logprobs(engine: Engine, window: Sequence[int]) -> Iterator[float]:
    """Yield the natural log-probability of the second to last token of a window."""
    engine.truncate(0, 0)
    n_inputs = len(window) - 1  # the last token predicts nothing that is scored
    for start in range(0, n_inputs, engine.n_batch):
        rows = range(start, min(start + engine.n_batch, n_inputs))
        tokens = list(window[rows.start : rows.stop])
        engine.forward(tokens, [0] * len(rows), list(rows), [1] * len(rows))
        for k, position in enumerate(rows):
            yield engine.log_probability(k, window[position + 1])


def _read_text(path: Path) -> str:
    """Return the file's text; an error names the path and the fault."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        message = f"{path}: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"{path}: byte {error.start} is not UTF-8"
    raise LlamadError(ErrorKind.INVALID, "TEXT_UNREADABLE", message)
