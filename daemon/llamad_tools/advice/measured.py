"""Measuring what quantizing a model loses: on a text, with the file it would become.

The quantized file is written beside the model for the time of the measurement. Both read the same
bounded sample of the text, so a Pi needs minutes and not hours; how far the sample may be off is
said with the result.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import EngineModel
from llamad.errors import ErrorKind, LlamadError
from llamad.text import load_tokenizer
from llamad_tools.perplexity.divergence import Divergence, measure_divergence
from llamad_tools.quantize.mixes import Mix
from llamad_tools.quantize.rewrite import quantize

SAMPLE_TOKENS = 2048  # on a Pi 4 a minute for a model of 1 billion weights, and for its original
WINDOW_TOKENS = 512
SPARE_BYTES = 256 << 20  # of the disk, that stay free


@dataclass(frozen=True, slots=True)
class Measured:
    """What a mix lost on a text. Shares of perplexity; ``error``: one standard deviation."""

    mix: str
    loss: float
    error: float
    perplexity: float
    unquantized_perplexity: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"measured: {self.mix} changes perplexity from {self.unquantized_perplexity:.2f} to"
            f" {self.perplexity:.2f}, {100 * self.loss:+.1f} % (+- {100 * self.error:.1f}), on"
            f" {self.tokens} tokens"
        )


def measure_loss(path: Path, mix: Mix, file_bytes: int, text: str, *, n_threads: int) -> Measured:
    """Quantize a model and compare both on a sample of a text.

    file_bytes: of the quantized file. Raises LlamadError: DISK_FULL, TEXT_TOO_SHORT and what
    quantizing raises.
    """
    folder = path.resolve().parent
    free = shutil.disk_usage(folder).free
    if free < file_bytes + SPARE_BYTES:
        raise LlamadError(
            ErrorKind.EXHAUSTED,
            "DISK_FULL",
            f"{folder}: the quantized file has {file_bytes} bytes and {SPARE_BYTES} stay free, the"
            f" disk has {free}",
        )
    tokens = load_tokenizer(path).encode(text)[:SAMPLE_TOKENS]
    with tempfile.TemporaryDirectory(prefix=".llamad-measure-", dir=folder) as work:
        target = Path(work) / f"{mix.name}.gguf"
        quantize(path, target, mix, n_threads=n_threads)
        return _compare(target, path, mix, tokens, n_threads)


def _compare(target: Path, path: Path, mix: Mix, tokens: Sequence[int], n_threads: int) -> Measured:
    with EngineModel(target) as model, EngineModel(path) as original:
        n_ctx = min(WINDOW_TOKENS, original.info.n_ctx_train)
        result = measure_divergence(model, original, tokens, n_threads=n_threads, n_ctx=n_ctx)
    return _measured(mix, result)


def _measured(mix: Mix, result: Divergence) -> Measured:
    ratio = result.perplexity / result.reference_perplexity
    return Measured(
        mix=mix.name,
        loss=ratio - 1,
        error=ratio * result.nll_difference_error,
        perplexity=result.perplexity,
        unquantized_perplexity=result.reference_perplexity,
        tokens=result.scored_tokens,
    )
