"""The frames of an HTTP/2 connection in one direction (RFC 9113, section 4.1): their heads only.

Owns where a frame begins in a stream of bytes. It checks nothing and reads no payload: gRPC does,
and ends a connection that is none of HTTP/2.
"""

from collections.abc import Iterator

PREFACE_BYTES = 24  # that a client sends before its first frame
HEAD_BYTES = 9
DATA, HEADERS, RST_STREAM, PING, CONTINUATION = 0, 1, 3, 6, 9
END_STREAM = 1  # a flag of DATA and HEADERS
ACK = 1  # a flag of PING
ENHANCE_YOUR_CALM = 11  # gRPC's clients make RESOURCE_EXHAUSTED of it

Frame = tuple[int, int, int, int, int]  # (kind, flags, stream, bytes of payload, where in the data)


class FrameReader:
    """Finds the frames in bytes that come in pieces."""

    def __init__(self, skip: int = 0) -> None:
        """Begin with a frame after ``skip`` bytes."""
        self._skip = skip  # bytes until the next frame begins
        self._head = b""  # of a frame that has begun, while it is not whole

    @property
    def between_frames(self) -> bool:
        """Whether the last frame has ended, and no other has begun."""
        return not self._skip and not self._head

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames whose heads end in the data, to the last: else the place is lost.

        A frame that began in the data before is said to begin at a negative place.
        """
        offset = -len(self._head)
        data, self._head = self._head + data, b""
        position, size = self._skip, len(data)
        while position + HEAD_BYTES <= size:
            length = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
            stream = int.from_bytes(data[position + 5 : position + 9], "big") & 0x7FFFFFFF
            yield data[position + 3], data[position + 4], stream, length, position + offset
            position += HEAD_BYTES + length
        self._skip = max(0, position - size)
        self._head = data[position:]


def reset(stream: int) -> bytes:
    """Return the frame that ends a stream."""
    code = ENHANCE_YOUR_CALM.to_bytes(4, "big")
    return b"\0\0\4" + bytes([RST_STREAM, 0]) + stream.to_bytes(4, "big") + code
