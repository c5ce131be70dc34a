"""Around every call: its request id, the parsing of its request, and its end when it fails.

Owns the mapping of exceptions to gRPC statuses (through ``status.py``) and the log line of a failed
call. A service below simply raises LlamadError. CancelledError, which is how a vanished client, a
passed deadline and a stopping server arrive, goes through untouched.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.rpc.status import failure

log = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that the current task serves."""

Handler = Any  # grpc.RpcMethodHandler: grpc has no types
Context = Any  # grpc.aio.ServicerContext


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the handler of every method."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler | None]], details: Any
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for a method that does not exist."""
        handler = await continuation(details)
        if handler is None:
            return None
        parse = handler.request_deserializer
        serialize = handler.response_serializer
        method: str = details.method
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _unary(handler.unary_unary, parse, method), response_serializer=serialize
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(handler.unary_stream, parse, method), response_serializer=serialize
            )
        return handler


def _unary(behave: Any, parse: Any, method: str) -> Any:
    async def call(data: bytes, context: Context) -> Any:
        request_id.set(secrets.token_hex(8))
        try:
            return await behave(_parsed(parse, data), context)
        except Exception as error:
            await _end(error, method, context)

    return call


def _streaming(behave: Any, parse: Any, method: str) -> Any:
    # A coroutine that writes, not a generator: a generator suspended at its yield is not closed
    # when the call is cancelled, and the job behind it must be freed at once.
    async def call(data: bytes, context: Context) -> None:
        request_id.set(secrets.token_hex(8))
        try:
            messages: AsyncIterator[Any] = behave(_parsed(parse, data), context)
            async with aclosing(messages):  # type: ignore[type-var]
                async for message in messages:
                    await context.write(message)
        except Exception as error:
            await _end(error, method, context)

    return call


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
