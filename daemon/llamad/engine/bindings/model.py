"""A mapped model, and what is done to keep its weights in memory."""

from collections.abc import Mapping, Sequence
from os import PathLike
from threading import Lock
from typing import Any, cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.gguf_file import metadata_of
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check, last_message, path_argument
from llamad.engine.info import Extent, Locked, ModelInfo, ResidencyInfo, Role
from llamad.gguf.value import MetadataValue

_ROLES: Mapping[int, Role] = {
    lib.LLD_ROLE_VECTOR: Role.VECTOR,
    lib.LLD_ROLE_ATTENTION: Role.ATTENTION,
    lib.LLD_ROLE_FEED: Role.FEED,
    lib.LLD_ROLE_EXPERT: Role.EXPERT,
    lib.LLD_ROLE_OUTPUT: Role.OUTPUT,
    lib.LLD_ROLE_EMBEDDING: Role.EMBEDDING,
}
NO_LIMIT = (1 << 64) - 1  # of what may be locked


class StopFlag:
    """A flag that ends ``EngineModel.set_residency`` and its kin early; any thread may set it."""

    def __init__(self) -> None:
        self._flag = ffi.new("int32_t *", 0)

    def set(self) -> None:
        """Raise the flag."""
        self._flag[0] = 1


def _stop_pointer(stop: StopFlag | None) -> Any:
    return ffi.NULL if stop is None else stop._flag


class EngineModel(Handle):
    """A mapped model: immutable hyperparameters and weights."""

    def __init__(self, path: str | PathLike[str], *, guesses: bool = False) -> None:
        """Map a model; guesses: with its layer that guesses tokens, if it has one."""
        out = ffi.new("lld_model **")
        check(lib.lld_model_open(path_argument(path), guesses, out))
        self._lock = Lock()  # of what other threads may ask, against close
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

    def close(self) -> None:
        """Unmap the file when no engine uses it any more. Closing twice is no error."""
        if not self._closed:
            with self._lock:
                super().close()

    def extents(self) -> tuple[Extent, ...]:
        """Return the pieces of the file that a step uses, in the order of their use."""
        extent, found = ffi.new("lld_extent *"), []
        for i in range(lib.lld_model_n_extents(self._c)):
            check(lib.lld_model_extent(self._c, i, extent))
            role = _ROLES[extent.role]
            place = extent.file_offset, extent.bytes
            found.append(Extent(role, extent.layer, *place, expert=extent.expert))
        return tuple(found)

    def populate(self, stop: StopFlag | None = None) -> None:
        """Read all weights into memory, locking nothing; blocks as long as the disk needs."""
        self.set_residency([True] * lib.lld_model_n_extents(self._c), stop=stop)

    def set_residency(
        self,
        resident: Sequence[bool],
        ring_bytes: int = 0,
        *,
        expert_slots: int = 0,
        lock_bytes: int = 0,
        stop: StopFlag | None = None,
    ) -> Locked:
        """Keep these of the extents in memory and stream the others, from the next step on.

        Gives back, reads in large pieces, and locks up to lock_bytes (``NO_LIMIT``: everything) of
        the ring, the slots for experts and what is resident; see lld_model_set_residency. Blocks
        as long as the disk needs, but may be called while steps run. Raises EngineError with kind
        CANCELLED when ``stop`` is set; ``close`` unlocks everything.
        """
        flags = ffi.new("uint8_t[]", [int(stays) for stays in resident])
        struct = ffi.new(
            "lld_residency *", (flags, len(flags), ring_bytes, lock_bytes, expert_slots)
        )
        check(lib.lld_model_set_residency(self._c, struct, _stop_pointer(stop)))
        fault = last_message()
        return Locked(self.residency().locked_bytes, fault)

    def residency(self) -> ResidencyInfo:
        """Return what is in memory, and what was read so far. Any thread."""
        info = ffi.new("lld_residency_info *")
        with self._lock:
            lib.lld_model_get_residency(self._c, info)
        numbers = {name: getattr(info, name) for name in ResidencyInfo.__slots__}
        return ResidencyInfo(**{**numbers, "direct": bool(info.direct)})

    def use_huge_pages(self, stop: StopFlag | None = None) -> None:
        """Copy the weights into huge pages, in place of the mapped file; before any engine runs."""
        check(lib.lld_model_use_huge_pages(self._c, _stop_pointer(stop)))

    def read_bandwidth(self, n_threads: int) -> float:
        """Measure how fast the weights can be read from memory, in bytes per second."""
        result = ffi.new("double *")
        check(lib.lld_model_read_bandwidth(self._c, n_threads, result))
        return cast(float, result[0])
