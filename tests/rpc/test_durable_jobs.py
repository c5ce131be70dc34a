"""SubmitJob and ResumeJob end to end: keys, owners, models that come and go, restarts."""

import asyncio
import os
import shutil
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad.door.caller import Credentials
from llamad.jobs.record import JobState
from llamad_api.v1 import llamad_pb2 as pb
from rpc.many_models import ManyModels, reason_of, status_of, switching, unload, use
from rpc.serving import Service, error_of_call, serving
from rpc.test_generate import wait_until_idle
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous, saying

ANSWER = "An answer."  # of the models that come and go
TEXT = "One answer, ünïcode and all."
ALICE, BOB = Credentials(54321, frozenset()), Credentials(54322, frozenset())


def submit(stub: Any, prompt: str = "p", key: str = "", **options: Any) -> Any:
    generate = pb.GenerateRequest(prompt=prompt, options=pb.Options(**options))
    return stub.SubmitJob(pb.SubmitJobRequest(generate=generate, idempotency_key=key))


async def resumed(
    stub: Any, job_id: str, from_token: int = 0, no_wait: bool = False
) -> tuple[str, pb.Finished | None]:
    """Return the text of a job from a token on, and its last event if it came."""
    request = pb.ResumeJobRequest(id=job_id, from_token=from_token, no_wait=no_wait)
    text, finished = "", None
    async for message in stub.ResumeJob(request):
        assert finished is None
        text += message.delta.text
        finished = message.finished if message.HasField("finished") else None
    return text, finished


async def saved(service: Service) -> None:
    """Store what has changed, as the service does each second."""
    await wait_until_idle(service)
    assert await service.jobs._save()


# ---- reading -------------------------------------------------------------------------------------


@asynchronous
async def test_a_submitted_job_is_read_from_any_token_by_any_number_stored_or_not() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        job = (await submit(stub)).job
        assert (job.durable, job.submitted_at > 1e9) == (True, True)
        both = await asyncio.gather(resumed(stub, job.id), resumed(stub, job.id, 4))
        assert [text for text, _ in both] == [TEXT, TEXT[4:]]
        assert all(finished is not None for _, finished in both)
        await saved(service)
        assert (await stub.GetStatus(pb.GetStatusRequest())).jobs_stored == 0
        assert not service.jobs._entries
        for n in (0, 4, 99):
            text, finished = await resumed(stub, job.id, n)
            assert text == TEXT[n:]
            assert finished == both[0][1]
        assert finished is not None
        assert finished.usage.completion_tokens == len(TEXT.encode()) + 1


@asynchronous
async def test_no_wait_ends_behind_what_is_there() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        service.bench.pause_step(5)
        job = (await submit(stub)).job
        async for message in stub.WatchJob(pb.WatchJobRequest(id=job.id)):
            if message.job.completion_tokens == 5:
                break
        assert (await stub.GetStatus(pb.GetStatusRequest())).jobs_stored == 1
        assert await resumed(stub, job.id, no_wait=True) == (TEXT[:5], None)
        await stub.CancelJob(pb.CancelJobRequest(id=job.id))
        text, finished = await resumed(stub, job.id, 3)
        assert text == TEXT[3:5]
        assert finished is not None
        assert finished.reason == pb.FINISH_REASON_CANCELLED
        await saved(service)
        assert await resumed(stub, job.id, 3) == (TEXT[3:5], finished)


@asynchronous
async def test_what_was_neither_submitted_nor_resumable_has_no_text() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("x")
        messages = [m async for m in stub.Generate(pb.GenerateRequest(prompt="p"))]
        call = stub.ResumeJob(pb.ResumeJobRequest(id=messages[0].queued.job_id))
        assert await reason_of(call) == "NOT_RESUMABLE"
        assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest(id="j0"))) == "JOB_NOT_FOUND"
        assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest())) == "INVALID_ID"
        path = service.directory.path / "jobs.sqlite"
        assert messages[0].queued.job_id.encode() not in path.read_bytes()


@asynchronous
async def test_only_the_owner_and_administrators_read_and_cancel() -> None:
    who = [ALICE]
    async with serving(credentials=lambda connection: who[0]) as service:
        service.bench.engine.rule = saying(TEXT)
        async with service.stub() as stub:
            job = (await submit(stub, key="k")).job
            await saved(service)
        who[0] = BOB
        service.bench.book._ended.clear()  # it is only stored
        async with service.stub() as stub:
            assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest(id=job.id))) == "NOT_OWNER"
            assert await reason_of(stub.CancelJob(pb.CancelJobRequest(id=job.id))) == "NOT_OWNER"
            assert not (await submit(stub, key="k")).existing  # keys are each user's own
        who[0] = Credentials(0, frozenset({0}))
        async with service.stub() as stub:
            assert (await resumed(stub, job.id))[0] == TEXT
            listed = await stub.ListJobs(pb.ListJobsRequest(include_ended=True))
            assert [one.owner_uid for one in listed.jobs] == [ALICE.uid, BOB.uid]
            assert (await stub.GetJob(pb.GetJobRequest(id=job.id))).job.id == listed.jobs[0].id
            ended = (await stub.CancelJob(pb.CancelJobRequest(id=job.id))).job
            assert ended.state == pb.JOB_STATE_FINISHED


# ---- keys ----------------------------------------------------------------------------------------


@asynchronous
async def test_a_key_names_one_job() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        answers = await asyncio.gather(*(submit(stub, key="k") for _ in range(5)))
        assert len({answer.job.id for answer in answers}) == 1
        assert sorted(answer.existing for answer in answers) == [False, True, True, True, True]
        await saved(service)
        again = await submit(stub, key="k")
        assert (again.existing, again.job.state) == (True, pb.JOB_STATE_FINISHED)
        assert again.job.idempotency_key == "k"
        for other in (submit(stub, "q", key="k"), submit(stub, key="k", max_tokens=3)):
            code, message, metadata = await error_of_call(other)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert metadata["llamad-reason"] == "IDEMPOTENCY_KEY_REUSED"
            assert again.job.id in message
        assert len({(await submit(stub)).job.id for _ in range(2)}) == 2


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.SubmitJobRequest(), "INVALID_REQUEST"),
        (pb.SubmitJobRequest(generate=pb.GenerateRequest()), "INVALID_PROMPT"),
        (
            pb.SubmitJobRequest(generate=pb.GenerateRequest(prompt="p"), idempotency_key="ü" * 65),
            "INVALID_IDEMPOTENCY_KEY",
        ),
        (
            pb.SubmitJobRequest(
                generate=pb.GenerateRequest(prompt="p", options=pb.Options(resumable_seconds=1))
            ),
            "INVALID_RESUMABLE_SECONDS",
        ),
    ],
)
def test_a_wrong_field_is_named(request_: pb.SubmitJobRequest, reason: str) -> None:
    @asynchronous
    async def body() -> None:
        async with serving() as service, service.stub() as stub:
            assert await reason_of(stub.SubmitJob(request_)) == reason
            assert service.bench.book.list(include_ended=True) == []

    body()


# ---- when nothing can be stored ------------------------------------------------------------------


@asynchronous
async def test_without_a_state_directory_the_service_serves_and_says_why() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        await service.jobs.close()
        service.directory.close()
        shutil.rmtree(service.directory.path)
        service.directory.open()
        code, message, metadata = await error_of_call(submit(stub))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert (metadata["llamad-reason"], "does not exist" in message) == ("NOT_DURABLE", True)
        assert "does not exist" in (await stub.GetStatus(pb.GetStatusRequest())).durability
        messages = [m async for m in stub.Generate(pb.GenerateRequest(prompt="p"))]
        assert messages[-1].HasField("finished")


@asynchronous
async def test_a_job_that_cannot_be_stored_is_refused_and_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        store = service.jobs._store
        assert store is not None
        store._max_bytes = 0
        code, message, _ = await error_of_call(submit(stub))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "jobs.max_bytes" in message
        [job] = service.bench.book.list(include_ended=True)
        assert job.state is JobState.CANCELLED
        store._max_bytes = 1 << 20
        assert (await resumed(stub, (await submit(stub)).job.id))[0] == TEXT


# ---- models and restarts -------------------------------------------------------------------------


async def half_done(life: ManyModels, stub: Any, key: str = "") -> tuple[str, "asyncio.Task[None]"]:
    """Submit a job and hold its model in a step until the job is suspended; return its id.

    The task ends when it is.
    """
    count, held, go_on = iter(range(99)), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def pause() -> None:
        if next(count) == 7:
            loop.call_soon_threadsafe(held.set)
            assert go_on.wait(TIMEOUT_SECONDS)

    async def release() -> None:
        async for message in stub.WatchJob(pb.WatchJobRequest(id=job.id)):
            if message.job.state == pb.JOB_STATE_QUEUED:
                go_on.set()

    life.opened[-1].engine.before_step = pause
    job = (await submit(stub, key=key)).job
    await held.wait()
    return job.id, asyncio.create_task(release())


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@switching
async def test_a_job_waits_for_its_model_and_goes_on_with_the_text_it_would_have_had(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    life.folder.joinpath("state").mkdir()
    async with life.serving() as (stub, admin):
        job_id, releasing = await half_done(life, stub, key="k")
        reading = asyncio.create_task(resumed(stub, job_id))
        await use(admin, "two")
        job = (await stub.GetJob(pb.GetJobRequest(id=job_id))).job
        assert (job.state, job.model, job.completion_tokens) == (pb.JOB_STATE_QUEUED, "one", 7)
        assert await resumed(stub, job_id, no_wait=True) == (ANSWER[:7], None)
        await unload(admin)
        assert (await submit(stub, key="k")).existing
        assert await reason_of(submit(stub, key="other")) == "NO_MODEL"
        assert (await status_of(stub)).jobs_stored == 1
        await use(admin, "one")
        text, finished = await reading
        assert (text, finished is not None) == (ANSWER, True)
        await ended(releasing)


@switching
async def test_a_job_survives_a_restart(life: ManyModels) -> None:
    life.put("one", selected="one")
    life.folder.joinpath("state").mkdir()
    async with life.serving() as (stub, _):
        job_id, releasing = await half_done(life, stub)
        call = stub.ResumeJob(pb.ResumeJobRequest(id=job_id))
        reading = asyncio.create_task(reason_of(call))
    assert await reading == "SHUTTING_DOWN"
    await ended(releasing)
    life.told_to_stop.clear()
    async with life.serving() as (stub, _):
        job = (await stub.GetJob(pb.GetJobRequest(id=job_id))).job
        assert (job.durable, job.owner_uid) == (True, os.getuid())
        text, finished = await resumed(stub, job_id)
        assert (text, finished is not None) == (ANSWER, True)
        assert await resumed(stub, job_id, 5) == (ANSWER[5:], finished)


@switching
async def test_a_job_of_a_file_that_was_replaced_fails_and_says_so(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    life.folder.joinpath("state").mkdir()
    async with life.serving() as (stub, admin):
        job_id, releasing = await half_done(life, stub)
        await use(admin, "two")
        life.digests["one"] = "another"
        await use(admin, "one")
        job = (await stub.GetJob(pb.GetJobRequest(id=job_id))).job
        assert (job.state, job.error_reason) == (pb.JOB_STATE_FAILED, "MODEL_REPLACED")
        assert "submit it again" in job.error
        assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest(id=job_id))) == "MODEL_REPLACED"
        await ended(releasing)


async def left(service: Service, job_id: str) -> None:
    """Return once the service knows that nobody reads the job any more."""
    entry = service.jobs.resumable._entries[job_id]
    while entry.timer is None:  # noqa: ASYNC110 - what sets it has no event
        await asyncio.sleep(0)


# ---- resumable requests --------------------------------------------------------------------------


@asynchronous
async def test_a_resumable_request_goes_on_without_its_client_for_its_time() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        entered = service.bench.pause_step(6)
        call = stub.Generate(
            pb.GenerateRequest(prompt="p", options=pb.Options(resumable_seconds=5))
        )
        job_id = (await call.read()).queued.job_id
        await entered.wait()
        call.cancel()
        await left(service, job_id)
        service.bench.clock.advance(4.9)
        assert service.bench.book.get(job_id).state is JobState.DECODE
        reading = asyncio.create_task(resumed(stub, job_id, 3, no_wait=True))
        assert await reading == (TEXT[3:6], None)
        await left(service, job_id)
        service.bench.clock.advance(5)
        assert service.bench.book.get(job_id).state is JobState.CANCELLED
        assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest(id=job_id))) == "NOT_RESUMABLE"
        assert not service.jobs.resumable._entries


@asynchronous
async def test_its_answer_is_kept_for_that_time() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying(TEXT)
        options = pb.Options(resumable_seconds=60)
        messages = [m async for m in stub.Generate(pb.GenerateRequest(prompt="p", options=options))]
        text = "".join(m.delta.text for m in messages)
        job_id = messages[-1].finished.job_id
        assert await resumed(stub, job_id) == (text, messages[-1].finished)
        assert text == TEXT
        await left(service, job_id)
        service.bench.clock.advance(60)
        assert await reason_of(stub.ResumeJob(pb.ResumeJobRequest(id=job_id))) == "NOT_RESUMABLE"
