"""grpc.health.v1.Health: whether the service can answer now.

Owns the serving flag. Everything is NOT_SERVING until a model is loaded, and again while the
service stops. The names asked for are the full service names, or "" for the server as a whole.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc

from llamad.errors import ErrorKind, LlamadError
from llamad_api.standard import health_pb2 as pb

SERVICE_NAME = "grpc.health.v1.Health"

_Response = pb.HealthCheckResponse


class Health:
    """The health service. All calls come from the event loop's thread."""

    def __init__(self, services: Collection[str]) -> None:
        """Answer for the services of these names."""
        self._names = {"", *services}
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Set the state of every service and tell those who watch."""
        if serving != self._serving:
            self._serving = serving
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def check(self, request: pb.HealthCheckRequest, _context: Any) -> _Response:
        """Return the state now; NOT_FOUND for a name that is not served."""
        if request.service not in self._names:
            raise LlamadError(
                ErrorKind.NOT_FOUND, "SERVICE_UNKNOWN", f"no service {request.service[:256]!r}"
            )
        return self._state(request.service)

    async def watch(
        self, request: pb.HealthCheckRequest, _context: Any
    ) -> AsyncIterator[_Response]:
        """Yield the state now and after every change, until the client leaves."""
        while True:
            changed = self._changed
            yield self._state(request.service)
            await changed.wait()

    def _state(self, service: str) -> _Response:
        if service not in self._names:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.SERVING if self._serving else _Response.NOT_SERVING)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service under its standard name, for a server."""
        codec: dict[str, Any] = {
            "request_deserializer": pb.HealthCheckRequest.FromString,
            "response_serializer": _Response.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check, **codec),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **codec),
            },
        )
