"""One user's calls leave room for the others', and all users' for the administrators'."""

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad.door import limits
from llamad.door.call_limits import CallLimits
from llamad.door.caller import Caller, Credentials
from llamad.errors import LlamadError
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous

ALICE, BOB, CAROL = (Credentials(uid=uid, gids=frozenset({uid})) for uid in (54321, 54322, 54323))
ROOT = Credentials(uid=0, gids=frozenset({0}))


@asynchronous
async def test_a_user_with_too_many_calls_is_refused_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CALLS_OF_A_USER", 2)
    monkeypatch.setattr(limits, "CALLS_OF_ALL_USERS", 3)
    who = [ALICE]

    def credentials(connection: socket.socket) -> Credentials:
        return who[0]

    async with serving(credentials=credentials) as service:
        entered = service.bench.pause_step(0)
        async with service.stub() as alice:
            calls = [alice.Generate(pb.GenerateRequest(prompt="p")) for _ in range(2)]
            jobs = [(await call.read()).queued.job_id for call in calls]
            await entered.wait()
            code, message, metadata = await error_of_call(alice.ListJobs(pb.ListJobsRequest()))
            assert (code, metadata["llamad-reason"], metadata["llamad-retry-after"]) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_CALLS",
                "1",
            )
            assert message == "user 54321 has 2 calls running already, no more are allowed"
            who[0] = BOB
            async with service.stub() as bob:
                watch = bob.WatchJob(pb.WatchJobRequest(id=jobs[0]))
                await watch.read()
                who[0] = CAROL
                async with service.stub() as carol:
                    _, message, _ = await error_of_call(carol.ListJobs(pb.ListJobsRequest()))
                    assert message.startswith("all users have 3 calls running already")
                who[0] = ROOT
                async with service.stub() as root:
                    for job in jobs:
                        await root.CancelJob(pb.CancelJobRequest(id=job))
                for call in (*calls, watch):
                    await end_of(call)
                await bob.ListJobs(pb.ListJobsRequest())
            await alice.ListJobs(pb.ListJobsRequest())


async def end_of(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def test_calls_that_fail_or_are_cancelled_count_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CALLS_OF_A_USER", 1)
    calls, caller = CallLimits(), Caller(uid=54321, is_admin=False)
    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error), calls.running(caller):
            raise error
    with calls.running(caller):
        pass


@asynchronous
async def test_requests_of_a_user_arrive_one_after_the_other_and_others_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RECEIVING_OF_A_USER", 1)
    calls = CallLimits()
    alice, root = Caller(uid=54321, is_admin=False), Caller(uid=0, is_admin=True)
    async with calls.receiving(alice):
        monkeypatch.setattr(limits, "RECEIVE_SECONDS", 0)
        with pytest.raises(LlamadError) as caught:
            await calls.receiving(alice).__aenter__()
        assert (caught.value.reason, caught.value.message) == (
            "TOO_MANY_CALLS",
            "user 54321 has 1 requests on their way, none ended in 0 seconds, no more are allowed",
        )
        monkeypatch.setattr(limits, "RECEIVE_SECONDS", 60)
        async with calls.receiving(root):
            waiting = asyncio.create_task(calls.receiving(alice).__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
    await waiting
