"""``llamad convert SRC OUT [--type TYPE] [--base MODEL]``: a checkpoint into a GGUF file.

SRC is a LLaMA folder as Meta distributed it (consolidated.NN.pth, params.json, tokenizer.model), a
Hugging Face folder with safetensors (its families: ``checkpoints/huggingface_families.py``), or a
file of llama.cpp from before GGUF; with --base a PEFT folder, an adapter of that model. TYPE is a
mix as for ``llamad quantize``; or auto, what ``llamad fit`` recommends for this machine. Needs
little memory: weights are read, quantized and written piece by piece. After an interruption the
same command goes on where it was, with the type that it had chosen.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from llamad.config import MAX_THREADS
from llamad.errors import invalid
from llamad.gguf.writer import GgufWriter, is_begun
from llamad.help_text import add_command
from llamad.memory.machine import Machine
from llamad.printable import printable
from llamad_tools.advice.choice import AS_IT_IS, AUTO, advised_mix
from llamad_tools.advice.source import read_checkpoint_shape
from llamad_tools.checkpoints import checklist
from llamad_tools.checkpoints.conversion import (
    Planned,
    begin,
    identity,
    naming_unreadable,
    open_checkpoint,
    source_files,
    write,
)
from llamad_tools.checkpoints.lora_base import base_files
from llamad_tools.checkpoints.lora_folder import LORA_TYPES
from llamad_tools.commands.arguments import number
from llamad_tools.progress_line import UNIT, Progress
from llamad_tools.quantize.mixes import MIXES, Mix, find_mix, refusal

ABOUT = """
Write a checkpoint as a GGUF file, in one pass and with little memory.

SRC is a LLaMA folder as Meta distributed it (consolidated.NN.pth, params.json, tokenizer.model), a
Hugging Face folder with safetensors or pytorch_model.bin, or a file of llama.cpp from before GGUF.
With --base, a PEFT folder: an adapter (LoRA) of that model, in F32, F16, BF16 or Q8_0.

After an interruption the same command goes on where it was, with the type that it had chosen.
"""
EXAMPLES = (
    "llamad convert ~/Qwen2.5-0.5B-Instruct model.gguf --type Q8_0",
    "llamad convert ~/llama-7b llama-7b.gguf --type auto",
    "llamad convert ~/kitchen-lora kitchen.gguf --base ~/Qwen2.5-0.5B-Instruct",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "convert",
        summary="turn a checkpoint into a GGUF file",
        about=ABOUT,
        examples=EXAMPLES,
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="folder or file")
    parser.add_argument("out", metavar="OUT", type=Path, help="GGUF file to write")
    parser.add_argument(
        "--type",
        help=f"{', '.join(MIXES)} or {AUTO} (default: the types of the source)",
        dest="mix",
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        type=Path,
        help="SRC is an adapter (PEFT) of this folder (config.json is enough) or GGUF file",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=number(1, MAX_THREADS),
        help="default: one for each core",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; return 0 when the file stands under its name."""
    with naming_unreadable():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    source: Path = arguments.source
    inputs = source_files(source)
    if arguments.base is not None:
        inputs += base_files(arguments.base)
    mix, job = _choose(arguments, inputs)
    with GgufWriter(arguments.out, inputs=inputs, identity=job) as writer:
        _verify_download(source if source.is_dir() else source.parent)
        with open_checkpoint(source, keep_types=mix is None, base=arguments.base) as checkpoint:
            with Progress(writer.left_bytes) as progress:
                planned = begin(checkpoint, writer, mix, progress.advance)
            started = time.monotonic()
            _write(arguments, writer, planned)
        seconds = max(time.monotonic() - started, 1e-9)
        megabytes = sum(tensor.source_bytes for tensor in planned) / UNIT
        print(
            f"{printable(str(arguments.out))}: {writer.n_complete} tensors, "
            f"{writer.file_bytes / UNIT:.1f} MB; "
            f"{megabytes:.1f} MB read in {seconds:.1f} s, {megabytes / seconds:.0f} MB/s"
        )
    return 0


def _write(arguments: argparse.Namespace, writer: GgufWriter, planned: list[Planned]) -> None:
    """Stream the weights; say so when they are not all, or when the rest can follow later."""
    if writer.n_complete:
        n_tensors = writer.n_complete + len(planned)
        print(
            f"llamad: {printable(str(arguments.out))}: {writer.n_complete} of {n_tensors} tensors "
            "are there from an interrupted conversion",
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


def _choose(arguments: argparse.Namespace, inputs: Sequence[Path]) -> tuple[Mix | None, str]:
    """Return the mix to write, None for the types of the source, and the identity of the job.

    Auto goes on with what an interrupted auto has chosen, though the memory may be another now.
    """
    name = arguments.mix
    if name is None:
        return None, identity(inputs, "")
    if arguments.base is not None and name.upper() not in LORA_TYPES:
        raise invalid("type", f"{name} is no type of an adapter, which has {', '.join(LORA_TYPES)}")
    if name.lower() != AUTO:
        mix = find_mix(name)
        if mix is None:
            raise invalid("type", refusal(name, AUTO))
        return mix, identity(inputs, mix.name)
    jobs = {known: identity(inputs, f"{AUTO} {known}") for known in (*MIXES, AS_IT_IS)}
    for known, job in jobs.items():
        if is_begun(arguments.out, job):
            print(f"llamad: {AUTO}: {known}: chosen before the interruption", file=sys.stderr)
            return MIXES.get(known), job
    mix = advised_mix(arguments.source, read_checkpoint_shape(arguments.source))
    return mix, jobs[AS_IT_IS if mix is None else mix.name]


def _verify_download(folder: Path) -> None:
    """Check a LLaMA folder against its checklist.chk, if it has one."""
    listed = folder / "checklist.chk"
    if listed.is_file():
        total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        with Progress(total) as progress:
            checklist.verify(listed, lambda name, n: progress.advance(n, f"checking {name}"))
