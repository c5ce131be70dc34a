"""``llamad quantize IN OUT TYPE``: write a model with smaller weights.

TYPE is a mix of llama.cpp: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S,
Q4_1, Q4_0, IQ4_NL, IQ4_XS, Q3_K_L, Q3_K_M, Q3_K_S or Q2_K; or auto, what
``llamad fit`` recommends for this machine. Reads and writes rows in pieces: memory for a few
megabytes of weights is enough, whatever the size of the model.
"""

import argparse
import os
from pathlib import Path

from llamad.config import MAX_THREADS
from llamad.errors import ErrorKind, LlamadError
from llamad.help_text import add_command
from llamad.printable import printable
from llamad_tools.advice.choice import AUTO, advised_mix
from llamad_tools.advice.source import read_file_shape
from llamad_tools.commands.arguments import number
from llamad_tools.importance.file import read_imatrix
from llamad_tools.quantize.mixes import MIXES, Mix, find_mix, refusal
from llamad_tools.quantize.rewrite import quantize

ABOUT = f"""
Write a model with smaller weights. A few megabytes of memory are enough, whatever its size.

TYPE is {", ".join(list(MIXES)[:-1])} or {list(MIXES)[-1]}; or auto, what llamad fit recommends for
this machine.
"""
EXAMPLES = (
    "llamad quantize model-f16.gguf model-q4.gguf Q4_K_M",
    "llamad quantize model-f16.gguf model.gguf auto",
    "llamad quantize model-f16.gguf small.gguf Q3_K_M --imatrix imatrix.gguf",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "quantize",
        summary="write a model with smaller weights",
        about=ABOUT,
        examples=EXAMPLES,
    )
    parser.add_argument("input", metavar="IN", type=Path, help="GGUF file")
    parser.add_argument("output", metavar="OUT", type=Path, help="GGUF file to write")
    parser.add_argument("type", metavar="TYPE", type=_mix, help="for example Q4_K_M; or auto")
    parser.add_argument("--imatrix", metavar="FILE", type=Path, help="importance matrix")
    parser.add_argument("--pure", action="store_true", help="one type for all matrices, no mix")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=number(1, MAX_THREADS),
        default=len(os.sched_getaffinity(0)),
        help="compute threads (default: one a core)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Quantize and print a summary; return 0."""
    importance = read_imatrix(arguments.imatrix) if arguments.imatrix else {}
    mix = arguments.type or advised_mix(arguments.input, read_file_shape(arguments.input))
    if mix is None:
        raise LlamadError(
            ErrorKind.STATE,
            "NOTHING_TO_DO",
            f"{arguments.input}: nothing is written: {AUTO} keeps this file as it is; a TYPE"
            " quantizes it all the same",
        )
    result = quantize(
        arguments.input,
        arguments.output,
        mix,
        importance=importance,
        pure=arguments.pure,
        n_threads=arguments.threads,
        further_inputs=[arguments.imatrix] if arguments.imatrix else [],
    )
    print(
        f"{printable(str(arguments.output))}: {result.file_bytes / 1e6:.1f} MB, "
        f"{result.bits_per_weight:.2f} bits per weight, "
        f"{result.bytes_per_second / 1e6:.0f} MB/s of input"
    )
    return 0


def _mix(name: str) -> Mix | None:
    """Return the mix of a name; None for auto."""
    mix = find_mix(name)
    if mix is None and name.lower() != AUTO:
        raise argparse.ArgumentTypeError(refusal(name, AUTO))
    return mix
