"""A model that exists only as a plan, opened by the engine to ask for its sizes.

Its header is the one that quantize or convert would write; behind it lies a hole of the size of the
weights, in memory that is never touched, but for factors of RoPE. So what a file would take is not
estimated: the engine says it, as it says it to the service.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence

from llamad.engine.bindings import EngineModel, TensorInfo
from llamad.errors import LlamadError
from llamad.gguf.layout import GgufLayout
from llamad.gguf.value import RawEntry, ValueType
from llamad_tools.quantize.mixes import FILE_TYPE, GGML_QUANTIZATION_VERSION, QUANTIZATION_VERSION

_ROPE_FACTORS = ("rope_freqs.", "rope_factors_")  # the engine refuses zeros in them
_ONES = {"F32": struct.pack("<f", 1.0), "F16": struct.pack("<e", 1.0), "BF16": b"\x80\x3f"}


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
    slots = [layout.add_tensor(t.name, types[t.name], t.shape) for t in tensors]
    fd = os.memfd_create("llamad-planned-model")
    path = f"/proc/self/fd/{fd}"
    try:
        header = layout.header()
        with open(fd, "wb", closefd=False) as file:
            file.write(header)
        os.ftruncate(fd, len(header) + layout.data_bytes)
        for slot in slots:
            if slot.name.startswith(_ROPE_FACTORS):
                one = _ONES[slot.type_name]
                os.pwrite(fd, one * (slot.n_bytes // len(one)), len(header) + slot.offset)
        with EngineModel(path) as model:
            yield model
    except LlamadError as error:
        message = error.message.removeprefix(f"{path}: ").replace(path, "the planned file")
        raise LlamadError(error.kind, error.reason, message) from error
    finally:
        os.close(fd)
