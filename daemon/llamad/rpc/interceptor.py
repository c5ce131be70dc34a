"""Around every call: who makes it and may they, its request id, its limits, its end when it fails.

Owns the mapping of exceptions to gRPC statuses (through ``status.py``) and the log line of a failed
call. A service below simply raises LlamadError. CancelledError, which is how a vanished client, a
passed deadline and a stopping server arrive, goes through untouched.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc
import grpc.aio

from llamad.door import limits
from llamad.door.call_limits import CallLimits
from llamad.door.caller import Caller
from llamad.door.capacity import FULL, Capacity
from llamad.door.rights import check_method
from llamad.errors import ErrorKind, LlamadError, log_level
from llamad.logs import fields
from llamad.rpc.incoming import Incoming
from llamad.rpc.status import failure
from llamad.users import user_name

log = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that the current task serves."""

caller: ContextVar[Caller] = ContextVar("caller")
"""Who makes the call that the current task serves."""

Handler = Any  # grpc.RpcMethodHandler: grpc has no types
Context = Any  # grpc.aio.ServicerContext

# Requests that may be large; every other method takes SMALL_MESSAGE_BYTES, because a call holds its
# request while it runs, and a message may carry fields that nobody knows.
_LARGE_REQUESTS = frozenset(
    {
        "/llamad.v1.Admin/AddPrefix",
        "/llamad.v1.Llamad/Chat",
        "/llamad.v1.Llamad/Detokenize",
        "/llamad.v1.Llamad/Generate",
        "/llamad.v1.Llamad/Rerank",
        "/llamad.v1.Llamad/Score",
        "/llamad.v1.Llamad/SubmitJob",
        "/llamad.v1.Llamad/Embed",
        "/llamad.v1.Llamad/Tokenize",
    }
)
_ADMIN = "/llamad.v1.Admin/"
_ADD_MODEL = "/llamad.v1.Admin/AddModel"  # its chunks are as large as a message may be


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the handler of every method."""

    def __init__(
        self,
        caller_of: Callable[[str], Caller | None],
        admin_group: str,
        on_failed: Callable[[str], None],
        capacity: Capacity = FULL,
    ) -> None:
        """Ask ``caller_of`` who is at the other end, by the peer that gRPC tells.

        ``on_failed`` hears the reason of every call that ends with an error.
        """
        self._caller_of = caller_of
        self._admin_group = admin_group
        self._on_failed = on_failed
        self._limits = CallLimits(capacity)
        self._message_bytes = capacity.message_bytes

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler | None]], details: Any
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for a method that does not exist."""
        handler = await continuation(details)
        if handler is None:
            return None
        # To gRPC every request is a stream: so the caller is known, and the call is counted, before
        # anything of its request is received. Answers are streams too: writing one waits until the
        # client has room for it. On the wire there is no difference.
        return grpc.stream_stream_rpc_method_handler(
            partial(self._call, handler, details.method),
            response_serializer=partial(_serialized, handler.response_serializer),
        )

    async def _call(self, handler: Handler, method: str, _received: Any, context: Context) -> None:
        # A coroutine that writes, not a generator: a generator suspended at its yield is not closed
        # when the call is cancelled, and the job behind it must be freed at once.
        request_id.set(secrets.token_hex(8))
        incoming = Incoming(context, handler.request_deserializer, self._most_bytes(method))
        behave = _behavior(handler)
        try:
            known = self._admit(method, context)
            with self._limits.running(known, upload=handler.request_streaming):
                if handler.request_streaming:
                    answer = behave(incoming.messages(), context)
                elif handler.response_streaming or method.startswith(_ADMIN):
                    async with self._limits.receiving(known):
                        answer = behave(await incoming.message(), context)
                else:
                    # With its place held to the end, so that large answers wait for their readers.
                    async with self._limits.receiving(known):
                        await _write(await behave(await incoming.message(), context), context)
                    return
                if handler.response_streaming:
                    async with aclosing(answer) as messages:
                        async for message in messages:
                            await context.write(message)
                else:
                    await _write(await answer, context)
        except Exception as error:
            await _end(error, method, context, self._on_failed)

    def _most_bytes(self, method: str) -> int:
        if method == _ADD_MODEL:
            return limits.MESSAGE_BYTES
        return self._message_bytes if method in _LARGE_REQUESTS else limits.SMALL_MESSAGE_BYTES

    def _admit(self, method: str, context: Context) -> Caller:
        """Set and return who calls.

        Raises NOT_ADMIN, or UNKNOWN_CALLER for a connection that is not ours.
        """
        known = self._caller_of(context.peer())
        if known is None:
            raise LlamadError(
                ErrorKind.PERMISSION, "UNKNOWN_CALLER", "nobody knows who makes this call"
            )
        caller.set(known)
        check_method(method, known, self._admin_group)
        return known


def _behavior(handler: Handler) -> Any:
    return (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )


def _serialized(serialize: Callable[[Any], bytes], answer: Any) -> bytes:
    """Return the bytes of an answer; a service may have made them already."""
    return answer if isinstance(answer, bytes) else serialize(answer)


async def _write(message: Any, context: Context) -> None:
    """Answer with one message. Raises ANSWER_NOT_READ."""
    try:
        async with asyncio.timeout(limits.ANSWER_SECONDS):
            await context.write(message)
    except TimeoutError:
        raise LlamadError(
            ErrorKind.EXHAUSTED,
            "ANSWER_NOT_READ",
            f"the client did not read the answer in {limits.ANSWER_SECONDS:g} seconds",
        ) from None


async def _end(
    error: Exception, method: str, context: Context, on_failed: Callable[[str], None]
) -> None:
    """Finish a failed call: status, message and trailing metadata, and a line in the journal."""
    if isinstance(error, grpc.aio.BaseError):  # the call is already over, nobody hears more
        raise asyncio.CancelledError from error
    end = failure(error, request_id.get())
    on_failed(end.reason)
    internal = end.code is grpc.StatusCode.INTERNAL
    known = caller.get(None)
    log.log(
        log_level(error),
        fields(
            "call failed",
            method=method,
            user=None if known is None else user_name(known.uid),
            request=request_id.get(),
            code=end.code.name,
            reason=end.reason,
            message=str(error) if internal else end.message,
        ),
        exc_info=error if internal else None,
    )
    # gRPC keeps what abort raises with the call, and that keeps this error: no frame, with a
    # prompt's tokens in it, shall stay until the garbage collector finds them.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    await context.abort(end.code, end.message, end.metadata)
