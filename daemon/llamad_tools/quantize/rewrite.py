"""Rewriting a GGUF file with smaller weights.

Owns what becomes of each tensor and the streaming of its rows: memory for a few megabytes of
weights is enough, whatever the size of the model. Which type a tensor gets is mixes.py's.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import (
    TENSOR_TYPES,
    EngineError,
    GgufFile,
    TensorInfo,
    requantize,
    row_bytes,
)
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.split import require_whole
from llamad.gguf.value import RawEntry, ValueType
from llamad.gguf.writer import GgufWriter
from llamad.printable import printable
from llamad_tools.progress_line import Progress
from llamad_tools.quantize.mixes import (
    FILE_TYPE,
    GGML_QUANTIZATION_VERSION,
    PLAIN_TYPES,
    QUANTIZATION_VERSION,
    Mix,
    MixedModel,
    describe_model,
    is_quantizable,
    tensor_type,
)

PIECE_BYTES = 8 << 20  # of input, and of output, in memory at a time; at least one row

# Tensor name -> (n_cols) float32; of experts (n_experts, n_cols), flat. All 0: even weights.
Importance = Mapping[str, memoryview]


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one tensor."""

    source: TensorInfo
    type_name: str
    importance: memoryview | None

    def importance_of(self, row: int) -> memoryview | None:
        """Return the (n_cols) of the matrix that a row of the tensor lies in."""
        if self.importance is None:
            return None
        n_cols, matrix_rows = self.source.shape[:2]
        first = row // matrix_rows * n_cols
        return self.importance[first : first + n_cols]

    def unused_experts(self) -> int:
        """Return how many experts no token chose when the importance was measured."""
        if self.importance is None or len(self.source.shape) < 3:
            return 0
        rows = range(0, math.prod(self.source.shape[1:]), self.source.shape[1])
        return sum(not any(self.importance_of(row) or ()) for row in rows)


@dataclass(frozen=True, slots=True)
class Result:
    """What was written, and how fast the input was worked through."""

    file_bytes: int
    weights: int
    bytes_per_second: float

    @property
    def bits_per_weight(self) -> float:
        """The mean, over all tensors and the metadata."""
        return 8 * self.file_bytes / self.weights


def quantize(
    source: Path,
    target: Path,
    mix: Mix,
    *,
    importance: Importance | None = None,
    pure: bool = False,
    n_threads: int = 1,
    further_inputs: Sequence[Path] = (),
) -> Result:
    """Write ``source`` to ``target`` as ``mix``; further_inputs: other files not to replace.

    Raises LlamadError, which names the file, the tensor and the fault; then no file is left.
    """
    with GgufFile(source) as file:
        entries, metadata, tensors = file.raw_metadata(), file.metadata(), file.tensors()
        require_whole(source, metadata)
        if not tensors:
            raise _invalid(f"{source} has no tensors: there is nothing to quantize")
        importance = importance or {}
        names = {tensor.name for tensor in tensors}
        model = describe_model(metadata, names, has_importance=bool(importance))
        plans = _plan(tensors, mix, model, importance, pure)
        _warn(source, plans)
        with GgufWriter(target, inputs=[source, *further_inputs]) as writer:
            _declare(writer, entries, mix, plans)
            writer.begin()
            with source.open("rb", buffering=0) as data:
                rate = _write(data.fileno(), source, writer, plans, n_threads)
            writer.finish()
            weights = sum(math.prod(tensor.shape) for tensor in tensors)
            return Result(writer.path.stat().st_size, weights, rate)


# ---- what becomes of each tensor ---------------------------------------------------------------


def _plan(
    tensors: Sequence[TensorInfo],
    mix: Mix,
    model: MixedModel,
    importance: Importance,
    pure: bool,
) -> list[Plan]:
    plans = []
    for tensor in tensors:
        weights = None
        type_name = tensor.type_name
        if is_quantizable(tensor.name, tensor.shape):
            weights = importance.get(tensor.name)
            type_name = tensor_type(mix, tensor.name, tensor.shape, model, pure=pure)
            _check_columns(tensor, weights)
        if tensor.type_name not in TENSOR_TYPES:
            raise _invalid(f"tensor {tensor.name} is of {tensor.type_name}, which is not supported")
        plans.append(Plan(tensor, type_name, weights))
    if importance and all(plan.importance is None for plan in plans):
        raise _invalid("the importance matrix is of another model: it names no matrix of this one")
    return plans


def _check_columns(tensor: TensorInfo, importance: memoryview | None) -> None:
    n_cols, n_matrices = tensor.shape[0], math.prod(tensor.shape[2:])
    if importance is None or len(importance) == n_cols * n_matrices:
        return
    of_experts = "" if n_matrices == 1 else f" in each of {n_matrices} experts"
    raise _invalid(
        f"importance of {tensor.name} has {len(importance)} columns, "
        f"the tensor has {n_cols}{of_experts}"
    )


def _warn(source: Path, plans: Sequence[Plan]) -> None:
    for plan in plans:
        if n := plan.unused_experts():
            print(
                f"llamad: {printable(plan.source.name)}: {n} of {plan.source.shape[2]} experts were"
                " chosen by no token of the importance matrix's text: all their columns weigh the"
                " same",
                file=sys.stderr,
            )
    lossy = {
        plan.source.type_name
        for plan in plans
        if not PLAIN_TYPES & {plan.type_name, plan.source.type_name}
        and plan.type_name != plan.source.type_name
    }
    if lossy:
        print(
            f"llamad: {printable(str(source))} is already quantized ({', '.join(sorted(lossy))}): "
            "quantizing again loses more than quantizing its F16 or F32 original",
            file=sys.stderr,
        )


def _declare(
    writer: GgufWriter, entries: Sequence[RawEntry], mix: Mix, plans: Sequence[Plan]
) -> None:
    for entry in entries:
        if entry.key not in (FILE_TYPE, QUANTIZATION_VERSION):
            writer.add_raw(entry)
    writer.add(FILE_TYPE, mix.file_type, ValueType.UINT32)
    writer.add(QUANTIZATION_VERSION, GGML_QUANTIZATION_VERSION, ValueType.UINT32)
    for plan in plans:
        writer.add_tensor(plan.source.name, plan.type_name, plan.source.shape)


# ---- data --------------------------------------------------------------------------------------


def _write(
    fd: int, source: Path, writer: GgufWriter, plans: Sequence[Plan], n_threads: int
) -> float:
    """Write every tensor's data; return the bytes of input a second."""
    with Progress(sum(plan.source.n_bytes for plan in plans)) as progress:
        for plan in plans:
            same = plan.type_name == plan.source.type_name
            copied = same and plan.type_name not in PLAIN_TYPES  # floats are checked on the way
            for first_row, rows in _read(fd, source, plan):
                out = rows if copied else _convert(source, plan, first_row, rows, n_threads)
                writer.write(out)
                progress.advance(rows.nbytes, plan.source.name)
        return progress.bytes_per_second


def _read(fd: int, source: Path, plan: Plan) -> Iterator[tuple[int, memoryview]]:
    """Yield a tensor's rows in pieces, each with its first row; a piece is gone with the next.

    With importance, which each expert has of its own, no piece has rows of two.
    """
    tensor = plan.source
    n_rows = math.prod(tensor.shape[1:])
    matrix_rows = n_rows if plan.importance is None else tensor.shape[1]
    n_bytes = row_bytes(tensor.type_name, tensor.shape[0])
    largest = max(n_bytes, row_bytes(plan.type_name, tensor.shape[0]))
    step = min(max(1, PIECE_BYTES // largest), matrix_rows)
    buffer = memoryview(bytearray(step * n_bytes))
    first_row = 0
    while first_row < n_rows:
        n = min(step, matrix_rows - first_row % matrix_rows)
        piece = buffer[: n * n_bytes]
        _read_exactly(fd, source, piece, tensor.file_offset + first_row * n_bytes)
        yield first_row, piece
        first_row += n


def _read_exactly(fd: int, source: Path, piece: memoryview, offset: int) -> None:
    done = 0
    while done < piece.nbytes:
        try:
            n = os.preadv(fd, [piece[done:]], offset + done)
        except OSError as error:
            raise _invalid(f"{source}: {error.strerror}", "MODEL_UNREADABLE") from error
        if n == 0:
            raise _invalid(f"{source} ended early: it was cut while it was read", "MODEL_FILE_LOST")
        done += n


def _convert(
    source: Path, plan: Plan, first_row: int, rows: memoryview, n_threads: int
) -> memoryview:
    tensor = plan.source
    n_cols = tensor.shape[0]
    n_rows = rows.nbytes // row_bytes(tensor.type_name, n_cols)
    out = bytearray(n_rows * row_bytes(plan.type_name, n_cols))
    try:
        requantize(
            tensor.type_name,
            rows,
            plan.type_name,
            out,
            n_cols,
            importance=plan.importance_of(first_row),
            n_threads=n_threads,
        )
    except EngineError as error:
        place = f"{source}: tensor {tensor.name}, from row {first_row}"
        raise LlamadError(error.kind, error.reason, f"{place}: {error.message}") from error
    return memoryview(out)


def _invalid(message: str, reason: str = "INVALID_ARGUMENT") -> LlamadError:
    return LlamadError(ErrorKind.INVALID, reason, message)
