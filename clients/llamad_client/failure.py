"""From a failed gRPC call to the errors of ``errors.py``: one table."""

from pathlib import Path

import grpc

from llamad_client.address import diagnose
from llamad_client.errors import ClientError, Failed, Refused, ServiceUnreachable, StillLoading

_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def client_error(error: grpc.RpcError, path: Path) -> ClientError:
    """Return the error for a call that failed on the socket at path."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name.lower()
    # A tuple of pairs, or grpc.aio's Metadata, which iterates over pairs and yet has keys().
    metadata = dict(iter(error.trailing_metadata() or ()))
    reason = metadata.get("llamad-reason")
    if code is grpc.StatusCode.UNAVAILABLE and reason is None:
        return diagnose(path, message)
    retry_after = metadata.get("llamad-retry-after")
    kind: type[ClientError] = Failed
    if reason == "MODEL_LOADING":
        kind = StillLoading
    elif code is grpc.StatusCode.UNAVAILABLE:
        kind = ServiceUnreachable
    elif code in _REFUSALS:
        kind = Refused
    found = kind(reason or code.name, message, None if retry_after is None else float(retry_after))
    found.code = code.name.lower()
    return found
