"""The pickle inside a .pth: a table of tensors, read without running anything.

The unpickler knows the few globals that rebuild a tensor and refuses every other one by name. What
it returns describes storages; it holds no weights. It is pickle's implementation in Python: the one
in C takes memory by the index of a memo entry, which a hostile file chooses.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamad.convert.source import corrupt, unsupported
from llamad.errors import LlamadError

MAX_PICKLE_BYTES = 64 << 20  # LLaMA-65B's has 200 KB


@dataclass(frozen=True, slots=True)
class StorageType:
    """A ``torch.*Storage`` class: the name of its numbers and their size."""

    type_name: str
    item_bytes: int


STORAGE_TYPES = {
    "FloatStorage": StorageType("F32", 4),
    "HalfStorage": StorageType("F16", 2),
    "BFloat16Storage": StorageType("BF16", 2),
    "DoubleStorage": StorageType("F64", 8),
    "LongStorage": StorageType("I64", 8),
    "IntStorage": StorageType("I32", 4),
    "ShortStorage": StorageType("I16", 2),
    "CharStorage": StorageType("I8", 1),
    "ByteStorage": StorageType("U8", 1),
    "BoolStorage": StorageType("BOOL", 1),
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers: the member ``data/KEY`` of the archive."""

    key: str
    kind: StorageType
    n_items: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A view of a storage; offset in items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _RebuildTensor:
    """``torch._utils._rebuild_tensor_v2``; an object without attributes, so none can be set."""

    def __call__(
        self, storage: object, offset: object, shape: object, strides: object, *_: object
    ) -> PickledTensor:
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor is made of something that is no storage")
        (start,) = _counts((offset,))
        return PickledTensor(storage, start, _counts(shape), _counts(strides))


@dataclass(frozen=True, slots=True)
class _RebuildParameter:
    """``torch._utils._rebuild_parameter``: the tensor it wraps."""

    def __call__(self, tensor: object, *_: object) -> PickledTensor:
        if not isinstance(tensor, PickledTensor):
            raise pickle.UnpicklingError("a parameter is made of something that is no tensor")
        return tensor


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(
        isinstance(value, int) and value >= 0 for value in values
    ):
        raise pickle.UnpicklingError("a shape, a stride or an offset is no tuple of counts")
    return values


_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): kind for name, kind in STORAGE_TYPES.items()},
    **{("torch.storage", name): kind for name, kind in STORAGE_TYPES.items()},
}


class _Unpickler(pickle._Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise unsupported(
                self._path,
                f"its pickle asks for {module}.{name}, only tensors are read; nothing was run",
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType() as kind, str(key), str(), int(n_items)) if n_items >= 0:
                return Storage(key, kind, n_items)
        raise pickle.UnpicklingError("a persistent id is no storage")


def read_tensors(data: bytes, path: Path) -> dict[str, PickledTensor]:
    """Return the tensors of a state dictionary by name, in file order.

    Raises LlamadError CHECKPOINT_UNSUPPORTED for a global that rebuilds no tensor, by its name;
    CHECKPOINT_CORRUPT for anything that is no dictionary of tensors.
    """
    try:
        value = _Unpickler(data, path).load()
    except LlamadError:
        raise
    except Exception as error:  # a broken pickle may fail in any operation
        raise corrupt(path, f"its pickle is broken: {error}") from None
    if not isinstance(value, dict):
        raise corrupt(path, f"its pickle holds a {type(value).__name__}, not a state dictionary")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, PickledTensor):
            raise unsupported(path, f"entry {name!r} of its state dictionary is no tensor")
    return dict(value)
