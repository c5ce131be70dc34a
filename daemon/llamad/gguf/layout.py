"""The head of a GGUF file that is to be written: its entries and its tensor table.

Format: GGUF version 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. It writes
nothing; where the bytes go is writer.py's business.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamad.engine.bindings import TENSOR_TYPES, row_bytes
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import RawEntry, Scalar, ValueType, encode_scalar, encode_string

VERSION = 3
DEFAULT_ALIGNMENT = 32  # bytes; another one stands in the entry general.alignment
ALIGNMENT_KEY = "general.alignment"


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """A declared tensor: shape with the row length first, offset from the start of the data."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    n_bytes: int
    offset: int


class GgufLayout:
    """Entries and tensors in order: ``add_*``, then ``header`` and sizes."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}
        self._tensors: dict[str, TensorSlot] = {}
        self._alignment = DEFAULT_ALIGNMENT
        self._data_bytes = 0  # of the declared tensors, padding included
        self._sealed = False

    def add(self, key: str, value: Scalar, value_type: ValueType) -> None:
        """Declare a scalar entry; surrogate escapes become the bytes they stand for again."""
        if key == ALIGNMENT_KEY and isinstance(value, int):
            self._set_alignment(value)
        self._add(key, struct.pack("<I", value_type) + encode_scalar(value, value_type))

    def add_array(self, key: str, values: Iterable[Scalar], element_type: ValueType) -> None:
        """Declare an array of scalars or strings."""
        items = [encode_scalar(value, element_type) for value in values]
        head = struct.pack("<IIQ", ValueType.ARRAY, element_type, len(items))
        self._add(key, head + b"".join(items))

    def add_raw(self, entry: RawEntry) -> None:
        """Declare an entry as another file holds it, byte for byte."""
        if entry.key == ALIGNMENT_KEY:
            self._set_alignment(int.from_bytes(entry.data, "little"))
        self._add(entry.key, entry.encode())

    def add_tensor(self, name: str, type_name: str, shape: Sequence[int]) -> TensorSlot:
        """Declare the next tensor; shape: the row length first."""
        self._require_open()
        if name in self._tensors:
            raise ValueError(f"tensor {name} is declared twice")
        n_rows = 1
        for n in shape[1:]:
            n_rows *= n
        n_bytes = row_bytes(type_name, shape[0]) * n_rows
        if n_bytes == 0:
            raise ValueError(f"tensor {name} of shape {tuple(shape)} cannot be {type_name}")
        slot = TensorSlot(name, type_name, tuple(shape), n_bytes, self._data_bytes)
        self._tensors[name] = slot
        self._data_bytes += n_bytes + self.padding(n_bytes)
        return slot

    @property
    def file_bytes(self) -> int:
        """The size of the finished file, as declared so far."""
        return len(self.header()) + self._data_bytes

    @property
    def n_entries(self) -> int:
        """How many entries are declared."""
        return len(self._entries)

    @property
    def tensors(self) -> tuple[TensorSlot, ...]:
        """The declared tensors."""
        return tuple(self._tensors.values())

    @property
    def data_bytes(self) -> int:
        """The bytes behind the header, padding included."""
        return self._data_bytes

    def padding(self, n_bytes: int) -> int:
        """Return the bytes between so many and the next multiple of the alignment."""
        return -n_bytes % self._alignment

    def seal(self) -> None:
        """Refuse further declarations."""
        self._require_open()
        self._sealed = True

    def header(self) -> bytes:
        """Return everything before the data, padding included."""
        head = [struct.pack("<4sIQQ", b"GGUF", VERSION, len(self._tensors), len(self._entries))]
        head += self._entries.values()
        for slot in self._tensors.values():
            numbers = (len(slot.shape), *slot.shape, TENSOR_TYPES[slot.type_name], slot.offset)
            head.append(encode_string(slot.name) + struct.pack(f"<I{len(slot.shape)}QIQ", *numbers))
        joined = b"".join(head)
        return joined + bytes(self.padding(len(joined)))

    def _require_open(self) -> None:
        if self._sealed:
            raise ValueError("writing has begun: nothing more can be declared")

    def _set_alignment(self, alignment: int) -> None:
        if self._tensors:
            raise ValueError("the alignment is declared before the first tensor")
        if alignment < 8 or alignment % 8:
            raise LlamadError(
                ErrorKind.INVALID,
                "OUTPUT_UNWRITABLE",
                f"alignment of {alignment} bytes is no multiple of 8",
            )
        self._alignment = alignment

    def _add(self, key: str, typed_value: bytes) -> None:
        self._require_open()
        self._entries[key] = encode_string(key) + typed_value
