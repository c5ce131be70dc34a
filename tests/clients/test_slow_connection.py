"""A service that is slow to answer a new connection is waited for: it has not lost one."""

import contextlib
import socket
import threading
import time
from pathlib import Path

from clients.running import running_service
from llamad_client import Client

SECONDS = 0.7  # more than gRPC is told to wait between two attempts


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on all bytes until one side ends; the client may end with a reset."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _front(listener: socket.socket, service: Path) -> None:
    """Take a connection, wait, and only then let the service hear of it."""
    with listener.accept()[0] as client, socket.socket(socket.AF_UNIX) as server:
        time.sleep(SECONDS)
        server.connect(str(service))
        back = threading.Thread(target=_pump, args=(server, client))
        back.start()
        _pump(client, server)
        back.join()


def test_a_service_that_is_slow_to_take_a_connection_is_waited_for(tmp_path: Path) -> None:
    with running_service() as service, socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "front.sock"
        listener.bind(str(path))
        listener.listen()
        front = threading.Thread(target=_front, args=(listener, service.path))
        front.start()
        with Client(path) as client:
            assert client.status().state
        front.join()
