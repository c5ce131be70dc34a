"""Stream a checkpoint into a GGUF file of one type or mix, a few megabytes at a time.

Owns which reader opens a source and how rows travel from it to the writer. The file appears under
its name only when all of it is written; an interrupted conversion goes on where it was.
"""

import hashlib
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamad import __version__
from llamad.engine.bindings import EngineError, TensorInfo, block_size, requantize, row_bytes
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.gguf.value import RawEntry, Scalar, ValueType, raw_array, raw_scalar
from llamad.gguf.writer import GgufWriter
from llamad.text import tokenizer_from_metadata
from llamad.text.vocabulary import PREFIX
from llamad_tools.checkpoints.huggingface_folder import open_huggingface_folder
from llamad_tools.checkpoints.legacy_file import is_legacy, open_legacy_file
from llamad_tools.checkpoints.llama_folder import open_llama_folder, tokenizer_places
from llamad_tools.checkpoints.lora_folder import is_lora_folder, open_lora_folder
from llamad_tools.checkpoints.source import (
    MAX_QUOTED,
    Checkpoint,
    SourceTensor,
    corrupt,
    unsupported,
)
from llamad_tools.quantize.mixes import (
    FILE_TYPE,
    MIXES,
    PLAIN_TYPES,
    Mix,
    describe_model,
    is_quantizable,
    tensor_type,
)

WEIGHT_SUFFIXES = (".pth", ".safetensors")  # of files that stand for their folder
PIECE_WEIGHTS = 1 << 21  # of one reading: 4 MB of f16
_GGUF_MAGIC = b"GGUF"
_BLOCKS, _BLOCKS_FILE_TYPE = "MXFP4", 38  # llama.cpp: MOSTLY_MXFP4_MOE
_SUFFIXES = (*WEIGHT_SUFFIXES, ".bin", ".json", ".model", ".chk", ".jinja")  # of files of a folder

Report = Callable[[int, str], None]
"""Gets bytes as they are done, and the name of what they belong to."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is to be written, and its type in the file."""

    source: SourceTensor
    type_name: str

    @property
    def source_bytes(self) -> int:
        """Bytes of its weights, as the source holds them."""
        return row_bytes(self.source.type_name, self.source.n_cols) * self.source.n_rows


@contextmanager
def naming_unreadable() -> Iterator[None]:
    """Name what cannot be listed or opened; reading and writing have their own messages."""
    try:
        yield
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        raise LlamadError(ErrorKind.INVALID, "SOURCE_UNREADABLE", message) from error


def is_checkpoint(source: Path) -> bool:
    """Whether ``open_checkpoint`` takes a folder or file, broken or not. Raises OSError."""
    if source.is_file():
        return source.suffix in WEIGHT_SUFFIXES or is_legacy(source)
    return source.is_dir()


def open_checkpoint(source: Path, *, keep_types: bool, base: Path | None = None) -> Checkpoint:
    """Open a folder or file of any kind that can be converted.

    keep_types: the tensors shall keep their types. base: the model that an adapter was made for.
    Raises LlamadError that names the fault.
    """
    if base is not None:
        return open_lora_folder(source if source.is_dir() else source.parent, base)
    if source.is_dir():
        return _open_folder(source)
    if not source.is_file():
        raise corrupt(source, "no such file or folder")
    if source.suffix in WEIGHT_SUFFIXES:
        return _open_folder(source.parent)
    if is_legacy(source):
        return open_legacy_file(source, keep_types=keep_types)
    with source.open("rb") as file:
        if file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC:
            raise unsupported(source, "is a GGUF file already: llamad quantize changes its type")
    raise unsupported(source, "is no checkpoint that can be converted")


def _open_folder(folder: Path) -> Checkpoint:
    if any(folder.glob("consolidated.*.pth")):
        return open_llama_folder(folder)
    if (folder / "config.json").is_file():  # Mistral's folders have a params.json as well
        return open_huggingface_folder(folder)
    if (folder / "params.json").is_file():
        return open_llama_folder(folder)
    if is_lora_folder(folder):
        raise invalid(
            "base", f"{folder} is an adapter: name the model that it was made for, --base"
        )
    raise unsupported(folder, "has neither params.json (LLaMA) nor config.json (Hugging Face)")


def source_files(source: Path) -> list[Path]:
    """Return the files that a conversion of ``source`` may read."""
    folder = source if source.is_dir() else source.parent
    if source.is_file() and source.suffix not in WEIGHT_SUFFIXES:
        parts = re.compile(re.escape(source.name) + r"(\.\d+)?")
        return sorted(path for path in folder.iterdir() if parts.fullmatch(path.name))
    inside = [path for path in folder.glob("*") if path.suffix in _SUFFIXES]
    return sorted({*inside, *(path for path in tokenizer_places(folder) if path.exists())})


def identity(inputs: Sequence[Path], type_name: str) -> str:
    """Return what an interrupted conversion is resumed by: the same files into the same type."""
    parts = [__version__, type_name]
    for path in inputs:
        status = path.stat()
        parts.append(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def raw_entries(checkpoint: Checkpoint) -> list[RawEntry]:
    """Return the metadata as it stands in a file of any type; the type itself is not among it.

    Raises LlamadError for a value that GGUF cannot hold.
    """
    return [_raw_entry(key, value) for key, value in checkpoint.metadata.items()]


def tensor_table(checkpoint: Checkpoint) -> list[TensorInfo]:
    """Return the tensors of a file that keeps the matrices' types; where they lie is open."""
    types = dict(_types(checkpoint, None))
    return [
        TensorInfo(
            name=tensor.name,
            type_name=types[tensor.name],
            shape=tensor.shape[::-1],
            n_bytes=row_bytes(types[tensor.name], tensor.n_cols) * tensor.n_rows,
            file_offset=0,
        )
        for tensor in checkpoint.tensors
    ]


def begin(
    checkpoint: Checkpoint, writer: GgufWriter, mix: Mix | None, report: Report
) -> list[Planned]:
    """Write the header; return what is left to write, all of it but after an interruption.

    mix: None keeps the matrices' types. report: follows the check of what an interruption left.
    Raises LlamadError for a tokenizer that llamad cannot use, or a disk that has too little room.
    """
    if not _is_adapter(checkpoint):
        tokenizer_from_metadata(checkpoint.metadata)
        _check_tokens(checkpoint.metadata[PREFIX + "tokens"])
    types = dict(_types(checkpoint, mix))
    for entry in raw_entries(checkpoint):
        writer.add_raw(entry)
    writer.add(FILE_TYPE, _file_type(checkpoint, types, mix), ValueType.UINT32)
    for tensor in checkpoint.tensors:
        writer.add_tensor(tensor.name, types[tensor.name], tensor.shape[::-1])
    writer.begin(lambda n_bytes: report(n_bytes, f"checking {writer.temporary_path.name}"))
    left = checkpoint.tensors[writer.n_complete :]
    return [Planned(tensor, types[tensor.name]) for tensor in left]


def write(writer: GgufWriter, planned: Sequence[Planned], n_threads: int, report: Report) -> None:
    """Stream the weights and finish the file.

    Raises LlamadError for weights that cannot be read or are no numbers, and for a full disk; the
    writer then removes what was written.
    """
    for tensor in planned:
        _write_tensor(writer, tensor.source, tensor.type_name, n_threads, report)
    writer.finish()


def _is_adapter(checkpoint: Checkpoint) -> bool:
    return checkpoint.metadata.get("general.type") == "adapter"


def _check_tokens(tokens: Sequence[str]) -> None:
    """Refuse two tokens of one text, with which llama.cpp ends at an assertion."""
    ids: dict[str, int] = {}
    for token, text in enumerate(tokens):
        if ids.setdefault(text, token) != token:
            raise LlamadError(
                ErrorKind.CORRUPT,
                "CHECKPOINT_CORRUPT",
                f"tokens {ids[text]} and {token} of the vocabulary are both {text[:MAX_QUOTED]!a}",
            )


def _types(checkpoint: Checkpoint, mix: Mix | None) -> Iterator[tuple[str, str]]:
    """Yield name and type of every tensor of the file; vectors are F32, as llama.cpp wants them.

    What is in blocks already stays as it is: another type would lose, and save little.
    """
    if _is_adapter(checkpoint):
        for tensor in checkpoint.tensors:
            fits = mix is not None and tensor.n_cols % block_size(mix.base) == 0
            type_name = tensor.type_name if mix is None else mix.base if fits else "F16"
            yield tensor.name, type_name
        return
    names = {tensor.name for tensor in checkpoint.tensors}
    model = describe_model(checkpoint.metadata, names, has_importance=False)
    for tensor in checkpoint.tensors:
        shape = tensor.shape[::-1]
        if not is_quantizable(tensor.name, shape):
            yield tensor.name, "F32"
        elif mix is None or tensor.type_name == _BLOCKS:
            yield tensor.name, tensor.type_name
        else:
            yield tensor.name, tensor_type(mix, tensor.name, shape, model)


def _file_type(checkpoint: Checkpoint, types: dict[str, str], mix: Mix | None) -> int:
    """Return llama.cpp's number of the mix; without one, of the type most weights have."""
    if _BLOCKS in types.values():
        return _BLOCKS_FILE_TYPE
    if mix is not None:
        return mix.file_type
    weights: Counter[str] = Counter()
    for tensor in checkpoint.tensors:
        weights[types[tensor.name]] += math.prod(tensor.shape)
    base = weights.most_common(1)[0][0]
    return next(known.file_type for known in MIXES.values() if known.base == base)


def _raw_entry(key: str, value: Scalar | list[Scalar]) -> RawEntry:
    try:
        if isinstance(value, list):
            kind = _value_type(value[0])
            if kind is ValueType.UINT32:  # as converters write lists of types and counts
                kind = ValueType.INT32
            return raw_array(key, value, kind)
        return raw_scalar(key, value, _value_type(value))
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise LlamadError(
            ErrorKind.CORRUPT, "CHECKPOINT_CORRUPT", f"{key} cannot be written: {error}"
        ) from None


def _value_type(value: Scalar) -> ValueType:
    match value:
        case bool():
            return ValueType.BOOL
        case int():
            return ValueType.UINT32
        case float():
            return ValueType.FLOAT32
        case _:
            return ValueType.STRING


def _write_tensor(
    writer: GgufWriter, tensor: SourceTensor, type_name: str, n_threads: int, report: Report
) -> None:
    rows_a_piece = max(PIECE_WEIGHTS // tensor.n_cols, 1)
    target_bytes = row_bytes(type_name, tensor.n_cols)
    for start in range(0, tensor.n_rows, rows_a_piece):
        stop = min(start + rows_a_piece, tensor.n_rows)
        rows = np.ascontiguousarray(tensor.read_rows(start, stop)).data.cast("B")
        if tensor.type_name == type_name and type_name not in PLAIN_TYPES:
            writer.write(rows)
        else:
            target = bytearray((stop - start) * target_bytes)
            try:  # floats of the same type stay as they are, unless they are no numbers
                requantize(
                    tensor.type_name, rows, type_name, target, tensor.n_cols, n_threads=n_threads
                )
            except EngineError as error:
                place = f"{tensor.name}, from row {start}"
                raise LlamadError(error.kind, error.reason, f"{place}: {error.message}") from error
            writer.write(target)
        report(rows.nbytes, tensor.name)
