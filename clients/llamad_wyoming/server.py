"""The life of the server: its sockets, its connections, signals, and the end."""

import asyncio
import logging
import signal
import socket

from llamad_gateway.connections import Connections
from llamad_gateway.sockets import BACKLOG, urls
from llamad_wyoming.answers import Answers
from llamad_wyoming.config import Config
from llamad_wyoming.connection import Connection

LAST_WORDS_SECONDS = 2.0  # in which a client hears that its answer was stopped

log = logging.getLogger(__name__)


class Server:
    """Accepts connections and serves each in a task of its own."""

    def __init__(self, config: Config, answers: Answers) -> None:
        self._config = config
        self._answers = answers
        self._connections = Connections(config)
        self._open: dict[Connection, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()

    async def run_on(self, sockets: list[socket.socket], *, activated: bool) -> None:
        """Serve until a signal, or until nobody asks where systemd holds the sockets."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        servers = [await self._listen(listener) for listener in sockets]
        log.info("listening on %s", " ".join(urls("tcp", sockets)))
        if activated:
            self._connections.exit_when_idle()
        await self._until_the_end()
        for server in servers:
            server.close()
        await self._drain()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        start = (
            asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        )
        return await start(
            self._accept, sock=listener, limit=self._config.max_event_bytes, backlog=BACKLOG
        )

    async def _until_the_end(self) -> None:
        ends = (self._stop, self._connections.idle)
        waits = [asyncio.create_task(end.wait()) for end in ends]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not self._stop.is_set():
            log.info("nobody asked for %d seconds", self._config.idle_exit_seconds)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "unix"
        connection = Connection(reader, writer, self._answers, self._config, address)
        task = asyncio.current_task()
        assert task is not None
        self._open[connection] = task
        try:
            if self._connections.enter(address):
                await connection.serve()
        finally:
            self._connections.leave(address)
            del self._open[connection]
            writer.close()

    async def _drain(self) -> None:
        """Let answers end for a while, then end them, then the connections."""
        for connection in self._open:
            connection.end()
        await self._wait(self._config.drain_seconds)
        self._answers.stop()
        await self._wait(LAST_WORDS_SECONDS)
        for task in self._open.values():
            task.cancel()
        await self._wait(None)

    async def _wait(self, seconds: float | None) -> None:
        if self._open:
            await asyncio.wait(self._open.values(), timeout=seconds)
