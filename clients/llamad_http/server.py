"""The life of the server: sockets, connections and their limits, signals, and the end.

uvicorn reads HTTP with h11, which refuses several Host headers and ambiguous lengths. What its
oldest supported version (0.17) has no setting for stands here: how long a head may take, how many
connections there may be, an end to streams while it stops, and an exit when nobody asks.
"""

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamad_http.application import Application
from llamad_http.config import Config, ConfigError
from llamad_http.gateway import Gateway

log = logging.getLogger(__name__)

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
LOOPBACK = ("127.", "::1")
BACKLOG = 256


class Connections:
    """The connections that are open, by address, and how long there has been none."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.idle = asyncio.Event()
        self._by_address: Counter[str] = Counter()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._exits_when_idle = False

    def exit_when_idle(self) -> None:
        """Set ``idle`` once there has been no connection for as long as configured."""
        self._exits_when_idle = self.config.idle_exit_seconds > 0
        self._watch()

    def enter(self, address: str) -> bool:
        """Count a connection; False where there are too many."""
        self._by_address[address] += 1
        self._watch()
        limits = self.config
        return (
            self._by_address.total() <= limits.max_connections
            and self._by_address[address] <= limits.max_connections_per_address
        )

    def leave(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        self._watch()

    def _watch(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._exits_when_idle and not self._by_address:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self.config.idle_exit_seconds, self.idle.set)


def protocol_of(connections: Connections) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with the limits of connections."""

    class LimitedProtocol(H11Protocol):  # type: ignore[misc]
        """A connection that has to send a whole head in time."""

        address = ""
        head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """Count it; one too many is closed at once."""
            super().connection_made(transport)
            self.address = self.client[0] if self.client else "unix"
            if not connections.enter(self.address):
                transport.close()
                return
            self.await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget it."""
            self.stop_waiting()
            connections.leave(self.address)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Watch the time of a head; a request that is being answered has none to send."""
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.stop_waiting()
            elif self.head_timer is None:
                self.await_head()

        def await_head(self) -> None:
            """Close the connection unless a head is whole in time."""
            seconds = connections.config.head_seconds
            self.head_timer = self.loop.call_later(seconds, self.transport.close)

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
                http=protocol_of(self._connections),
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
        log.info("listening on %s", " ".join(urls(sockets)))
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


def inherited_sockets() -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [socket.socket(fileno=FIRST_DESCRIPTOR + n) for n in range(count)]


def open_sockets(listen: tuple[str, ...]) -> list[socket.socket]:
    """Listen on addresses: ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``. Raises ConfigError."""
    sockets: list[socket.socket] = []
    for address in listen:
        try:
            sockets += _open(address)
        except (OSError, ValueError, OverflowError) as error:
            for opened in sockets:
                opened.close()
            raise ConfigError(f"server.listen: {address}: {error}") from None
    if not sockets:
        raise ConfigError("server.listen: names no address")
    return sockets


def _open(address: str) -> list[socket.socket]:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        path.chmod(0o660)
        listener.listen(BACKLOG)
        return [listener]
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("must be HOST:PORT, [ADDRESS]:PORT or unix:PATH")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return [
        socket.create_server(place[:2], family=family, backlog=BACKLOG)
        for family, _, _, _, place in found[:1]
    ]


def is_beyond_loopback(listener: socket.socket) -> bool:
    """Whether other machines may reach a socket."""
    if listener.family == socket.AF_UNIX:
        return False
    return not str(listener.getsockname()[0]).startswith(LOOPBACK)


def urls(sockets: list[socket.socket]) -> list[str]:
    """Return where the server is reached, for the journal."""
    found = []
    for listener in sockets:
        name = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            found.append(f"unix:{os.fsdecode(name)}")
        else:
            host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
            found.append(f"http://{host}:{name[1]}")
    return found
