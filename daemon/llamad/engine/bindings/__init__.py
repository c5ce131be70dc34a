"""The only importer of the C module: handles as classes, statuses as errors.

A thread rule: one handle is used by one thread at a time (the engine thread), except
``Engine.cancel``, ``Engine.progress`` and the residency of a model, which any thread may call.
cffi releases the GIL around every call. Whatever the arguments, nothing here reads or writes memory
that is not its own: a closed handle, a number out of range or a wrong type is a Python exception.
"""

from llamad.engine.bindings.adapter import MAX_RANK, Adapter
from llamad.engine.bindings.constraint import Constraint, Grammar, TokenTrie
from llamad.engine.bindings.engine import (
    KV_TYPES,
    Engine,
    EngineParams,
    adapter_room_bytes,
    engine_bytes,
)
from llamad.engine.bindings.formats import (
    TENSOR_TYPES,
    Buffer,
    block_size,
    dequantize,
    engine_version,
    kernel_set,
    requantize,
    row_bytes,
)
from llamad.engine.bindings.gguf_file import GgufFile, read_metadata, read_value
from llamad.engine.bindings.importance import INPUT_MATRICES, OUTPUT_INPUT, Importance
from llamad.engine.bindings.model import NO_LIMIT, EngineModel, StopFlag
from llamad.engine.bindings.sampler import Sampler
from llamad.engine.bindings.status import EngineError
from llamad.engine.info import (
    AdapterInfo,
    EngineBytes,
    EngineInfo,
    Extent,
    Locked,
    ModelInfo,
    ResidencyInfo,
    Role,
    TensorInfo,
)
from llamad.engine.run import AdapterUse, Run

__all__ = [
    "INPUT_MATRICES",
    "KV_TYPES",
    "MAX_RANK",
    "NO_LIMIT",
    "OUTPUT_INPUT",
    "TENSOR_TYPES",
    "Adapter",
    "AdapterInfo",
    "AdapterUse",
    "Buffer",
    "Constraint",
    "Engine",
    "EngineBytes",
    "EngineError",
    "EngineInfo",
    "EngineModel",
    "EngineParams",
    "Extent",
    "GgufFile",
    "Grammar",
    "Importance",
    "Locked",
    "ModelInfo",
    "ResidencyInfo",
    "Role",
    "Run",
    "Sampler",
    "StopFlag",
    "TensorInfo",
    "TokenTrie",
    "adapter_room_bytes",
    "block_size",
    "dequantize",
    "engine_bytes",
    "engine_version",
    "kernel_set",
    "read_metadata",
    "read_value",
    "requantize",
    "row_bytes",
]
