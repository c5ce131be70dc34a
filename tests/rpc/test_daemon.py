"""The life of the service in this process: loading, serving, draining, and what systemd hears."""

import asyncio
import logging
import signal
import threading

import grpc
import grpc.aio
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.service import model_manager
from llamad_api.v1 import llamad_pb2 as pb
from rpc.living import Life, living, send
from rpc.serving import error_of_call
from unit.schedule.fakes import TIMEOUT_SECONDS

Status = pb.GetStatusResponse


@living
async def test_clients_hear_that_it_loads_then_it_serves_then_it_stops(life: Life) -> None:
    async with life.running() as task, life.stub() as stub:
        await life.heard("STATUS=reading fake.gguf")
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.state, status.detail) == (Status.STATE_LOADING, "reading fake.gguf")
        code, _, metadata = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))
        assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING")
        life.may_load.set()
        assert await life.heard("READY=1") == "READY=1\nSTATUS=serving fake"
        async for message in stub.Generate(pb.GenerateRequest(prompt="p")):
            last = message
        assert last.finished.reason == pb.FINISH_REASON_STOP
        assert await life.heard("served") == "STATUS=serving fake; requests served: 1"
        send(signal.SIGTERM)
        await task
        await life.heard("STOPPING=1")
    assert life.model.closed
    assert not life.socket.exists()


@living
async def test_a_signal_while_loading_stops_the_load(life: Life) -> None:
    async with life.running() as task:
        await life.heard("STATUS=reading fake.gguf")
        send(signal.SIGINT)
        await task
    assert life.told_to_stop.is_set()


@living
async def test_a_model_that_is_ready_too_late_is_closed_again(life: Life) -> None:
    life.load_heeds_stop = False
    async with life.running() as task:
        await life.heard("STATUS=reading fake.gguf")
        send(signal.SIGTERM)
        await life.heard("STOPPING=1")
        life.may_load.set()
        await task
    assert life.model.closed


@living
async def test_a_running_job_ends_before_the_service_does_and_new_ones_are_refused(
    life: Life,
) -> None:
    life.may_load.set()
    in_step, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        in_step.set()
        assert go_on.wait(TIMEOUT_SECONDS)

    life.model.engine.before_step = pause
    async with life.running() as task, life.stub() as stub:
        await life.heard("READY=1")
        call = stub.Generate(pb.GenerateRequest(prompt="p"))
        await call.read()
        await asyncio.to_thread(in_step.wait)
        send(signal.SIGTERM)
        await life.heard("STOPPING=1")
        code, _, metadata = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="q")))
        assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        go_on.set()
        text = ""
        while (message := await call.read()) is not grpc.aio.EOF:
            text += message.delta.text
        assert text == "An answer."
        await task


@living
async def test_while_it_drains_everyone_who_waits_hears_when_to_come_back(life: Life) -> None:
    life.may_load.set()
    in_step, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        in_step.set()
        assert go_on.wait(TIMEOUT_SECONDS)

    life.model.engine.before_step = pause
    request = pb.GenerateRequest(prompt="p")
    async with life.running() as task, life.stub() as stub:
        await life.heard("READY=1")
        running = stub.Generate(request)
        await running.read()
        await asyncio.to_thread(in_step.wait)
        queued = stub.Generate(request)
        assert (await queued.read()).HasField("queued")
        send(signal.SIGTERM)
        await life.heard("STOPPING=1")
        for refused in (queued, stub.Generate(request)):
            code, _, metadata = await error_of_call(refused)
            assert (code, metadata["llamad-reason"], float(metadata["llamad-retry-after"]) > 0) == (
                grpc.StatusCode.UNAVAILABLE,
                "SHUTTING_DOWN",
                True,
            )
        go_on.set()
        while (message := await running.read()) is not grpc.aio.EOF:
            last = message
        assert last.finished.reason == pb.FINISH_REASON_STOP
        await task
        code, _, _ = await error_of_call(stub.GetStatus(pb.GetStatusRequest()))
        assert code is grpc.StatusCode.UNAVAILABLE


@living
async def test_a_connection_that_says_nothing_does_not_keep_it_from_ending(life: Life) -> None:
    life.may_load.set()
    async with life.running() as task:
        await life.heard("READY=1")
        reader, writer = await asyncio.open_unix_connection(life.socket)
        await reader.readexactly(9)  # the head of gRPC's first frame: the connection is accepted
        send(signal.SIGTERM)
        await task
        writer.close()


@pytest.mark.parametrize("drain_seconds", [0.01, 3600.0])
def test_a_job_that_does_not_end_is_ended_by_the_deadline_or_a_second_signal(
    monkeypatch: pytest.MonkeyPatch, drain_seconds: float
) -> None:
    @living
    async def body(life: Life) -> None:
        life.may_load.set()
        in_step = threading.Event()

        def pause() -> None:
            in_step.set()
            life.model.engine.wait_for_cancel()

        life.model.engine.before_step = pause
        async with (
            life.running(limits__drain_seconds=drain_seconds) as task,
            life.stub() as stub,
        ):
            await life.heard("READY=1")
            call = stub.Generate(pb.GenerateRequest(prompt="p"))
            await call.read()
            await asyncio.to_thread(in_step.wait)
            send(signal.SIGTERM)
            await life.heard("STOPPING=1")
            if drain_seconds > 1:
                send(signal.SIGTERM)
            await task
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()

    body(monkeypatch)


def test_a_reload_takes_limits_and_log_level_and_names_what_needs_a_restart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # put back after the test, whatever the reload sets

    @living
    async def body(life: Life) -> None:
        life.may_load.set()
        async with life.running() as task, life.stub() as stub:
            await life.heard("READY=1")
            life.keys = {"limits__max_prompt_bytes": 4, "log__level": "info", "model__threads": 3}
            send(signal.SIGHUP)
            await life.heard("RELOADING=1")
            await life.heard("READY=1")
            assert "configuration reloaded needs_restart=model" in caplog.messages
            code, *_ = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="Hello")))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            send(signal.SIGTERM)
            await task

    body(monkeypatch)


def test_a_reload_of_a_wrong_file_changes_nothing_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @living
    async def body(life: Life) -> None:
        life.may_load.set()
        async with life.running() as task, life.stub() as stub:
            serving = await life.heard("READY=1")
            life.keys = {"limits__max_prompt_bytes": -1}
            send(signal.SIGHUP)
            await life.heard("RELOADING=1")
            assert await life.heard("READY=1") == serving
            assert "configuration not reloaded reason=INVALID_CONFIG" in caplog.text
            response = await stub.GetStatus(pb.GetStatusRequest())
            assert response.state == Status.STATE_READY
            send(signal.SIGTERM)
            await task

    body(monkeypatch)


@living
async def test_the_metrics_file_is_there_while_the_service_runs(life: Life) -> None:
    life.may_load.set()
    path = life.folder / "llamad.prom"
    async with life.running(metrics__textfile=str(path)) as task, life.stub() as stub:
        await life.heard("READY=1")
        while not path.exists():
            await stub.GetMetrics(pb.GetMetricsRequest())
        send(signal.SIGTERM)
        await task
    assert not path.exists()


@living
async def test_a_required_model_that_fails_ends_the_service(life: Life) -> None:
    life.may_load.set()
    life.load_error = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic")
    async with life.running(model_required=True, model__path="/x.gguf") as task:
        with pytest.raises(LlamadError, match="bad magic"):
            await task
    assert not life.socket.exists()


@living
async def test_a_configured_model_that_fails_leaves_a_service_that_says_so(life: Life) -> None:
    life.may_load.set()
    life.load_error = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic")
    async with life.running(model__path="/x.gguf") as task, life.stub() as stub:
        assert await life.heard("READY=1") == "READY=1\nSTATUS=x.gguf: bad magic"
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.state == Status.STATE_FAILED
        send(signal.SIGTERM)
        await task


@living
async def test_a_service_without_any_model_says_how_to_give_one(life: Life) -> None:
    life.may_load.set()
    life.load_error = LlamadError(ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", "no .gguf file")
    async with life.running() as task, life.stub() as stub:
        await life.heard("READY=1")
        code, message, metadata = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert metadata["llamad-reason"] == "NO_MODEL"
        assert message == model_manager.NO_MODEL_YET
        send(signal.SIGTERM)
        await task


@living
async def test_a_model_lost_while_serving_makes_the_service_fail_without_ending_it(
    life: Life,
) -> None:
    life.may_load.set()
    lost = LlamadError(ErrorKind.CORRUPT, "MODEL_FILE_LOST", "fake.gguf lost pages")
    life.model.engine.errors = [lost]
    async with life.running() as task, life.stub() as stub:
        await life.heard("READY=1")
        code, _, metadata = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="p")))
        assert (code, metadata["llamad-reason"]) == (
            grpc.StatusCode.DATA_LOSS,
            "MODEL_FILE_LOST",
        )
        await life.heard("the model failed: fake.gguf lost pages")
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.state == Status.STATE_FAILED
        send(signal.SIGTERM)
        await task


@living
async def test_a_bug_in_the_loader_ends_the_service_with_an_error(life: Life) -> None:
    life.may_load.set()
    life.load_error = ZeroDivisionError("bug")
    async with life.running() as task:
        with pytest.raises(ZeroDivisionError):
            await task
    assert not life.socket.exists()
