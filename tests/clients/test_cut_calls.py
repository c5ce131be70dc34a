"""Calls that a proxy ends because the service behind it died: the connection is lost, no more."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llamad_client import AsyncClient, Client, ServiceUnreachable
from rpc.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    literal,
)

INTERNAL_ERROR = struct.pack(">I", 2)
BEGIN = b"\x88" + literal(b"content-type", b"application/grpc")  # :status 200
CUTS = {
    "the end without a status": (DATA, END_STREAM, b""),
    "a reset": (RST_STREAM, 0, INTERNAL_ERROR),
}


@contextmanager
def cutting_proxy(path: Path, kind: int, flags: int, payload: bytes) -> Iterator[None]:
    """Begin to answer each call, then end its stream with a frame."""

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as sent:
            connection.sendall(frame(SETTINGS, 0, 0))
            sent.read(len(PREFACE))
            while head := sent.read(9):
                sent.read(int.from_bytes(head[:3], "big"))
                stream = int.from_bytes(head[5:], "big")
                if head[3] == HEADERS:
                    begun = frame(HEADERS, END_HEADERS, stream, BEGIN)
                    connection.sendall(begun + frame(kind, flags, stream, payload))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("cut", CUTS)
def test_a_stream_that_a_proxy_ends_is_a_lost_connection(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "s"

    async def ask() -> None:
        async with AsyncClient(path) as client:
            async for _ in client.generate("a"):
                pass

    with cutting_proxy(path, *CUTS[cut]):
        with Client(path) as client, pytest.raises(ServiceUnreachable) as caught:
            list(client.generate("a"))
        assert caught.value.reason == "CONNECTION_LOST"
        with pytest.raises(ServiceUnreachable) as caught:
            asyncio.run(ask())
        assert caught.value.reason == "CONNECTION_LOST"
