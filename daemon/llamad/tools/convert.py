"""``llamad convert SRC OUT [--type TYPE]``: a checkpoint into a GGUF file, in one pass.

SRC is a LLaMA folder as Meta distributed it (consolidated.NN.pth, params.json, tokenizer.model), a
Hugging Face folder with safetensors (llama, mistral, qwen2, qwen3), or a file of llama.cpp from
before GGUF. Needs little memory: weights are read, quantized and written piece by piece. After an
interruption the same command goes on where it was.
"""

import argparse
import sys
import time
from pathlib import Path

from llamad.convert import checklist
from llamad.convert.conversion import (
    Planned,
    begin,
    identity,
    open_checkpoint,
    source_files,
    write,
)
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.models.gguf_writer import GgufWriter
from llamad.models.machine import Machine
from llamad.models.quant_mix import MIXES, Mix, find_mix
from llamad.tools.progress import UNIT, Progress


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "convert", help="turn a checkpoint into a GGUF file", description=__doc__
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="folder or file")
    parser.add_argument("out", metavar="OUT", type=Path, help="GGUF file to write")
    parser.add_argument(
        "--type", help=f"{', '.join(MIXES)} (default: the types of the source)", dest="mix"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, choices=range(1, 65), help="default: one for each core"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; return 0 when the file stands under its name."""
    try:
        return _run(arguments)
    except OSError as error:  # of listing and opening; reading and writing have their own messages
        message = f"{error.filename}: {error.strerror}"
        raise LlamadError(ErrorKind.INVALID, "SOURCE_UNREADABLE", message) from error


def _run(arguments: argparse.Namespace) -> int:
    mix = _mix(arguments.mix)
    source: Path = arguments.source
    inputs = source_files(source)
    with GgufWriter(arguments.out, inputs=inputs, identity=identity(inputs, mix)) as writer:
        _verify_download(source if source.is_dir() else source.parent)
        with open_checkpoint(source, keep_types=mix is None) as checkpoint:
            with Progress(writer.left_bytes) as progress:
                planned = begin(checkpoint, writer, mix, progress.advance)
            started = time.monotonic()
            _write(arguments, writer, planned)
        seconds = max(time.monotonic() - started, 1e-9)
        megabytes = sum(tensor.source_bytes for tensor in planned) / UNIT
        print(
            f"{arguments.out}: {writer.n_complete} tensors, {writer.file_bytes / UNIT:.1f} MB; "
            f"{megabytes:.1f} MB read in {seconds:.1f} s, {megabytes / seconds:.0f} MB/s"
        )
    return 0


def _write(arguments: argparse.Namespace, writer: GgufWriter, planned: list[Planned]) -> None:
    """Stream the weights; say so when they are not all, or when the rest can follow later."""
    if writer.n_complete:
        n_tensors = writer.n_complete + len(planned)
        print(
            f"llamad: {arguments.out}: {writer.n_complete} of {n_tensors} tensors are there "
            "from an interrupted conversion",
            file=sys.stderr,
        )
    n_threads = arguments.threads or Machine().cpus()
    try:
        with Progress(sum(tensor.source_bytes for tensor in planned)) as progress:
            write(writer, planned, n_threads, progress.advance)
    except KeyboardInterrupt:
        if writer.can_be_resumed:
            print("llamad: interrupted: the same command goes on from here", file=sys.stderr)
        raise


def _mix(name: str | None) -> Mix | None:
    if name is None:
        return None
    mix = find_mix(name)
    if mix is None:
        raise invalid("type", f"{name!r} is not one of {', '.join(MIXES)}")
    return mix


def _verify_download(folder: Path) -> None:
    """Check a LLaMA folder against its checklist.chk, if it has one."""
    listed = folder / "checklist.chk"
    if listed.is_file():
        total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        with Progress(total) as progress:
            checklist.verify(listed, lambda name, n: progress.advance(n, f"checking {name}"))
