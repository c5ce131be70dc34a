"""Peers that behave badly below the level of calls: the service goes on serving the others.

Frames are written by hand (RFC 9113), because no client library sends what is tested here.
"""

import asyncio
import contextlib
import struct

import grpc

from llamad.door.limits import MESSAGE_BYTES
from llamad.schedule.admission import LEFT_TO_OTHERS
from llamad.schedule.limits import Limits
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import Service, error_of_call, serving
from unit.schedule.fakes import asynchronous

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
END_HEADERS = 4
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that is neither indexed nor compressed (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


GENERATE = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/llamad.v1.Llamad/Generate"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)


async def still_serves(service: Service) -> bool:
    async with service.stub() as stub:
        version = await stub.GetVersion(pb.GetVersionRequest())
    return bool(version.api_version == "v1")


async def talk(service: Service, *frames: bytes) -> bytes:
    """Send frames on a connection of their own; return what comes back until it is closed."""
    reader, writer = await asyncio.open_unix_connection(service.path)
    with contextlib.suppress(ConnectionError):
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames))
        await writer.drain()
    received = b""
    with contextlib.suppress(ConnectionError):  # behind what came before it
        while piece := await reader.read(1 << 16):
            received += piece
    writer.close()
    return received


@asynchronous
async def test_a_ping_flood_ends_its_connection_only() -> None:
    async with serving() as service:
        pings = [frame(PING, 0, 0, bytes(8)) for _ in range(1000)]
        received = await talk(service, *pings)
        assert b"too_many_pings" in received
        assert await still_serves(service)


@asynchronous
async def test_streams_opened_and_reset_at_once_leave_no_jobs() -> None:
    async with serving() as service:
        streams = range(1, 4001, 2)
        frames = [
            frame(HEADERS, END_HEADERS, stream, GENERATE)
            + frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
            for stream in streams
        ]
        end = frame(GOAWAY, 0, 0, bytes(8))
        writing = asyncio.create_task(talk(service, *frames, end))
        assert await still_serves(service)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await still_serves(service)
        assert service.bench.book.list(include_ended=True) == []


@asynchronous
async def test_bytes_that_are_no_http2_end_their_connection_only() -> None:
    async with serving() as service:
        reader, writer = await asyncio.open_unix_connection(service.path)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        assert await still_serves(service)


@asynchronous
async def test_a_message_beyond_the_limit_is_refused() -> None:
    async with serving() as service, service.stub() as stub:
        request = pb.GenerateRequest(prompt="x" * (MESSAGE_BYTES + 1))
        code, _, _ = await error_of_call(stub.Generate(request))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await still_serves(service)


@asynchronous
async def test_a_thousand_requests_on_many_connections_are_all_answered_or_refused() -> None:
    async with serving(limits=Limits(queue_capacity=8)) as service:
        service.bench.pause_step(0)

        request = pb.GenerateRequest(prompt="p")
        async with contextlib.AsyncExitStack() as stack:
            stubs = [await stack.enter_async_context(service.stub()) for _ in range(10)]
            calls = [stub.Generate(request) for stub in stubs for _ in range(100)]
            answers = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
            for call in calls:
                call.cancel()
        refused = [a.code() for a in answers if isinstance(a, grpc.aio.AioRpcError)]
        n_running = service.bench.model.n_sequences  # of them, 1 or more got into the held step
        most = 8 - 8 // LEFT_TO_OTHERS  # they are all of one owner
        assert most < 1000 - len(refused) <= most + n_running
        assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await still_serves(service)
