"""What the journal says of calls: who made them, at a level that tells mistakes from faults."""

import logging
import re

import grpc
import pytest

from llamad.door.caller import Credentials
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous, saying

LEVELS = {
    ErrorKind.INVALID: logging.DEBUG,
    ErrorKind.NOT_FOUND: logging.DEBUG,
    ErrorKind.PERMISSION: logging.INFO,
    ErrorKind.STATE: logging.INFO,
    ErrorKind.CORRUPT: logging.WARNING,
    ErrorKind.EXHAUSTED: logging.INFO,
    ErrorKind.DEADLINE: logging.INFO,
    ErrorKind.UNAVAILABLE: logging.INFO,
    ErrorKind.INTERNAL: logging.ERROR,
}


def records(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage().startswith(event)]


@pytest.mark.parametrize("kind", LEVELS)
def test_a_users_mistake_is_told_at_a_lower_level_than_a_fault(
    kind: ErrorKind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    @asynchronous
    async def body() -> None:
        async with serving(credentials=lambda c: Credentials(0, frozenset())) as service:
            service.fail_submit(LlamadError(kind, "REASON", "the message"))
            async with service.stub() as stub:
                await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))

    body()
    [record] = records(caplog, "call failed")
    assert record.levelno == LEVELS[kind]
    assert "method=/llamad.v1.Llamad/Generate user=root request=" in record.getMessage()
    assert bool(record.exc_info) == (kind is ErrorKind.INTERNAL)


@asynchronous
async def test_a_finished_request_is_one_line_with_its_user_and_its_speed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(credentials=lambda c: Credentials(4321, frozenset())) as service:
        service.bench.engine.rule = saying("An answer.")
        service.bench.engine.before_step = lambda: service.bench.clock.advance(0.5)
        async with service.stub() as stub:
            async for _ in stub.Generate(pb.GenerateRequest(prompt="p")):
                pass
    [record] = records(caplog, "request ")
    message = record.getMessage()
    assert message.startswith("request finished job=")
    assert " user=4321 " in message  # who has no name
    assert re.search(r" tokens_per_second=2\.000$", message)


@asynchronous
async def test_what_an_administrator_does_is_logged_with_the_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(credentials=lambda c: Credentials(0, frozenset())) as service:
        for name in "a", "b":
            (service.models / f"{name}.gguf").write_bytes(b"x" * 123_456)
        async with service.admin() as admin:
            await admin.UseModel(admin_pb2.UseModelRequest(name="a"))
            await error_of_call(admin.UseModel(admin_pb2.UseModelRequest(name="c")))
            await admin.UnloadModel(admin_pb2.UnloadModelRequest())
            await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="b"))
    assert [m for m in caplog.messages if "user=" in m] == [
        "model chosen model=a user=root",
        "unload asked for user=root",
        "model removed model=b user=root freed=123.5kB",
    ]


@asynchronous
async def test_who_cancels_somebody_elses_request_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    users = iter([4321, 4321, 0])
    async with serving(credentials=lambda c: Credentials(next(users), frozenset())) as service:
        engine = service.bench.engine
        engine.before_step = engine.wait_for_cancel
        for mine in (True, False):
            async with service.stub() as stub, service.stub() as other:
                call = stub.Generate(pb.GenerateRequest(prompt="p"))
                job = (await call.read()).queued.job_id
                request = pb.CancelJobRequest(id=job)
                await (stub if mine else other).CancelJob(request)
    [message] = [m for m in caplog.messages if "cancelled_by" in m]
    assert message == f"request of somebody else job={job} cancelled_by=root"


@asynchronous
async def test_a_request_that_fails_after_it_was_accepted_is_no_warning_but_for_faults(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for error in (
        invalid("sampling", "is refused"),
        LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "no number"),
    ):
        async with serving() as service, service.stub() as stub:
            service.bench.engine.errors = [error]
            code, _, _ = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))
            assert code is not grpc.StatusCode.OK
    levels = [record.levelno for record in records(caplog, "request failed")]
    assert levels == [logging.INFO, logging.WARNING]
