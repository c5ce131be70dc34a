"""The pickle inside a .pth: a table of tensors, read without running anything.

The unpickler knows the few globals that rebuild a tensor and refuses every other one by name, and
the few operations that tensors are written with; it sets no attributes and hashes only strings.
What it returns describes storages; it holds no weights. It is pickle's implementation in Python:
the one in C takes memory by the index of a memo entry, which a hostile file chooses.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llamad.errors import LlamadError
from llamad_tools.checkpoints.source import MAX_QUOTED, corrupt, unsupported

MAX_PICKLE_BYTES = 1 << 20  # LLaMA-65B's has 200 KB; a hostile one makes objects of each byte


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


@dataclass(frozen=True, slots=True)
class _RebuildDictionary:
    """``collections.OrderedDict``: empty, as torch makes them; the entries follow."""

    def __call__(self) -> dict[str, object]:
        return {}


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(
        isinstance(value, int) and value >= 0 for value in values
    ):
        raise pickle.UnpicklingError("a shape, a stride or an offset is no tuple of counts")
    return values


_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _RebuildDictionary(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): kind for name, kind in STORAGE_TYPES.items()},
    **{("torch.storage", name): kind for name, kind in STORAGE_TYPES.items()},
}


# What pickle protocols 0 to 4 write tables of tensors with. Not here: what allocates by a number of
# the file (BYTEARRAY8), makes instances (NEWOBJ, INST, OBJ), hashes (sets) or asks copyreg (EXT).
_OPERATIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP GLOBAL STACK_GLOBAL REDUCE BUILD PERSID BINPERSID "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE "
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING "
    "TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST APPEND APPENDS "
    "DICT EMPTY_DICT SETITEM SETITEMS"
)


class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _OPERATIONS.split())
    }

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise unsupported(
                self._path,
                f"its pickle asks for {_quoted(f'{module}.{name}')}, only tensors are read; "
                "nothing was run",
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType() as kind, str(key), str(), int(n_items)) if n_items >= 0:
                return Storage(key, kind, n_items)
        raise pickle.UnpicklingError("a persistent id is no storage")

    def load_build(self) -> None:
        """Drop attributes, such as a state dictionary's ``_metadata``."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError("attributes are set of what is no state dictionary")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(self.stack[-1], items)

    def _set(self, target: object, items: list[object]) -> None:
        """Set pairs of key and value that lie in a row. The hash of nested tuples takes forever."""
        keys, values = items[::2], items[1::2]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
            raise pickle.UnpicklingError("a dictionary has a key that is no string")
        target.update(zip(keys, values, strict=True))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict


def _quoted(text: str) -> str:
    return ascii(text[:MAX_QUOTED])


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
        fault = f"{type(error).__name__}: {str(error)[:MAX_QUOTED]}"
        raise corrupt(path, f"its pickle is broken: {fault}") from None
    if not isinstance(value, dict):
        raise corrupt(path, f"its pickle holds a {type(value).__name__}, not a state dictionary")
    for name, tensor in value.items():
        if not isinstance(tensor, PickledTensor):
            raise unsupported(path, f"entry {_quoted(name)} of its state dictionary is no tensor")
    return dict(value)
