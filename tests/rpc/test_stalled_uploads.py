"""Requests that never become whole: they cost little, end by themselves, and others are served."""

import asyncio
import contextlib

import grpc
import pytest

from llamad.door import limits
from rpc.http2_frames import RawClient, message
from rpc.service_process import MOST_GROWTH_BYTES, serves, serves_client, service_process
from rpc.serving import error_of_call, serving
from rpc.test_rights import ALICE, always
from unit.schedule.fakes import asynchronous

GENERATE = "/llamad.v1.Llamad/Generate"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ATTACKER, OTHER = 54321, 54322
N_CALLS = 512
RECEIVE_SECONDS = 5.0  # shorter than in the service, for the test to end


async def stall(client: RawClient, method: str, whole: bytes) -> None:
    """Make a call whose message lacks its last byte; return when the service has ended it."""
    stream = await client.open(method)
    await client.send_data(stream, whole[:-1])
    await client.status(stream)


@pytest.mark.parametrize(
    ("method", "n_connections"), [(GENERATE, 1), (GENERATE, 8), (GENERATE, 128), (REFLECTION, 8)]
)
def test_512_stalled_calls_of_a_user_cost_little_and_others_are_served(
    method: str, n_connections: int
) -> None:
    @asynchronous
    async def body() -> None:
        async with (
            service_process(
                RECEIVE_SECONDS=RECEIVE_SECONDS, MESSAGE_SECONDS=RECEIVE_SECONDS
            ) as service,
            service.stub() as stub,
            contextlib.AsyncExitStack() as stack,
        ):
            await serves(stub)
            before = service.peak_bytes()
            clients = [RawClient(service.path, ATTACKER) for _ in range(n_connections)]
            for client in clients:
                await stack.enter_async_context(client)
                client.read()
            whole = message(bytes(limits.MESSAGE_BYTES - 5))
            stalled = asyncio.gather(
                *(stall(clients[i % n_connections], method, whole) for i in range(N_CALLS))
            )
            other = await stack.enter_async_context(RawClient(service.path, OTHER))
            other.read()
            n_served = 0
            while not stalled.done() or not n_served:
                await serves(stub)
                await serves_client(other)
                n_served += 1
            await stalled
            assert service.peak_bytes() - before < MOST_GROWTH_BYTES

    body()


@asynchronous
async def test_a_message_larger_than_any_is_not_kept_whatever_length_it_announces() -> None:
    async with service_process() as service, service.stub() as stub:
        await serves(stub)
        before = service.peak_bytes()
        async with RawClient(service.path, ATTACKER) as client:
            client.read()
            whole = message(bytes(64 << 20), announced=1 << 31)
            streams = [await client.open(GENERATE) for _ in range(4)]
            sent = await asyncio.gather(*(client.send_data(stream, whole) for stream in streams))
            assert all(client.has_ended(stream) for stream in streams)
        assert max(sent) < 2 * limits.MESSAGE_BYTES
        await serves(stub)
        assert service.peak_bytes() - before < MOST_GROWTH_BYTES


@asynchronous
async def test_a_request_that_does_not_arrive_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RECEIVE_SECONDS", 0.01)
    monkeypatch.setattr(limits, "MESSAGE_SECONDS", 0.01)
    async with serving() as service, service.channel() as channel:
        for method in (GENERATE, "/llamad.v1.Llamad/ListJobs", REFLECTION):
            call = channel.stream_stream(method)()
            code, text, metadata = await error_of_call(call)
            assert (code, metadata["llamad-reason"]) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "REQUEST_NOT_RECEIVED",
            )
            assert text == "the request did not arrive within 0.01 seconds"


@asynchronous
async def test_a_request_larger_than_its_method_needs_is_refused_by_both_sizes() -> None:
    unknown = b"\x7a\x80\x80\x02" + bytes(32 << 10)  # field 15, which no request has
    async with serving() as service, service.channel() as channel:
        code, text, metadata = await error_of_call(
            channel.unary_unary("/llamad.v1.Llamad/ListJobs")(unknown)
        )
    assert (code, metadata["llamad-reason"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_TOO_LARGE",
    )
    assert text == "the request has 32772 bytes, at most 16384 for this method"


@asynchronous
async def test_a_call_without_a_request_is_refused() -> None:
    async with serving() as service, service.channel() as channel:
        call = channel.stream_stream("/llamad.v1.Llamad/ListJobs")(iter([]))
        code, text, _ = await error_of_call(call)
    assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "the client sent no request")


@asynchronous
async def test_a_user_has_few_streams_of_requests_and_an_administrator_any_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UPLOADS_OF_A_USER", 1)
    async with serving(credentials=always(ALICE)) as service, service.channel() as channel:
        first = channel.stream_stream(REFLECTION)()
        await first.write(b"\x3a\x00")  # list_services
        await first.read()
        code, text, _ = await error_of_call(channel.stream_stream(REFLECTION)())
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == "user 54321 has 1 uploads running already, no more are allowed"
        first.cancel()
    async with serving() as service, service.channel() as channel:
        for _ in range(2):
            call = channel.stream_stream(REFLECTION)()
            await call.write(b"\x3a\x00")
            assert await call.read()
