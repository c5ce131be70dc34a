"""Generate and Chat end to end: events in order, the client leaving, many clients."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad.jobs.record import JobSnapshot, JobState
from llamad.schedule.limits import Limits
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import Service, error_of_call, serving
from unit.schedule.fakes import asynchronous, saying


async def events(call: Any) -> list[tuple[str, Any]]:
    """Return the events still to come, each with its name."""
    result = []
    while (message := await call.read()) is not grpc.aio.EOF:
        name = message.WhichOneof("event")
        result.append((name, getattr(message, name)))
    return result


async def wait_until_idle(service: Service) -> None:
    """Return once no job is left; the events of the scheduler, not time, are waited for."""
    for job in service.bench.book.list():
        async for _ in service.bench.book.watch(job.id):
            pass


@asynchronous
async def test_generate_streams_queued_text_and_finished() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("grüß dich")
        request = pb.GenerateRequest(
            prompt="hi", options=pb.Options(sampling=pb.Sampling(seed=5), stop=["never"])
        )
        received = await events(stub.Generate(request))
    assert received[0][0] == "queued"
    assert received[0][1].prompt_tokens == 2
    text = "".join(e.text for name, e in received if name == "delta")
    assert text == "grüß dich"
    name, finished = received[-1]
    assert name == "finished"
    assert isinstance(finished, pb.Finished)
    assert finished.reason == pb.FINISH_REASON_STOP
    assert (finished.seed, finished.model) == (5, "fake")
    assert finished.usage.prompt_tokens == 2
    assert finished.timings.load_seconds == 1.5


@asynchronous
async def test_chat_renders_the_template() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("ok")
        messages = [pb.Message(role="system", content="s"), pb.Message(role="user", content="u")]
        received = await events(stub.Chat(pb.ChatRequest(messages=messages)))
    assert received[0][1].prompt_tokens == len("system:s|user:u|")
    assert received[-1][0] == "finished"


@asynchronous
async def test_a_stop_string_is_reported_and_not_part_of_the_text() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("one END two")
        request = pb.GenerateRequest(prompt="p", options=pb.Options(stop=["END"]))
        received = await events(stub.Generate(request))
    text = "".join(e.text for name, e in received if name == "delta")
    assert text == "one "
    assert received[-1][1].reason == pb.FINISH_REASON_STOP_STRING
    assert received[-1][1].stop_string == "END"


@asynchronous
async def test_a_client_that_cancels_frees_its_job_and_the_next_request_runs() -> None:
    async with serving() as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        call = stub.Generate(pb.GenerateRequest(prompt="first"))
        await call.read()
        await entered.wait()
        [job] = service.bench.book.list()
        call.cancel()
        async for snapshot in service.bench.book.watch(job.id):
            last = snapshot
        assert last.state is JobState.CANCELLED
        service.bench.engine.rule = saying("next")
        received = await events(stub.Generate(pb.GenerateRequest(prompt="second")))
    assert received[-1][1].reason == pb.FINISH_REASON_STOP


@asynchronous
async def test_a_passed_grpc_deadline_cancels_the_job() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.before_step = service.bench.engine.wait_for_cancel
        seconds = 0.5
        jobs: list[JobSnapshot] = []
        while not jobs:  # it may pass before the service has heard of the call
            call = stub.Generate(pb.GenerateRequest(prompt="p"), timeout=seconds)
            code, _, _ = await error_of_call(call)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            await wait_until_idle(service)
            jobs = service.bench.book.list(include_ended=True)
            seconds *= 2
    assert {job.state for job in jobs} == {JobState.CANCELLED}


@asynchronous
async def test_a_flood_beyond_the_queue_is_refused_with_a_retry_hint() -> None:
    async with serving(limits=Limits(queue_capacity=2), n_sequences=1) as service:
        service.bench.pause_step(0)
        async with service.stub() as stub:
            first = stub.Generate(pb.GenerateRequest(prompt="running"))
            await first.read()
            calls = [stub.Generate(pb.GenerateRequest(prompt="p")) for _ in range(20)]
            outcomes = await asyncio.gather(
                *(call.read() for call in calls), return_exceptions=True
            )
            refused = [o for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
            assert len(refused) >= 18
            for error in refused:
                metadata = dict(iter(error.trailing_metadata()))
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert metadata["llamad-reason"] == "QUEUE_FULL"
                assert float(metadata["llamad-retry-after"]) > 0


@asynchronous
async def test_32_clients_at_once_each_get_what_they_get_alone() -> None:
    async def ask(stub: Any, number: int) -> str:
        request = pb.GenerateRequest(
            prompt=f"prompt {number}",
            options=pb.Options(max_tokens=20, sampling=pb.Sampling(seed=number)),
        )
        received = await events(stub.Generate(request))
        return "".join(e.text for n, e in received if n == "delta")

    async with serving() as service, service.stub() as stub:
        together = await asyncio.gather(*(ask(stub, i) for i in range(32)))
        alone = [await ask(stub, i) for i in range(32)]
    assert list(together) == alone
    assert all(len(text) == 20 for text in together)


@asynchronous
async def test_a_job_cancelled_by_another_client_ends_with_a_finished_event() -> None:
    async with serving() as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        call = stub.Generate(pb.GenerateRequest(prompt="p"))
        queued = await call.read()
        await entered.wait()
        reply = await stub.CancelJob(pb.CancelJobRequest(id=queued.queued.job_id))
        assert reply.job.state == pb.JOB_STATE_CANCELLED
        received = await events(call)
    assert received[-1][1].reason == pb.FINISH_REASON_CANCELLED


@asynchronous
async def test_a_client_that_never_reads_is_cut_off_with_a_reason() -> None:
    # The engine never ends; what fills up are gRPC's windows and then the job's stream.
    limits = Limits(stream_buffer_bytes=1 << 16)
    async with serving(limits=limits, n_ctx=1 << 20, kv_blocks_total=1 << 16) as service:
        service.bench.engine.rule = lambda history, seed, draw: 33 + draw % 94  # no loop of 64
        tokenizer = service.bench.model.tokenizer
        tokenizer.piece = lambda token, special=False: bytes([token]) * (1 << 15)  # type: ignore[method-assign]
        async with service.stub() as stub:
            call = stub.Generate(pb.GenerateRequest(prompt="p"))
            queued = await call.read()
            async for snapshot in service.bench.book.watch(queued.queued.job_id):
                last = snapshot
            assert last.error_reason == "SLOW_CLIENT"
            code, _, metadata = await error_of_call(call)
    assert code is grpc.StatusCode.CANCELLED
    assert metadata["llamad-reason"] == "SLOW_CLIENT"


@asynchronous
async def test_an_authority_of_any_kind_is_accepted() -> None:
    from llamad_api.v1 import llamad_pb2_grpc

    async with serving() as service:
        for authority in ("localhost", "llamad", "%2Frun%2Fllamad.sock", "[::1]:443"):
            options = [("grpc.default_authority", authority)]
            target = f"unix:{service.path}"
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                stub = llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]
                assert (await stub.GetVersion(pb.GetVersionRequest())).api_version == "v1"


@pytest.mark.parametrize("method", ["Generate", "Chat", "ResumeJob"])
def test_streams_hold_the_same_events(method: str) -> None:
    response = getattr(pb, f"{method}Response").DESCRIPTOR
    fields = [(f.name, f.number) for f in response.oneofs_by_name["event"].fields]
    shared = [("queued", 1), ("prefill", 2), ("delta", 3), ("finished", 4)]
    chats = [("thinking", 5), ("tool_call", 6)]
    assert fields == shared + (chats if method != "Generate" else [])
