"""``llamad perplexity MODEL TEXT``: how well a model predicts a text.

One window when the text fits the context; else windows of the context's size that do not overlap,
each scored over its second to last token. Needs memory for a few rows of logits only, whatever the
length of the text. With --compare OTHER both models score the text, and the KL divergence says how
far MODEL's distributions are from those of OTHER, the reference (the unquantized model, say).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llamad.engine.bindings import KV_TYPES, EngineModel
from llamad.text import load_tokenizer
from llamad_tools.arguments import MAX_CTX_SIZE, MAX_THREADS, number
from llamad_tools.divergence import Divergence, measure_divergence
from llamad_tools.scoring import mean_of_scored, perplexity_of, scored_rows, scoring_engine
from llamad_tools.text_file import read_text

DEFAULT_CTX_SIZE = 2048  # tokens


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
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OTHER",
        help="a GGUF file with the same vocabulary: how far MODEL is from it, the reference",
    )
    parser.add_argument(
        "--threads",
        type=number(1, MAX_THREADS),
        default=2,
        help="compute threads (default 2)",
    )
    parser.add_argument(
        "--ctx-size",
        type=number(2, MAX_CTX_SIZE),
        metavar="TOKENS",
        help=f"window (default: the models' context, at most {DEFAULT_CTX_SIZE})",
    )
    parser.add_argument("--kv-type", choices=sorted(KV_TYPES), default="f16")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the perplexity of a text; return 0."""
    text = read_text(arguments.text)
    tokens = load_tokenizer(arguments.model).encode(text)
    with EngineModel(arguments.model) as model:
        n_ctx = min(DEFAULT_CTX_SIZE, model.info.n_ctx_train)
        result: Perplexity | Divergence
        if arguments.compare is None:
            result = measure(
                model,
                tokens,
                n_threads=arguments.threads,
                n_ctx=arguments.ctx_size or n_ctx,
                kv_type=arguments.kv_type,
            )
        else:
            with EngineModel(arguments.compare) as reference:
                n_ctx = min(n_ctx, reference.info.n_ctx_train)
                result = measure_divergence(
                    model,
                    reference,
                    tokens,
                    n_threads=arguments.threads,
                    n_ctx=arguments.ctx_size or n_ctx,
                    kv_type=arguments.kv_type,
                )
    print(json.dumps(asdict(result)) if arguments.json else _as_text(result))
    return 0


def _as_text(result: Perplexity | Divergence) -> str:
    if isinstance(result, Perplexity):
        lines = [
            f"perplexity {result.perplexity:.4f}",
            f"nll per token {result.nll_per_token:.6f}",
        ]
    else:
        lines = [
            f"perplexity {result.perplexity:.4f}, reference {result.reference_perplexity:.4f}",
            f"nll per token {result.nll_per_token:.6f},"
            f" reference {result.reference_nll_per_token:.6f},"
            f" difference {result.nll_difference:+.6f}",
            f"KL divergence from the reference: mean {result.mean_kl:.6f},"
            f" maximum {result.max_kl:.6f}",
            f"equal top tokens {100 * result.same_top:.2f} %",
        ]
    lines.append(f"tokens {result.tokens}, scored {result.scored_tokens}")
    return "\n".join(lines)


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
    with scoring_engine(
        model, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type, cpu=cpu
    ) as engine:
        for k, token in scored_rows([engine], tokens):
            total -= engine.log_probability(k, token)
            scored += 1
    nll = mean_of_scored(total, scored)
    return Perplexity(nll, perplexity_of(nll), len(tokens), scored)
