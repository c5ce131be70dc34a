"""A mapped model, and what is done to keep its weights in memory."""

from os import PathLike
from typing import Any, cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.gguf_file import metadata_of
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check, last_message, path_argument
from llamad.engine.info import Locked, ModelInfo
from llamad.gguf.value import MetadataValue


class StopFlag:
    """A flag that ends ``EngineModel.populate`` and ``lock`` early; any thread may set it."""

    def __init__(self) -> None:
        self._flag = ffi.new("int32_t *", 0)

    def set(self) -> None:
        """Raise the flag."""
        self._flag[0] = 1


def _stop_pointer(stop: StopFlag | None) -> Any:
    return ffi.NULL if stop is None else stop._flag


class EngineModel(Handle):
    """A mapped model: immutable hyperparameters and weights."""

    def __init__(self, path: str | PathLike[str]) -> None:
        out = ffi.new("lld_model **")
        check(lib.lld_model_open(path_argument(path), out))
        self._open(out[0], lib.lld_model_close)
        info = ffi.new("lld_model_info *")
        lib.lld_model_get_info(self._c, info)
        numbers = {
            name: getattr(info, name) for name in ModelInfo.__slots__ if name != "architecture"
        }
        self.info = ModelInfo(architecture=ffi.string(info.architecture).decode(), **numbers)

    def metadata(self) -> dict[str, MetadataValue]:
        """Return the metadata of the model's file."""
        return metadata_of(lib.lld_model_file(self._c))

    def populate(self, stop: StopFlag | None = None) -> None:
        """Read the weights into the page cache and map them; blocks as long as the disk needs."""
        check(lib.lld_model_populate(self._c, _stop_pointer(stop)))

    def use_huge_pages(self, stop: StopFlag | None = None) -> None:
        """Copy the weights into huge pages, in place of the mapped file; before any engine runs."""
        check(lib.lld_model_use_huge_pages(self._c, _stop_pointer(stop)))

    def read_bandwidth(self, n_threads: int) -> float:
        """Measure how fast the weights can be read from memory, in bytes per second."""
        result = ffi.new("double *")
        check(lib.lld_model_read_bandwidth(self._c, n_threads, result))
        return cast(float, result[0])

    def lock(self, max_bytes: int, stop: StopFlag | None = None) -> Locked:
        """Lock up to max_bytes of the weights in memory, those first that every token reads.

        Raises EngineError with kind CANCELLED when ``stop`` is set; ``close`` unlocks everything.
        """
        locked = ffi.new("uint64_t *")
        check(lib.lld_model_lock(self._c, max_bytes, _stop_pointer(stop), locked))
        return Locked(cast(int, locked[0]), last_message())
