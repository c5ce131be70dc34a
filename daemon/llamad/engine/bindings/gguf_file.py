"""A GGUF file as the engine reads it: metadata and tensor table."""

from collections.abc import Iterator
from os import PathLike
from typing import Any, cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check, path_argument
from llamad.engine.info import TensorInfo
from llamad.gguf.value import MetadataValue, RawEntry


class GgufFile(Handle):
    """An open GGUF file: its metadata and its tensor table. Errors name the path and the fault."""

    def __init__(self, path: str | PathLike[str]) -> None:
        out = ffi.new("lld_file **")
        check(lib.lld_file_open(path_argument(path), out))
        self._open(out[0], lib.lld_file_close)

    @property
    def version(self) -> int:
        """The GGUF version, 2 or 3."""
        return cast(int, lib.lld_file_version(self._c))

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return cast(int, lib.lld_file_bytes(self._c))

    def metadata(self) -> dict[str, MetadataValue]:
        """Return every metadata entry, in file order; bad UTF-8 is surrogate-escaped."""
        return metadata_of(self._c)

    def raw_metadata(self) -> list[RawEntry]:
        """Return every metadata entry, in file order, undecoded."""
        return list(_entries(self._c))

    def tensors(self) -> list[TensorInfo]:
        """Return the tensor table, in file order."""
        tensor = ffi.new("lld_tensor *")
        result = []
        for i in range(lib.lld_file_n_tensors(self._c)):
            check(lib.lld_file_tensor(self._c, i, tensor))
            type_name = lib.lld_type_name(tensor.type)
            result.append(
                TensorInfo(
                    name=_text(tensor.name, tensor.name_length),
                    type_name=f"type {tensor.type}"
                    if type_name == ffi.NULL
                    else ffi.string(type_name).decode(),
                    shape=tuple(tensor.dims[d] for d in range(tensor.n_dims)),
                    n_bytes=tensor.bytes,
                    file_offset=tensor.file_offset,
                )
            )
        return result


def read_metadata(path: str | PathLike[str]) -> dict[str, MetadataValue]:
    """Return the metadata of a GGUF file, with tensors or without."""
    with GgufFile(path) as file:
        return file.metadata()


def read_value(path: str | PathLike[str], key: str) -> MetadataValue | None:
    """Return one value of a GGUF file's metadata; None where it is not there."""
    with GgufFile(path) as file:
        return next((entry.decode() for entry in _entries(file._c, key)), None)


def _text(pointer: Any, length: int) -> str:
    return bytes(ffi.buffer(pointer, length)).decode("utf-8", "surrogateescape")


def _entries(file: Any, only: str = "") -> Iterator[RawEntry]:
    """Yield the entries of an open lld_file, or the one with the key ``only``."""
    entry = ffi.new("lld_kv *")
    for i in range(lib.lld_file_n_kv(file)):
        check(lib.lld_file_kv(file, i, entry))
        key = _text(entry.key, entry.key_length)
        if only not in ("", key):
            continue
        yield RawEntry(
            key=key,
            type_id=entry.type,
            element_type_id=entry.element_type,
            count=entry.count,
            data=bytes(ffi.buffer(entry.data, entry.data_bytes)) if entry.data_bytes else b"",
        )


def metadata_of(file: Any) -> dict[str, MetadataValue]:
    """Return the metadata of an open lld_file."""
    return {entry.key: entry.decode() for entry in _entries(file)}
