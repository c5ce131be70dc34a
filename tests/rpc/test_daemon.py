"""The life of the service in this process: loading, serving, draining, and what systemd hears.

The model is a fake, so that a load or a step can be held for as long as a test needs.
"""

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad import daemon, residence
from llamad.config import Config, load_config
from llamad.engine import bindings
from llamad.errors import ErrorKind, LlamadError
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from rpc.serving import Codec, error_of_call
from unit.jobs.fakes import TIMEOUT_SECONDS, FakeEngine, FakeModel, asynchronous, saying

Status = pb.GetStatusResponse


class FakeLoadedModel(FakeModel):
    """A loaded model as ``models.loader`` returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path("/models/fake.gguf")
        self.tokenizer = Codec()
        self.engine = FakeEngine(n_batch=64, n_sequences=4, n_blocks=64, block_tokens=32)
        self.engine.rule = saying("An answer.")
        self.info = SimpleNamespace(
            architecture="llama", file_bytes=10, n_ctx_train=512, vocab_size=256
        )
        self.engine_info = SimpleNamespace(kv_bytes=1, n_threads=1, kernel_set="generic")
        self.kv_type = "f16"
        self.locked_bytes = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Life:
    """A daemon that runs as a task, its loader's strings, and its manager's mailbox."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = FakeLoadedModel()
        self.socket = folder / "llamad.sock"
        self.folder = folder
        self.may_load = threading.Event()
        self.load_error: Exception | None = None
        self.load_heeds_stop = True
        self.told_to_stop = threading.Event()
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.setattr(residence, "load", self._load)
        monkeypatch.setattr(bindings, "StopFlag", lambda: self.told_to_stop)

    def _load(self, config: object, stop: object, progress: Callable[[str], None]) -> Any:
        progress("reading fake.gguf")
        while not self.may_load.wait(0.01):
            if self.load_heeds_stop and self.told_to_stop.is_set():
                raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", "loading was cancelled")
        if self.load_error is not None:
            raise self.load_error
        return self.model

    def config(self, **keys: object) -> Config:
        overrides = {name.replace("__", "."): value for name, value in keys.items()}
        return load_config(
            None,
            {
                "service.socket": str(self.socket),
                "model.directory": str(self.folder / "models"),
                **overrides,
            },
        )

    @asynccontextmanager
    async def running(
        self, *, model_required: bool = False, **keys: object
    ) -> AsyncIterator["asyncio.Task[None]"]:
        self.keys = keys
        service = daemon.Daemon(
            self.config(**keys),
            model_required=model_required,
            read_again=lambda: self.config(**self.keys),
        )
        task = asyncio.create_task(service.run())
        try:
            yield task
        finally:
            self.may_load.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
            yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]

    async def heard(self, words: str) -> str:
        """Wait for a notification that contains words; return it."""
        loop = asyncio.get_running_loop()
        while True:
            text = (await loop.sock_recv(self._manager, 4096)).decode()
            if words in text:
                return text

    def close(self) -> None:
        self._manager.close()


def living(test: Callable[..., Any]) -> Callable[..., None]:
    """Give an asynchronous test a Life."""

    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        @asynchronous
        async def body() -> None:
            with tempfile.TemporaryDirectory() as folder:
                life = Life(Path(folder), monkeypatch)
                try:
                    await test(life)
                finally:
                    life.close()

        body()

    run.__name__ = test.__name__
    return run


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


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
        assert await life.heard("served") == "STATUS=serving fake: 1 requests served"
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

        def hold() -> None:
            in_step.set()
            life.model.engine.wait_for_cancel()

        life.model.engine.before_step = hold
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
        assert message == residence.NO_MODEL_YET
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
