"""``llamad imatrix MODEL TEXT OUT``: measure which columns of a model's matrices matter.

Runs a text through the model and writes, for each matrix, the sums of the squares of its inputs:
the importance matrix that ``llamad quantize --imatrix`` reads, and llama.cpp. A few hundred
thousand characters of the kind the model is meant for are enough; for MODEL take the best weights
that this machine can run.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import (
    INPUT_MATRICES,
    OUTPUT_INPUT,
    Engine,
    EngineModel,
    GgufFile,
    Importance,
)
from llamad.errors import ErrorKind, LlamadError
from llamad.text import load_tokenizer
from llamad.text.tokenizer import Tokenizer
from llamad_tools.arguments import MAX_CTX_SIZE, MAX_THREADS, number
from llamad_tools.importance_file import InputSums, write_imatrix
from llamad_tools.progress import Progress
from llamad_tools.text_file import read_text

DEFAULT_CTX_SIZE = 512  # tokens
ROWS_A_STEP = 512
OUTPUT_SAMPLE = 16  # one row in so many is multiplied with the output matrix, the largest of all
MIN_CTX_SIZE = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """The sums of each matrix, and the windows of the text that they are of."""

    matrices: tuple[InputSums, ...]
    n_windows: int
    n_tokens: int


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "imatrix", help="measure an importance matrix over a text", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="GGUF file")
    parser.add_argument("text", metavar="TEXT", type=Path, help="UTF-8 text file")
    parser.add_argument("output", metavar="OUT", type=Path, help="GGUF file to write")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=number(1, MAX_THREADS),
        default=len(os.sched_getaffinity(0)),
        help="compute threads (default: one a core)",
    )
    parser.add_argument(
        "--ctx-size",
        metavar="N",
        type=number(MIN_CTX_SIZE, MAX_CTX_SIZE),
        help=f"tokens of a window (default: the model's context, at most {DEFAULT_CTX_SIZE})",
    )
    parser.add_argument(
        "--chunks",
        metavar="N",
        type=number(1, 1 << 31),
        help="windows to run (default: all of the text)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write the file and print a summary; return 0."""
    tokenizer = load_tokenizer(arguments.model)
    text = read_text(arguments.text)
    with EngineModel(arguments.model) as model:
        n_ctx = arguments.ctx_size or min(DEFAULT_CTX_SIZE, model.info.n_ctx_train)
        windows = split(tokenizer, text, n_ctx)[: arguments.chunks]
        result = measure(
            model, windows, output=_output_name(arguments.model), n_threads=arguments.threads
        )
    write_imatrix(
        arguments.output,
        result.matrices,
        dataset=arguments.text.name,
        n_chunks=result.n_windows,
        chunk_size=n_ctx,
        inputs=[arguments.model, arguments.text],
    )
    print(
        f"{arguments.output}: {len(result.matrices)} matrices over {result.n_tokens} tokens "
        f"in {result.n_windows} windows"
    )
    return 0


def split(tokenizer: Tokenizer, text: str, n_ctx: int) -> list[list[int]]:
    """Return the text in windows of at most n_ctx tokens, each begun as the model wants it.

    Raises LlamadError for a context that has room for the beginning only.
    """
    begin = []
    if tokenizer.vocabulary.add_bos and tokenizer.bos_id is not None:
        begin = [tokenizer.bos_id]
    tokens = tokenizer.encode(text, add_bos=False)
    step = n_ctx - len(begin)
    if step < 1:
        raise LlamadError(
            ErrorKind.STATE,
            "CONTEXT_TOO_SHORT",
            f"the model's context of {n_ctx} tokens holds no text after its beginning",
        )
    return [begin + tokens[i : i + step] for i in range(0, len(tokens), step)]


def measure(
    model: EngineModel, windows: Sequence[Sequence[int]], *, output: str, n_threads: int
) -> Measurement:
    """Run every window through the model.

    output: the name of the output matrix, of whose inputs only a sample is made. Raises LlamadError
    when there is no window.
    """
    if not windows:
        raise LlamadError(ErrorKind.INVALID, "TEXT_TOO_SHORT", "the text has no tokens")
    n_ctx, n_tokens = max(map(len, windows)), sum(map(len, windows))
    n_batch = min(ROWS_A_STEP, n_ctx)
    with (
        Importance(model, n_threads) as importance,
        Engine(
            model,
            n_threads=n_threads,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_logits=-(-n_batch // OUTPUT_SAMPLE),
        ) as engine,
        Progress(n_tokens, unit=("tokens", 1)) as progress,
    ):
        engine.collect(importance)
        for number, window in enumerate(windows, 1):
            engine.truncate(0, 0)
            for positions in _steps(len(window), n_batch):
                tokens = window[positions.start : positions.stop]
                wants = [i % OUTPUT_SAMPLE == OUTPUT_SAMPLE - 1 for i in range(len(tokens))]
                engine.forward(tokens, [0] * len(tokens), positions, wants)
                progress.advance(len(tokens), f"window {number} of {len(windows)}")
        matrices = tuple(_read(importance, model.info.n_layers, output))
    return Measurement(matrices, len(windows), n_tokens)


def _steps(n: int, step: int) -> Iterator[range]:
    return (range(start, min(start + step, n)) for start in range(0, n, step))


def _read(importance: Importance, n_layers: int, output: str) -> Iterator[InputSums]:
    for layer in range(n_layers):
        for input_id, names in INPUT_MATRICES.items():
            sums, n_rows = importance.read(layer, input_id)
            for name in names:
                yield InputSums(f"blk.{layer}.{name}.weight", sums, n_rows)
    sums, n_rows = importance.read(0, OUTPUT_INPUT)
    if n_rows:  # a short text may have none in its sample
        yield InputSums(output, sums, n_rows)


def _output_name(path: Path) -> str:
    """Return the name of the output matrix: the embedding's where that is used for both."""
    with GgufFile(path) as file:
        names = {tensor.name for tensor in file.tensors()}
    return "output.weight" if "output.weight" in names else "token_embd.weight"
