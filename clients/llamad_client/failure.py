"""From a failed gRPC call to the errors of ``errors.py``: one table."""

import grpc

from llamad_client.address import Address, unreachable
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


def client_error(error: grpc.RpcError, address: Address) -> ClientError:
    """Return the error for a call that failed at the address."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name.lower()
    metadata = _metadata(error)
    reason = metadata.get("llamad-reason")
    if _was_cut(error):
        return unreachable(address, message)
    if address.tries > 1 and (board := metadata.get("llamad-board")):
        message = f"{board}: {message}"
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


def another_may_answer(error: grpc.RpcError) -> bool:
    """Whether one of several services failed so that the call may be given to another."""
    is_unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return is_unavailable or _was_cut(error) or "llamad-retry-after" in _metadata(error)


def _was_cut(error: grpc.RpcError) -> bool:
    """Whether the way to the service ended the call; what the service says has a reason.

    A proxy whose board dies in the middle of an answer ends the stream without a status, which is
    UNKNOWN to gRPC, or resets it.
    """
    if "llamad-reason" in _metadata(error):
        return False
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN):
        return True
    return error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or "")


def _metadata(error: grpc.RpcError) -> dict[str, str]:
    # A tuple of pairs, or grpc.aio's Metadata, which iterates over pairs and yet has keys().
    return dict(iter(error.trailing_metadata() or ()))
