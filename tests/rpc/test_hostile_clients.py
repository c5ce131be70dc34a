"""Floods, bombs and clients that read nothing: bounded memory, and others are served meanwhile."""

import asyncio
import contextlib
import gzip
import struct
import zlib
from collections.abc import AsyncIterator

import pytest

from llamad.door import limits
from rpc.http2_frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    call_headers,
    frame,
    literal,
    message,
    setting,
)
from rpc.service_process import (
    MOST_GROWTH_BYTES,
    ServiceProcess,
    serves,
    serves_user,
    service_process,
)
from unit.schedule.fakes import asynchronous

ATTACKER, OTHER = 54321, 54322
MOST_TEXT_BYTES = 64 << 20  # one text of a million tokens in work, and one that waits
N_CONNECTIONS = 32
N_CALLS = 3  # of others, which have to be answered while an attack goes on
# A tenth of the service's own pace, at which its calls cost it an eighth of a processor: on a busy
# machine it may get less, and those that wait in gRPC for their turn grow, 40 KB each.
CALLS_A_SECOND = limits.CALLS_A_SECOND / 10
GENERATE = "/llamad.v1.Llamad/Generate"
OPEN = frame(HEADERS, END_HEADERS, 1, call_headers(GENERATE))
UNKNOWN = 0x77  # a kind of frame that does not exist

# What is sent again and again, by name; the client reads nothing.
FLOODS = {
    "pings": frame(PING, 0, 0, bytes(8)) * 1000,
    "settings": frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 65535)) * 1000,
    "window updates": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 1000,
    "priorities": frame(PRIORITY, 0, 1, bytes(5)) * 1000,
    "unknown frames": frame(UNKNOWN, 0, 0) * 1000,
    "large unknown frames": frame(UNKNOWN, 0, 0, bytes(16384)) * 10,
    "empty data": OPEN + frame(DATA, 0, 1) * 1000,
    "empty continuations": frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1) * 1000,
    "many headers": frame(HEADERS, 0, 1, call_headers(GENERATE))
    + frame(CONTINUATION, 0, 1, literal(b"x", bytes(16000))) * 100,
    "a header without an end": frame(HEADERS, 0, 1, b"\x00\x01x\x7f\x80\x80\x80\x08")
    + frame(CONTINUATION, 0, 1, bytes(16384)) * 100,
    "no HTTP/2": b"GET / HTTP/1.1\r\n\r\n" * 1000,
}


@contextlib.asynccontextmanager
async def attacked(
    most_bytes: int = MOST_GROWTH_BYTES,
) -> AsyncIterator[tuple[ServiceProcess, contextlib.AsyncExitStack]]:
    """Run a service; at the end, check that others are served and what it all has cost."""
    async with (
        service_process(CALLS_A_SECOND=CALLS_A_SECOND) as service,
        service.stub() as stub,
    ):
        await serves(stub)
        before = service.peak_bytes()
        async with contextlib.AsyncExitStack() as stack:
            yield service, stack
            for _ in range(N_CALLS):
                await serves(stub)
                await serves_user(service.path, OTHER)
        await serves(stub)
        assert service.peak_bytes() - before < most_bytes


async def connected(
    service: ServiceProcess, stack: contextlib.AsyncExitStack, n: int, *settings: bytes
) -> list[RawClient]:
    """Return clients of the attacker's."""
    return [
        await stack.enter_async_context(RawClient(service.path, ATTACKER, *settings))
        for _ in range(n)
    ]


def in_background(stack: contextlib.AsyncExitStack, *tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks when the attack is over."""

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stack.push_async_callback(end)


async def flood(client: RawClient, data: bytes) -> None:
    """Send until the connection ends."""
    while not client.ended.is_set():
        await client.send(data)
        await asyncio.sleep(0)  # for the others' turn: a send need not wait


async def reset_rapidly(client: RawClient) -> None:
    """Open streams and reset them at once."""
    while True:
        stream = client.new_stream()
        opened = frame(HEADERS, END_HEADERS, stream, call_headers(GENERATE))
        if not await client.send(opened, frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))):
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_on_many_connections(name: str) -> None:
    @asynchronous
    async def body() -> None:
        async with attacked() as (service, stack):
            clients = await connected(service, stack, N_CONNECTIONS)
            tasks = [asyncio.create_task(flood(client, FLOODS[name])) for client in clients]
            in_background(stack, *tasks)

    body()


@pytest.mark.parametrize("reads", [True, False])
def test_streams_that_are_reset_at_once(reads: bool) -> None:
    @asynchronous
    async def body() -> None:
        async with attacked() as (service, stack):
            clients = await connected(service, stack, N_CONNECTIONS)
            for client in clients if reads else ():
                client.read()
            tasks = [asyncio.create_task(reset_rapidly(client)) for client in clients]
            in_background(stack, *tasks)

    body()


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_more_connections_than_there_may_be(n_bytes: int) -> None:
    @asynchronous
    async def body() -> None:
        async with attacked() as (service, stack):
            for client in await connected(service, stack, 1100):
                await client.send(bytes(n_bytes))

    body()


@asynchronous
async def test_connections_that_come_and_go() -> None:
    async with attacked() as (service, _):
        for _ in range(1500):
            async with RawClient(service.path, ATTACKER) as client:
                await client.send(OPEN)


@asynchronous
async def test_with_few_descriptors_there_are_fewer_connections_and_others_are_served() -> None:
    async with service_process(max_descriptors=160) as service, service.stub() as stub:
        await serves(stub)
        async with contextlib.AsyncExitStack() as stack:
            await connected(service, stack, 100)
            await serves(stub)
            await serves_user(service.path, OTHER)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_message_is_refused_unexpanded(algorithm: str) -> None:
    @asynchronous
    async def body() -> None:
        plain = bytes(64 << 20)
        packed = gzip.compress(plain) if algorithm == "gzip" else zlib.compress(plain)
        async with attacked() as (service, stack):
            [client] = await connected(service, stack, 1)
            client.read()
            for _ in range(16):
                stream = await client.open(GENERATE, (b"grpc-encoding", algorithm.encode()))
                await client.send_data(stream, message(packed, compressed=True), end=True)
                assert await client.status(stream) == "12"  # UNIMPLEMENTED

    body()


# ---- clients that read nothing -------------------------------------------------------------------


def text_field(number: int, text: bytes) -> bytes:
    """Return a field of a message, with a length of three bytes."""
    size = len(text)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    return bytes([number << 3 | 2]) + length + text


REQUESTS = {
    GENERATE: text_field(1, b"a" * 100),
    "/llamad.v1.Llamad/Chat": text_field(1, text_field(1, b"user") + text_field(2, b"a" * 100)),
    "/llamad.v1.Llamad/Embed": text_field(1, b"a" * 100),
    "/llamad.v1.Llamad/Tokenize": text_field(1, b"a" * (1 << 20)),
    "/llamad.v1.Llamad/Detokenize": text_field(1, b"a" * (1 << 20)),
    "/llamad.v1.Llamad/ListJobs": b"",
    "/llamad.v1.Llamad/GetStatus": b"",
    "/llamad.v1.Llamad/GetMetrics": b"",
    "/llamad.v1.Llamad/GetModel": b"",
    "/llamad.v1.Llamad/ListPrefixes": b"",
    "/llamad.v1.Llamad/SubmitJob": text_field(1, text_field(1, b"a" * 100)),
    "/llamad.v1.Llamad/WatchJob": text_field(1, b"no-such-job"),
    "/llamad.v1.Llamad/ResumeJob": text_field(1, b"no-such-job"),
    "/llamad.v1.Admin/ListModels": b"",
    "/llamad.v1.Admin/AddModel": b"",
    "/llamad.v1.Admin/AddPrefix": text_field(1, b"no-such-prefix"),
    "/grpc.health.v1.Health/Watch": b"",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": b"\x3a\x00",
    "/no.such.Service/Method": b"",
}


async def ask_for_ever(client: RawClient, method: str) -> None:
    """Make calls as fast as they can be sent."""
    data = message(REQUESTS[method])
    pieces = [data[i : i + 16384] for i in range(0, len(data), 16384)]
    while True:
        stream = client.new_stream()
        frames = [frame(HEADERS, END_HEADERS, stream, call_headers(method))]
        frames += [frame(DATA, 0, stream, piece) for piece in pieces[:-1]]
        if not await client.send(*frames, frame(DATA, END_STREAM, stream, pieces[-1])):
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("method", REQUESTS)
def test_a_client_that_asks_and_never_reads(method: str) -> None:
    @asynchronous
    async def body() -> None:
        async with attacked() as (service, stack):
            clients = await connected(service, stack, N_CONNECTIONS)
            in_background(
                stack, *(asyncio.create_task(ask_for_ever(client, method)) for client in clients)
            )

    body()


@pytest.mark.parametrize("method", ["/llamad.v1.Llamad/Tokenize", "/llamad.v1.Llamad/Detokenize"])
def test_a_million_tokens_on_every_stream(method: str) -> None:
    @asynchronous
    async def body() -> None:
        async with attacked(MOST_TEXT_BYTES) as (service, stack):
            clients = await connected(service, stack, 4)
            tasks = []
            for client in clients:
                client.read()
                for _ in range(8):
                    stream = await client.open(method)
                    data = message(REQUESTS[method])
                    sending = client.send_data(stream, data, end=True)
                    tasks.append(asyncio.ensure_future(sending))
            in_background(stack, *tasks)  # type: ignore[arg-type]

    body()


@asynchronous
async def test_clients_that_half_close_in_the_middle_of_a_request_are_forgotten() -> None:
    async with attacked() as (service, stack):
        before = service.descriptors()
        clients = await connected(service, stack, N_CONNECTIONS)
        for client in clients:
            client.read()
            await client.open(GENERATE)
            client.half_close()
        await asyncio.gather(*(client.ended.wait() for client in clients))
        assert service.descriptors() < before + N_CONNECTIONS  # each had three
