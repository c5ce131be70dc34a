"""The life of the server: sockets, connections and their limits, signals, and the end.

uvicorn reads HTTP with h11, which refuses several Host headers and ambiguous lengths. What its
oldest supported version (0.17) has no setting for stands here: how long a head may take, how many
connections there may be, an answer that arrives though its request was not read to the end, one to
a request that offers another protocol, an end to streams while it stops, and an exit when nobody
asks.
"""

import asyncio
import logging
import signal
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamad_gateway.connections import Connections
from llamad_gateway.lingering import LingeringTransport
from llamad_gateway.sockets import BACKLOG, urls
from llamad_http.application import Application
from llamad_http.config import Config
from llamad_http.gateway import Gateway

log = logging.getLogger(__name__)


class PlainRequests:
    """A connection of h11's whose requests offer no other protocol.

    Who offers one takes an answer in this one, too (RFC 9110, 7.8), and uvicorn 0.17 refuses it.
    Java's HTTP client offers HTTP/2 with each request.
    """

    def __init__(self, connection: h11.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def next_event(self) -> Any:
        """Return h11's next event, a request without ``Upgrade`` and the ``Connection`` of it."""
        event = self._connection.next_event()
        if not isinstance(event, h11.Request) or all(
            name != b"upgrade" for name, _ in event.headers
        ):
            return event
        kept = [pair for pair in event.headers if pair[0] not in (b"upgrade", b"connection")]
        return h11.Request(
            method=event.method,
            target=event.target,
            headers=kept,
            http_version=event.http_version,
        )


def protocol_of(connections: Connections, head_seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with the limits of connections."""

    class LimitedProtocol(H11Protocol):  # type: ignore[misc]
        """A connection that has to send a whole head in time."""

        address = ""
        head_timer: asyncio.TimerHandle | None = None
        conn: Any  # uvicorn's, of h11

        def connection_made(self, transport: Any) -> None:
            """Count it; one too many is closed at once."""
            self.conn = PlainRequests(self.conn)
            super().connection_made(LingeringTransport(transport, self.has_unread))
            self.address = self.client[0] if self.client else "unix"
            if not connections.enter(self.address):
                transport.close()
                return
            self.await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget it."""
            self.stop_waiting()
            self.transport.lost()
            connections.leave(self.address)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Watch the time of a head; a request that is being answered has none to send."""
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.stop_waiting()
            elif self.head_timer is None:
                self.await_head()

        def has_unread(self) -> bool:
            """Whether a request, or the one behind it, has not been read to its end."""
            between = self.conn.their_state in (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
            return not between or bool(self.conn.trailing_data[0])

        def await_head(self) -> None:
            """Close the connection unless a head is whole in time."""
            self.head_timer = self.loop.call_later(head_seconds, self.transport.close)

        def stop_waiting(self) -> None:
            """Forget the time of the head."""
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

    return LimitedProtocol


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server, whose streams end a while after it was told to stop."""

    def __init__(self, config: Config, gateway: Gateway, application: Application) -> None:
        self._limits = config
        self._gateway = gateway
        self._connections = Connections(config)
        super().__init__(
            uvicorn.Config(
                application,
                http=protocol_of(self._connections, config.head_seconds),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=config.keep_alive_seconds,
                proxy_headers=False,
            )
        )

    async def run_on(self, sockets: list[socket.socket], *, activated: bool) -> None:
        """Serve until a signal, or until nobody asks where systemd holds the sockets."""
        # From now on; uvicorn's own handlers come later, and newer ones raise the signal once more.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        log.info("listening on %s", " ".join(urls("http", sockets)))
        if activated:
            self._connections.exit_when_idle()
        idle = asyncio.create_task(self._exit_when_idle())
        try:
            await self.serve(sockets=sockets)
        finally:
            idle.cancel()

    async def _exit_when_idle(self) -> None:
        await self._connections.idle.wait()
        log.info("nobody asked for %d seconds", self._limits.idle_exit_seconds)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let answers end for a while, then end them."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._limits.drain_seconds, self._gateway.stop_streams)
        try:
            await super().shutdown(sockets=sockets)
        finally:
            timer.cancel()
