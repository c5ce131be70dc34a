"""Errors to gRPC: one table from the kind of an error to a status code, and what travels with it.

A failed call carries its stable reason in the trailing metadata ``llamad-reason`` and, where
waiting helps, seconds in ``llamad-retry-after``; ``llamad-board`` is the name of this machine, for
clients of several. A bug shows nothing of its inside: its message
names the request, whose traceback is in the journal.
"""

import os
from dataclasses import dataclass

import grpc

from llamad.errors import ErrorKind, LlamadError

REASON_KEY = "llamad-reason"
RETRY_AFTER_KEY = "llamad-retry-after"
REQUEST_ID_KEY = "llamad-request-id"
BOARD_KEY = "llamad-board"

_BOARD = os.uname().nodename.encode("ascii", "replace").decode()  # metadata is ASCII

STATUS_CODES: dict[ErrorKind, grpc.StatusCode] = {
    ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.PERMISSION: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.STATE: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.CORRUPT: grpc.StatusCode.DATA_LOSS,
    ErrorKind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.CANCELLED: grpc.StatusCode.CANCELLED,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}

_MAX_DETAIL_BYTES = 1024  # trailing metadata is limited to 8 KiB by gRPC's default


@dataclass(frozen=True, slots=True)
class Failure:
    """How a failed call ends: status code, reason, message and trailing metadata."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: tuple[tuple[str, str], ...]


def failure(error: BaseException, request_id: str) -> Failure:
    """Return how a call that raised ``error`` ends."""
    if not isinstance(error, LlamadError) or error.kind is ErrorKind.INTERNAL:
        message = f"internal error, see the service's journal for request {request_id}"
        reason = error.reason if isinstance(error, LlamadError) else "INTERNAL"
        metadata = _metadata(reason, request_id, None)
        return Failure(grpc.StatusCode.INTERNAL, reason, message, metadata)
    return Failure(
        STATUS_CODES[error.kind],
        error.reason,
        _shorten(error.message),
        _metadata(error.reason, request_id, error.retry_after_seconds),
    )


def _metadata(
    reason: str, request_id: str, retry_after_seconds: float | None
) -> tuple[tuple[str, str], ...]:
    pairs = [(REASON_KEY, reason), (REQUEST_ID_KEY, request_id), (BOARD_KEY, _BOARD)]
    if retry_after_seconds is not None:
        pairs.append((RETRY_AFTER_KEY, f"{retry_after_seconds:g}"))
    return tuple(pairs)


def _shorten(message: str) -> str:
    """Return the message as one line that fits the trailing metadata."""
    line = " ".join(message.encode("utf-8", "replace").decode().split())
    data = line.encode()
    if len(data) <= _MAX_DETAIL_BYTES:
        return line
    return data[:_MAX_DETAIL_BYTES].decode("utf-8", "ignore") + "…"
