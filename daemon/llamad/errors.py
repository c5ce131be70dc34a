"""Every error that may reach a user: its kind, a stable reason, and a line that names the thing.

A leaf module. Messages are lower case, name the thing and the limit: ``prompt has 5120 tokens,
context holds 4096``. ``rpc/status.py`` turns a kind into a gRPC status; the command line turns any
of these into exit code 1 and one line on stderr.
"""

import enum
import logging


class ErrorKind(enum.Enum):
    """What went wrong, in the terms a client can act on."""

    INVALID = "invalid"  # a field is outside its range
    NOT_FOUND = "not_found"  # no such model or job
    PERMISSION = "permission"  # this user may not do that
    STATE = "state"  # right request, wrong moment; or a model this engine does not implement
    CORRUPT = "corrupt"  # the model file is broken
    EXHAUSTED = "exhausted"  # queue or memory full: try again later
    DEADLINE = "deadline"  # the request's deadline passed
    CANCELLED = "cancelled"
    UNAVAILABLE = "unavailable"  # loading or stopping: try again later
    INTERNAL = "internal"  # our bug


class LlamadError(Exception):
    """An error with a kind, a stable UPPER_SNAKE reason and, where waiting helps, a retry hint."""

    def __init__(
        self,
        kind: ErrorKind,
        reason: str,
        message: str,
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds


# What the journal says of an error that ended a call or a request. A user's mistake is told to the
# user; what the service was short of is worth a line; a broken file a warning, a bug an error.
_LOG_LEVELS = {
    ErrorKind.INVALID: logging.DEBUG,
    ErrorKind.NOT_FOUND: logging.DEBUG,
    ErrorKind.CORRUPT: logging.WARNING,
    ErrorKind.INTERNAL: logging.ERROR,
}


def log_level(error: BaseException) -> int:
    """Return the level at which the journal tells an error; what is no LlamadError is a bug."""
    kind = error.kind if isinstance(error, LlamadError) else ErrorKind.INTERNAL
    return _LOG_LEVELS.get(kind, logging.INFO)


SHUTDOWN_RETRY_SECONDS = 5.0  # a unit restarts the service within this


def shutting_down() -> LlamadError:
    """Return the error for whatever comes, or waits, while the service stops."""
    return LlamadError(
        ErrorKind.UNAVAILABLE,
        "SHUTTING_DOWN",
        "the service is stopping",
        retry_after_seconds=SHUTDOWN_RETRY_SECONDS,
    )


def invalid(field: str, message: str) -> LlamadError:
    """Return the error for a request field outside its range: reason ``INVALID_<FIELD>``."""
    reason = "INVALID_" + field.upper().replace(".", "_")
    return LlamadError(ErrorKind.INVALID, reason, f"{field}: {message}")
