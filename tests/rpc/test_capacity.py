"""A service with little memory serves fewer callers and takes shorter texts; it says so."""

import asyncio
import contextlib

import grpc

from llamad.config import Config, ModelConfig
from llamad.daemon import rules_of
from llamad.door.capacity import MOST_HALVINGS, Capacity, capacity_for
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from rpc.test_rights import ALICE, always
from unit.schedule.fakes import asynchronous

LEAST = Capacity(MOST_HALVINGS)


@asynchronous
async def test_a_user_has_fewer_connections_and_calls() -> None:
    async with (
        serving(credentials=always(ALICE), capacity=LEAST) as service,
        contextlib.AsyncExitStack() as stack,
    ):
        entered = service.bench.pause_step(0)
        stub = await stack.enter_async_context(service.stub())
        calls = [
            stub.Generate(pb.GenerateRequest(prompt="p")) for _ in range(LEAST.calls_of_a_user)
        ]
        await asyncio.gather(*(call.read() for call in calls))
        await entered.wait()
        _, message, _ = await error_of_call(stub.ListJobs(pb.ListJobsRequest()))
        assert message == "user 54321 has 16 calls running already, no more are allowed"
        for call in calls:
            call.cancel()

        most = LEAST.connections_of_a_user - 1  # beside the stub's
        streams = [await asyncio.open_unix_connection(service.path) for _ in range(most + 1)]
        assert await streams[-1][0].read() == b""  # closed at once
        assert await streams[0][0].read(1)
        for _, writer in streams:
            writer.close()


@asynchronous
async def test_a_longer_text_is_refused_by_both_sizes() -> None:
    config = Config(model=ModelConfig(memory_budget=100 << 20))
    assert capacity_for(config.model.memory_budget) == LEAST
    async with (
        serving(credentials=always(ALICE), capacity=LEAST, rules=rules_of(config)) as service,
        service.stub() as stub,
    ):
        text = "x" * (LEAST.text_bytes + 1)
        for call in (
            stub.Generate(pb.GenerateRequest(prompt=text)),
            stub.Tokenize(pb.TokenizeRequest(text=text)),
        ):
            code, message, _ = await error_of_call(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "has 65537 bytes, at most 65536" in message
        whole = pb.TokenizeRequest(text="x" * LEAST.message_bytes)
        code, _, _ = await error_of_call(stub.Tokenize(whole))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        longer = pb.TokenizeRequest(text="x" * (2 * LEAST.message_bytes))
        code, _, _ = await error_of_call(stub.Tokenize(longer))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.Tokenize(pb.TokenizeRequest(text="x"))
