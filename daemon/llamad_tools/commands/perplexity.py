"""``llamad perplexity MODEL TEXT``: how well a model predicts a text.

One window when the text fits the context; else windows of the context's size that do not overlap,
each scored over its second to last token. Needs memory for a few rows of logits only, whatever the
length of the text. With --compare OTHER both models score the text, and the KL divergence says how
far MODEL's distributions are from those of OTHER, the reference (the unquantized model, say).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from llamad.config import MAX_CTX_SIZE, MAX_THREADS
from llamad.engine.bindings import KV_TYPES, EngineModel
from llamad.help_text import add_command
from llamad.text import load_tokenizer
from llamad_tools.commands.arguments import number
from llamad_tools.commands.text_file import read_text
from llamad_tools.perplexity.divergence import Divergence, measure_divergence
from llamad_tools.perplexity.measure import Perplexity, measure

DEFAULT_CTX_SIZE = 2048  # tokens

ABOUT = """
Measure how well a model predicts a text: the lower, the better. It is how a model is compared with
a smaller version of itself.

The text is read in one window when it fits the context, else in windows that do not overlap. With
--compare a second model, for example the unquantized one, reads the same text, and the KL
divergence says how far MODEL's predictions are from it.
"""
EXAMPLES = (
    "llamad perplexity model.gguf text.txt",
    "llamad perplexity small.gguf text.txt --compare big.gguf",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "perplexity",
        summary="how well a model predicts a text",
        about=ABOUT,
        examples=EXAMPLES,
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
    parser.add_argument(
        "--kv-type", choices=sorted(KV_TYPES), default="f16", help="of the KV cache (f16)"
    )
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
