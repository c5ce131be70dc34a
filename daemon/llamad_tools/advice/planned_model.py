"""A model that exists only as a plan, opened by the engine to ask for its sizes.

Its header is the one that quantize or convert would write; behind it lies a hole of the size of the
weights, in memory that is never touched. So what a file would take is not estimated: the engine
says it, as it says it to the service.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from llamad.engine.bindings import EngineModel, TensorInfo
from llamad.errors import LlamadError
from llamad.gguf.layout import GgufLayout
from llamad.gguf.value import RawEntry, ValueType
from llamad_tools.quantize.mixes import FILE_TYPE, GGML_QUANTIZATION_VERSION, QUANTIZATION_VERSION


@contextlib.contextmanager
def planned_model(
    entries: Sequence[RawEntry],
    tensors: Sequence[TensorInfo],
    types: Mapping[str, str],
    file_type: int,
) -> Iterator[EngineModel]:
    """Open the model whose tensors have these types, by name. Raises LlamadError."""
    layout = GgufLayout()
    for entry in entries:
        if entry.key not in (FILE_TYPE, QUANTIZATION_VERSION):
            layout.add_raw(entry)
    layout.add(FILE_TYPE, file_type, ValueType.UINT32)
    layout.add(QUANTIZATION_VERSION, GGML_QUANTIZATION_VERSION, ValueType.UINT32)
    for tensor in tensors:
        layout.add_tensor(tensor.name, types[tensor.name], tensor.shape)
    fd = os.memfd_create("llamad-planned-model")
    path = f"/proc/self/fd/{fd}"
    try:
        header = layout.header()
        with open(fd, "wb", closefd=False) as file:
            file.write(header)
        os.ftruncate(fd, len(header) + layout.data_bytes)
        with EngineModel(path) as model:
            yield model
    except LlamadError as error:
        message = error.message.removeprefix(f"{path}: ").replace(path, "the planned file")
        raise LlamadError(error.kind, error.reason, message) from error
    finally:
        os.close(fd)
