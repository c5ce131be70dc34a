"""A status of the C engine as an error; arguments as C takes them."""

from os import PathLike, fsencode
from typing import Any, cast

from llamad._engine import ffi, lib
from llamad.errors import ErrorKind, LlamadError

_STATUS: dict[int, tuple[ErrorKind, str]] = {
    lib.LLD_ERR_IO: (ErrorKind.STATE, "MODEL_UNREADABLE"),
    lib.LLD_ERR_CORRUPT: (ErrorKind.CORRUPT, "MODEL_CORRUPT"),
    lib.LLD_ERR_UNSUPPORTED: (ErrorKind.STATE, "MODEL_UNSUPPORTED"),
    lib.LLD_ERR_INVALID: (ErrorKind.INVALID, "INVALID_ARGUMENT"),
    lib.LLD_ERR_MEMORY: (ErrorKind.EXHAUSTED, "OUT_OF_MEMORY"),
    lib.LLD_ERR_CANCELLED: (ErrorKind.CANCELLED, "CANCELLED"),
    lib.LLD_ERR_FAULT: (ErrorKind.CORRUPT, "MODEL_FILE_LOST"),
    lib.LLD_ERR_NUMERIC: (ErrorKind.CORRUPT, "MODEL_NOT_FINITE"),
}


class EngineError(LlamadError):
    """A failed call of the engine; ``status`` is the lld_status."""

    def __init__(self, status: int, message: str) -> None:
        kind, reason = _STATUS.get(status, (ErrorKind.INTERNAL, "ENGINE_ERROR"))
        super().__init__(kind, reason, message)
        self.status = status


def last_message() -> str:
    """Return the line that the last failed call on this thread left."""
    return cast(str, ffi.string(lib.lld_error_message()).decode("utf-8", "replace"))


def check(status: int) -> None:
    """Raise the error that a status is; LLD_OK is none."""
    if status != lib.LLD_OK:
        raise EngineError(status, last_message())


def path_argument(path: str | PathLike[str]) -> bytes:
    """Return a path as a C string."""
    name = fsencode(path)
    if b"\0" in name:
        raise ValueError("a path has no zero bytes")
    return name


def cpu_argument(cpu: str | None) -> Any:
    """Return names of kernel sets as a C string; None is NULL."""
    return ffi.NULL if cpu is None else ffi.new("char[]", cpu.encode())
