"""Errors to gRPC: every row of the table, what travels with it, and what does not leak."""

import logging

import grpc
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.rpc.status import STATUS_CODES, failure
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous

ROWS = [
    (ErrorKind.INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    (ErrorKind.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    (ErrorKind.PERMISSION, grpc.StatusCode.PERMISSION_DENIED),
    (ErrorKind.STATE, grpc.StatusCode.FAILED_PRECONDITION),
    (ErrorKind.CORRUPT, grpc.StatusCode.DATA_LOSS),
    (ErrorKind.EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ErrorKind.DEADLINE, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ErrorKind.CANCELLED, grpc.StatusCode.CANCELLED),
    (ErrorKind.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    (ErrorKind.INTERNAL, grpc.StatusCode.INTERNAL),
]


def test_every_kind_has_a_row_here_and_in_the_table() -> None:
    assert {kind for kind, _ in ROWS} == set(ErrorKind) == set(STATUS_CODES)


@pytest.mark.parametrize(("kind", "code"), ROWS)
@asynchronous
async def test_an_error_arrives_with_its_code_and_reason(
    kind: ErrorKind, code: grpc.StatusCode
) -> None:
    async with serving() as service, service.stub() as stub:
        service.fail_submit(LlamadError(kind, "SOME_REASON", "the thing is wrong"))
        got, message, metadata = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))
    assert got is code
    assert metadata["llamad-reason"] == "SOME_REASON"
    assert metadata["llamad-request-id"]
    if kind is not ErrorKind.INTERNAL:
        assert message == "the thing is wrong"


@asynchronous
async def test_an_error_in_the_middle_of_a_stream_comes_after_its_events() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.errors = [
            None,
            LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "logits are not finite"),
        ]
        call = stub.Generate(pb.GenerateRequest(prompt="p"))
        assert (await call.read()).HasField("queued")
        code, _, metadata = await error_of_call(call)
    assert code is grpc.StatusCode.DATA_LOSS
    assert metadata["llamad-reason"] == "MODEL_NOT_FINITE"


@asynchronous
async def test_a_bug_shows_its_traceback_in_the_journal_and_nothing_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as service, service.stub() as stub:
        service.fail_submit(ZeroDivisionError("secret detail"))
        with caplog.at_level(logging.ERROR):
            code, message, metadata = await error_of_call(
                stub.Generate(pb.GenerateRequest(prompt="p"))
            )
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message
    assert metadata["llamad-request-id"] in message
    assert metadata["llamad-request-id"] in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text


@asynchronous
async def test_a_bug_in_a_unary_method_is_internal_too() -> None:
    async with serving() as service, service.stub() as stub:

        def explode() -> None:
            raise RuntimeError("secret detail")

        service.bench.scheduler.counts = explode  # type: ignore[method-assign, assignment]
        code, message, metadata = await error_of_call(stub.GetStatus(pb.GetStatusRequest()))
    assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in message


def test_the_retry_hint_is_in_seconds_and_only_where_waiting_helps() -> None:
    full = LlamadError(ErrorKind.EXHAUSTED, "QUEUE_FULL", "full", retry_after_seconds=2.5)
    assert dict(failure(full, "r").metadata)["llamad-retry-after"] == "2.5"
    other = LlamadError(ErrorKind.NOT_FOUND, "JOB_NOT_FOUND", "no job")
    assert "llamad-retry-after" not in dict(failure(other, "r").metadata)


def test_a_long_message_of_many_lines_becomes_one_line_that_fits_the_metadata() -> None:
    error = LlamadError(ErrorKind.INVALID, "INVALID_X", "x: \n" + "ü\n" * 10_000 + "\udcff")
    message = failure(error, "r").message
    assert "\n" not in message
    assert len(message.encode()) < 1100


@asynchronous
async def test_a_method_that_does_not_exist_is_unimplemented() -> None:
    async with serving() as service, service.channel() as channel:
        code, _, _ = await error_of_call(channel.unary_unary("/llamad.v1.Llamad/Fly")(b""))
    assert code is grpc.StatusCode.UNIMPLEMENTED
