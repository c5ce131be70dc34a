"""HTTP/2 frames by hand, and a client that sends what no library would (RFC 9113, RFC 7541).

The client obeys flow control, so that the service has no reason to end its connection, and reads
nothing but what it is told to.
"""

import asyncio
import itertools
import os
import socket
import struct
from collections import defaultdict
from pathlib import Path
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5  # settings
CANCEL = 8
FRAME_BYTES = 16384  # most of a payload, until a peer allows more
DEFAULT_WINDOW = 65535

_names = itertools.count()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of this kind."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def setting(number: int, value: int) -> bytes:
    """Return one entry of a SETTINGS frame."""
    return struct.pack(">HI", number, value)


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that is neither indexed nor compressed (RFC 7541, 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Return a string literal without Huffman coding; its length with a prefix of 7 bits."""
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    head, rest = b"\x7f", size - 127
    while rest >= 128:
        head += bytes([rest % 128 + 128])
        rest //= 128
    return head + bytes([rest]) + text


def call_headers(method: str, *more: tuple[bytes, bytes]) -> bytes:
    """Return the header block of a call: ``method`` is its full name with slashes."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return b"".join(literal(name, value) for name, value in fields)


def message(body: bytes, *, compressed: bool = False, announced: int | None = None) -> bytes:
    """Return a gRPC message; ``announced`` is the length it claims, by default the true one."""
    return struct.pack(">BI", compressed, len(body) if announced is None else announced) + body


class RawClient:
    """A connection that is written frame by frame, open inside ``async with``."""

    def __init__(self, path: Path, uid: int, *settings: bytes) -> None:
        """Connect to the socket at path, as the user ``service_process`` shall take this for."""
        self._path = path
        self._uid = uid
        self._settings = b"".join(settings)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()  # frames are not to be mixed
        self._reading: asyncio.Task[None] | None = None
        self._initial_window = DEFAULT_WINDOW
        self._windows: dict[int, int] = defaultdict(int)  # granted by stream, beyond the initial
        self._streams = itertools.count(1, 2)
        self._ended_streams: set[int] = set()
        self.ended = asyncio.Event()
        self.frames: list[tuple[int, int, int, bytes]] = []  # kind, flags, stream, payload

    async def __aenter__(self) -> Self:
        self._socket.setblocking(False)
        self._socket.bind(f"\0uid-{self._uid}-{os.getpid()}-{next(_names)}")
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, str(self._path))
        await self.send(PREFACE + frame(SETTINGS, 0, 0, self._settings))
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._socket.close()

    def read(self) -> None:
        """Read from now on what comes, and acknowledge settings; else nothing is ever read."""
        self._reading = asyncio.create_task(self._read())

    async def send(self, *frames: bytes) -> bool:
        """Send frames as they are; return False when the connection has ended."""
        try:
            async with self._sending:
                await asyncio.get_running_loop().sock_sendall(self._socket, b"".join(frames))
        except OSError:
            self.ended.set()
            return False
        return True

    def half_close(self) -> None:
        """Send nothing any more, but stay to read."""
        self._socket.shutdown(socket.SHUT_WR)

    def new_stream(self) -> int:
        """Return the id of a stream that has not been used."""
        return next(self._streams)

    async def open(self, method: str, *more: tuple[bytes, bytes]) -> int:
        """Begin a call; return its stream."""
        stream = self.new_stream()
        await self.send(frame(HEADERS, END_HEADERS, stream, call_headers(method, *more)))
        return stream

    async def send_data(self, stream: int, data: bytes, *, end: bool = False) -> int:
        """Send data within what flow control allows, and wait for more of that.

        Returns the bytes sent, which are fewer when the connection or the stream ends.
        """
        sent = 0
        while sent < len(data):
            room = min(self.window(stream), self.window(0), FRAME_BYTES)
            if room <= 0:
                if self.ended.is_set() or self.has_ended(stream):
                    return sent
                self._changed.clear()
                await self._changed.wait()
                continue
            piece = data[sent : sent + room]
            last = end and sent + len(piece) == len(data)
            self._windows[stream] -= len(piece)
            self._windows[0] -= len(piece)
            if not await self.send(frame(DATA, END_STREAM if last else 0, stream, piece)):
                return sent
            sent += len(piece)
        return sent

    def window(self, stream: int) -> int:
        """Return the bytes that may be sent on a stream, or on all of them for 0."""
        initial = self._initial_window if stream else DEFAULT_WINDOW
        return initial + self._windows[stream]

    def has_ended(self, stream: int) -> bool:
        """Return whether the service has ended a stream, in whatever way."""
        return stream in self._ended_streams

    async def status(self, stream: int) -> str:
        """Return the status of a call when it has ended; "" when it was reset."""
        while not (self.has_ended(stream) or self.ended.is_set()):
            self._changed.clear()
            await self._changed.wait()
        blocks = [f[3] for f in self.frames if f[0] == HEADERS and f[2] == stream]
        _, found, rest = b"".join(blocks).partition(b"grpc-status")
        return rest[1 : 1 + rest[0]].decode() if found else ""

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        received = b""
        try:
            while data := await loop.sock_recv(self._socket, 1 << 16):
                received += data
                while len(received) >= 9:
                    size = int.from_bytes(received[:3], "big")
                    if len(received) < 9 + size:
                        break
                    await self._on_frame(received[: 9 + size])
                    received = received[9 + size :]
        except OSError:
            pass
        self.ended.set()
        self._changed.set()

    async def _on_frame(self, data: bytes) -> None:
        kind, flags = data[3], data[4]
        stream, payload = int.from_bytes(data[5:9], "big"), data[9:]
        self.frames.append((kind, flags, stream, payload))
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self._ended_streams.add(stream)
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, len(payload), 6):
                number, value = struct.unpack(">HI", payload[i : i + 6])
                if number == INITIAL_WINDOW_SIZE:
                    self._initial_window = value
            await self.send(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload, "big")
        self._changed.set()
