"""``llamad imatrix MODEL TEXT OUT``: measure which columns of a model's matrices matter.

Runs a text through the model and writes, for each matrix, the sums of the squares of its inputs:
the importance matrix that ``llamad quantize --imatrix`` reads, and llama.cpp. A few hundred
thousand characters of the kind the model is meant for are enough; for MODEL take the best weights
that this machine can run.
"""

import argparse
import os
from pathlib import Path

from llamad.config import MAX_CTX_SIZE, MAX_THREADS
from llamad.engine.bindings import EngineModel, GgufFile
from llamad.help_text import add_command
from llamad.printable import printable
from llamad.text import load_tokenizer
from llamad_tools.commands.arguments import number
from llamad_tools.commands.text_file import read_text
from llamad_tools.importance.file import write_imatrix
from llamad_tools.importance.measure import measure, split

DEFAULT_CTX_SIZE = 512  # tokens
MIN_CTX_SIZE = 2

ABOUT = """
Measure which columns of a model's matrices matter, on a text: quantize --imatrix keeps those
closer, at the same size. llama.cpp reads the file, too.

A few hundred thousand characters of the kind the model is meant for are enough. For MODEL take the
best weights that this machine can run.
"""
EXAMPLES = (
    "llamad imatrix model-f16.gguf text.txt imatrix.gguf",
    "llamad quantize model-f16.gguf small.gguf Q3_K_M --imatrix imatrix.gguf",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "imatrix",
        summary="measure an importance matrix over a text",
        about=ABOUT,
        examples=EXAMPLES,
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
            model, windows, names=_tensor_names(arguments.model), n_threads=arguments.threads
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
        f"{printable(str(arguments.output))}: {len(result.matrices)} matrices over "
        f"{result.n_tokens} tokens in {result.n_windows} windows"
    )
    return 0


def _tensor_names(path: Path) -> frozenset[str]:
    with GgufFile(path) as file:
        return frozenset(tensor.name for tensor in file.tensors())
