"""The service in the test's own process, with a fake loader and a mailbox in systemd's place.

The model is a fake, so that a load or a step can be held for as long as a test needs.
"""

import asyncio
import os
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from llamad import daemon
from llamad.config import Config, load_config
from llamad.engine import bindings
from llamad.engine.info import ResidencyInfo
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.pressure import Grant
from llamad.service import model_manager
from llamad.store.registry import ModelFile
from llamad_api.v1 import admin_pb2_grpc, llamad_pb2_grpc
from rpc.serving import PLAN, Codec
from unit.schedule.fakes import FakeEngine, FakeModel, asynchronous, saying


class FakeLoadedModel(FakeModel):
    """A loaded model as ``service.loading`` returns it."""

    def __init__(self, path: Path = Path("/models/fake.gguf")) -> None:
        super().__init__()
        self.name = path.stem
        self.path = path
        self.file = ModelFile(self.name, path, 10)
        self.tokenizer = Codec()
        self.engine = FakeEngine(n_batch=64, n_blocks=64, block_tokens=32)
        self.engine.rule = saying("An answer.")
        self.info = SimpleNamespace(
            architecture="llama", file_bytes=10, n_ctx_train=512, vocab_size=256
        )
        self.engine_info = SimpleNamespace(
            kv_bytes=64 * 128,
            kv_block_bytes=128,
            kv_local_block_bytes=0,
            n_threads=1,
            kernel_set="generic",
            long_rope=False,
        )
        self.kv_type = "f16"
        self.locked_bytes = 0
        self.plan = PLAN
        self.own_sampling: dict[str, float] = {}
        self.recommended_sampling: dict[str, float] = {}
        self.digest = "d" * 32
        self.draft = self.guess_layer = None
        self.draft_name = self.draft_fault = ""
        self.stop = SimpleNamespace(set=lambda: None)
        self.disk_bytes_per_second = None
        self.closed = False
        self.on_close: Callable[[], None] = lambda: None

    @property
    def progress(self) -> int:
        return self.engine.progress

    def residency(self) -> ResidencyInfo:
        assert not self.closed, "this model is closed"
        return ResidencyInfo(0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, True)

    def grant(self) -> Grant:
        return Grant(1, wanted_bytes=1, least_bytes=1, file_bytes=1)

    def close(self) -> None:
        self.closed = True
        self.on_close()


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
        self._mail: asyncio.Queue[str] = asyncio.Queue()
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.setattr(model_manager, "load", self._load)
        monkeypatch.setattr(model_manager, "check_model", self._check)
        monkeypatch.setattr(bindings, "StopFlag", lambda: self.told_to_stop)

    def _load(
        self, config: object, stop: object, progress: Callable[[str], None], ctx_sizes: object
    ) -> Any:
        progress("reading fake.gguf")
        while not self.may_load.wait(0.01):
            if self.load_heeds_stop and self.told_to_stop.is_set():
                raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", "loading was cancelled")
        if self.load_error is not None:
            raise self.load_error
        return self.model

    def _check(self, config: object, file: ModelFile, ctx_sizes: object, locked_bytes: int) -> None:
        """Find nothing wrong with a file before the model that serves goes."""

    def config(self, **keys: object) -> Config:
        overrides = {name.replace("__", "."): value for name, value in keys.items()}
        return load_config(
            None,
            {
                "service.socket": str(self.socket),
                "service.state_directory": str(self.folder / "state"),
                "model.directory": str(self.folder / "models"),
                **overrides,
            },
        )

    @asynccontextmanager
    async def running(
        self, *, model_required: bool = False, **keys: object
    ) -> AsyncIterator["asyncio.Task[None]"]:
        self.keys = keys
        self._forget_mail()
        service = daemon.Daemon(
            self.config(**keys),
            model_required=model_required,
            read_again=lambda: self.config(**self.keys),
        )
        loop = asyncio.get_running_loop()
        # Taken out at once: the kernel queues few datagrams, and then holds the sender.
        loop.add_reader(self._manager, self._take_mail)
        task = asyncio.create_task(service.run())
        try:
            yield task
        finally:
            loop.remove_reader(self._manager)
            self.may_load.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _forget_mail(self) -> None:
        """Drop what a run before this one sent."""
        with suppress(BlockingIOError):
            while True:
                self._take_mail()
        self._mail = asyncio.Queue()

    def _take_mail(self) -> None:
        self._mail.put_nowait(self._manager.recv(4096).decode())

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
            yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
            yield admin_pb2_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]

    async def heard(self, words: str) -> str:
        """Wait for a notification that contains words; return it."""
        while True:
            text = await self._mail.get()
            if words in text:
                return text

    def close(self) -> None:
        self._manager.close()


LifeT = TypeVar("LifeT", bound=Life)


def living_as(kind: type[LifeT]) -> Callable[[Callable[[LifeT], Any]], Callable[..., None]]:
    """Give an asynchronous test a life of this kind."""

    def decorate(test: Callable[[LifeT], Any]) -> Callable[..., None]:
        def run(monkeypatch: pytest.MonkeyPatch) -> None:
            @asynchronous
            async def body() -> None:
                with tempfile.TemporaryDirectory() as folder:
                    life = kind(Path(folder), monkeypatch)
                    try:
                        await test(life)
                    finally:
                        life.close()

            body()

        run.__name__ = test.__name__
        return run

    return decorate


living = living_as(Life)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
