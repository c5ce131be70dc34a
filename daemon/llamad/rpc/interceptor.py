"""Around every call: who makes it and may they, its request id, its parsing, its end when it fails.

Owns the mapping of exceptions to gRPC statuses (through ``status.py``) and the log line of a failed
call. A service below simply raises LlamadError. CancelledError, which is how a vanished client, a
passed deadline and a stopping server arrive, goes through untouched.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from llamad.door.call_limits import CallLimits
from llamad.door.caller import Caller
from llamad.door.rights import check_method
from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.rpc.status import failure

log = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that the current task serves."""

caller: ContextVar[Caller] = ContextVar("caller")
"""Who makes the call that the current task serves."""

Handler = Any  # grpc.RpcMethodHandler: grpc has no types
Context = Any  # grpc.aio.ServicerContext
Parse = Callable[[Any], Any]  # from the bytes of a request, or an iterator over them


_WRAPPED = {  # by whether requests and responses stream
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the handler of every method."""

    def __init__(self, caller_of: Callable[[str], Caller | None], admin_group: str) -> None:
        """Ask ``caller_of`` who is at the other end, by the peer that gRPC tells."""
        self._caller_of = caller_of
        self._admin_group = admin_group
        self._limits = CallLimits()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler | None]], details: Any
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for a method that does not exist."""
        handler = await continuation(details)
        if handler is None:
            return None
        parse = partial(
            _each_parsed if handler.request_streaming else _parsed, handler.request_deserializer
        )
        respond = self._streaming if handler.response_streaming else self._unary
        wrapped = _WRAPPED[handler.request_streaming, handler.response_streaming]
        return wrapped(
            respond(_behavior(handler), parse, details.method),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, behave: Any, parse: Parse, method: str) -> Any:
        async def call(received: Any, context: Context) -> Any:
            request_id.set(secrets.token_hex(8))
            try:
                with self._limits.running(self._admit(method, context)):
                    return await behave(parse(received), context)
            except Exception as error:
                await _end(error, method, context)

        return call

    def _streaming(self, behave: Any, parse: Parse, method: str) -> Any:
        # A coroutine that writes, not a generator: a generator suspended at its yield is not closed
        # when the call is cancelled, and the job behind it must be freed at once.
        async def call(received: Any, context: Context) -> None:
            request_id.set(secrets.token_hex(8))
            try:
                with self._limits.running(self._admit(method, context)):
                    messages: AsyncIterator[Any] = behave(parse(received), context)
                    async with aclosing(messages):  # type: ignore[type-var]
                        async for message in messages:
                            await context.write(message)
            except Exception as error:
                await _end(error, method, context)

        return call

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


async def _each_parsed(
    parse: Callable[[bytes], Any], received: AsyncIterator[bytes]
) -> AsyncIterator[Any]:
    async for data in received:
        yield _parsed(parse, data)


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except (DecodeError, UnicodeDecodeError, ValueError):
        raise LlamadError(
            ErrorKind.INVALID, "INVALID_REQUEST", "the request is no valid message of this method"
        ) from None


async def _end(error: Exception, method: str, context: Context) -> None:
    """Finish a failed call: status, message and trailing metadata, and a line in the journal."""
    if isinstance(error, grpc.aio.BaseError):  # the call is already over, nobody hears more
        raise error
    end = failure(error, request_id.get())
    internal = end.code is grpc.StatusCode.INTERNAL
    log.log(
        logging.ERROR if internal else logging.INFO,
        fields(
            "call failed",
            method=method,
            request=request_id.get(),
            code=end.code.name,
            reason=end.reason,
            message=str(error) if internal else end.message,
        ),
        exc_info=error if internal else None,
    )
    await context.abort(end.code, end.message, end.metadata)
