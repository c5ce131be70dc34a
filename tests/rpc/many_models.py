"""A service whose models are fakes that can be changed, and the calls that change them."""

import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.store.registry import ModelFile, ModelRegistry
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.living import FakeLoadedModel, Life, living_as, send
from rpc.serving import error_of_call
from unit.schedule.fakes import TIMEOUT_SECONDS

Status = pb.GetStatusResponse


class ManyModels(Life):
    """A service with a model directory; each load makes a fake of the file's name.

    ``loads`` are the names in order. A load waits while its name is in ``held``, and raises what
    stands for it in ``failing``; what stands in ``broken`` is seen before. At most one model may be
    open.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.models = folder / "models"
        self.models.mkdir()
        self.loads: list[str] = []
        self.opened: list[FakeLoadedModel] = []
        self.held: dict[str, threading.Event] = {}
        self.failing: dict[str, Exception] = {}
        self.broken: dict[str, Exception] = {}
        self.digests: dict[str, str] = {}

    def put(self, *names: str, selected: str = "") -> None:
        for name in names:
            (self.models / f"{name}.gguf").write_bytes(b"GGUF")
        if selected:
            ModelRegistry(self.models).select(selected)

    @property
    def selected(self) -> str:
        return ModelRegistry(self.models).selected()

    def _load(
        self, config: Any, stop: object, progress: Callable[[str], None], ctx_sizes: object
    ) -> Any:
        file = ModelRegistry(Path(config.directory)).resolve(config.path)
        assert all(model.closed for model in self.opened), "two models in memory"
        self.loads.append(file.name)
        progress(f"reading {file.name}")
        while file.name in self.held and not self.held[file.name].wait(0.01):
            if self.told_to_stop.is_set():
                raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", "loading was cancelled")
        if file.name in self.failing:
            raise self.failing[file.name]
        self.opened.append(FakeLoadedModel(file.path))
        self.opened[-1].digest = self.digests.get(file.name, "same")
        return self.opened[-1]

    def _check(self, config: object, file: ModelFile, ctx_sizes: object, locked_bytes: int) -> None:
        assert not self.opened[-1].closed, "asked when it was too late"
        assert locked_bytes == self.opened[-1].locked_bytes
        if file.name in self.broken:
            raise self.broken[file.name]

    def pause_step(self) -> tuple[threading.Event, threading.Event]:
        """Hold the open model's steps; return what tells that one has begun, and what lets it."""
        entered, go_on = threading.Event(), threading.Event()

        def pause() -> None:
            entered.set()
            assert go_on.wait(TIMEOUT_SECONDS)

        self.opened[-1].engine.before_step = pause
        return entered, go_on

    @asynccontextmanager
    async def serving(self, **keys: object) -> AsyncIterator[tuple[Any, Any]]:
        """Run until the end of the block, then stop as systemd does; yield the two stubs."""
        async with self.running(**keys) as task, self.stub() as stub, self.admin() as admin:  # type: ignore[arg-type]
            await self.heard("READY=1")
            yield stub, admin
            send(signal.SIGTERM)
            await task
        assert all(model.closed for model in self.opened)


switching = living_as(ManyModels)


def use(admin: Any, name: str) -> Any:
    return admin.UseModel(admin_pb2.UseModelRequest(name=name))


def unload(admin: Any) -> Any:
    return admin.UnloadModel(admin_pb2.UnloadModelRequest())


def generate(stub: Any) -> Any:
    return stub.Generate(pb.GenerateRequest(prompt="p"))


async def status_of(stub: Any) -> Status:
    status: Status = await stub.GetStatus(pb.GetStatusRequest())
    return status


async def text_of(call: Any) -> str:
    text = ""
    while (message := await call.read()) is not grpc.aio.EOF:
        text += message.delta.text
    return text


async def reason_of(call: Any) -> str:
    _, _, metadata = await error_of_call(call)
    return metadata["llamad-reason"]
