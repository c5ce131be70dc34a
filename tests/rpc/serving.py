"""A real server on a private Unix socket over a fake engine, for the tests of both ends."""

import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from llamad.board import Files
from llamad.config import Config
from llamad.door.caller import Credentials, peer_credentials
from llamad.door.capacity import FULL, Capacity
from llamad.errors import LlamadError
from llamad.memory.plan import MemoryPlan
from llamad.rpc.admin_service import AdminService
from llamad.rpc.from_proto import Rules
from llamad.rpc.llamad_service import LlamadService
from llamad.rpc.server import RpcServer
from llamad.schedule.limits import Limits
from llamad.service.block_exchange import BlockExchange
from llamad.service.disk_meter import Measured
from llamad.service.durable_jobs import DurableJobs
from llamad.service.model_details import KnownModels
from llamad.service.monitor import Monitor
from llamad.service.prefixes import Prefixes
from llamad.service.state import ModelFacts, ServiceState, Serving
from llamad.service.state_directory import StateDirectory
from llamad.store.registry import ModelRegistry
from llamad.store.transfers import Transfers
from llamad_api.v1 import admin_pb2_grpc, llamad_pb2_grpc
from unit.schedule.fakes import Bench, FakeTokenizer

MAX_MODEL_BYTES = 1 << 30
PLAN = MemoryPlan(
    n_ctx=512,
    budget_bytes=None,
    process_bytes=1,
    connections_bytes=2,
    template_bytes=3,
    vocabulary_bytes=4,
    samplers_bytes=5,
    scratch_bytes=6,
    kv_blocks=64,
    kv_bytes=4096,
    resident_bytes=900,
    streamed_bytes=90,
    on_demand_bytes=10,
    streaming_bytes=7,
    lockable_bytes=900,
)
FACTS = ModelFacts(
    name="fake",
    path="/models/fake.gguf",
    architecture="llama",
    file_bytes=1000,
    locked_bytes=900,
    n_ctx=512,
    n_ctx_train=1024,
    vocab_size=256,
    load_seconds=1.5,
    kv_type="f16",
    kv_bytes=4096,
    threads=2,
    kernel_set="generic",
    plan=PLAN,
)

MEASURED = Measured(
    locked_bytes=890,
    streamed_bytes=90,
    bytes_read_per_token=91,
    disk_read_bytes_per_second=350e6,
    share_of_disk_time_hidden=0.75,
)

CredentialsOf = Callable[[socket.socket], Credentials]
ADMIN_GROUP = "root"  # every machine has it
GATEWAY_GROUP = "daemon"


class Codec(FakeTokenizer):
    """The fake tokenizer with its way back."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class Memory:
    """Says which models would be in memory; loads none. ``error`` is raised by what is asked."""

    def __init__(self, state: ServiceState, registry: ModelRegistry) -> None:
        self.state = state
        self.registry = registry
        self.used: list[str] = []
        self.added: list[str] = []
        self.unloaded = 0
        self.error: LlamadError | None = None

    async def use(self, name: str, accepted: Callable[[], None]) -> ModelFacts:
        if self.error is not None:
            raise self.error
        file = self.registry.require(name)
        accepted()
        self.registry.select(name)
        self.used.append(name)
        return replace(FACTS, name=name, path=str(file.path), file_bytes=file.file_bytes)

    async def unload(self, accepted: Callable[[], None]) -> None:
        if self.error is not None:
            raise self.error
        accepted()
        self.unloaded += 1

    def in_use(self, name: str) -> bool:
        return self.used[-1:] == [name]

    def selected(self) -> Path | None:
        try:
            return self.registry.resolve("").path
        except LlamadError:
            return None

    def note_added(self, name: str) -> None:
        self.added.append(name)


class Service:
    """A running server, its socket, its state and the bench behind it."""

    def __init__(
        self,
        path: Path,
        bench: Bench,
        rules: Rules,
        *,
        loaded: bool,
        mode: int,
        credentials: CredentialsOf,
        config: Config,
        capacity: Capacity,
        files: Files | None,
    ) -> None:
        self.bench = bench
        self.path = path
        self.models = path.with_name("models")
        self.models.mkdir()
        self.state = ServiceState()
        registry = ModelRegistry(self.models)
        self.directory = StateDirectory(path.with_name("state"))
        self.jobs = DurableJobs(
            self.directory, self.state, bench.book, config.jobs, clock=bench.clock
        )
        self.memory = Memory(self.state, registry)
        self.transfers = Transfers(registry, max_bytes=MAX_MODEL_BYTES, in_use=self.memory.in_use)
        self.prefixes = Prefixes(
            bench.scheduler,
            BlockExchange(bench.scheduler, bench.worker, bench.engine, None, block_bytes=128),
            {},
        )
        llamad = LlamadService(
            self.state,
            bench.book,
            self.jobs,
            rules,
            "engine 1",
            KnownModels(config, registry),
            Monitor(self.state, bench.book, bench.measures, "engine 1", files=files),
        )
        self.server = RpcServer(
            self.path,
            mode=mode,
            group="",
            admin_group=ADMIN_GROUP,
            gateway_group=GATEWAY_GROUP,
            credentials=credentials,
            capacity=capacity,
            llamad=llamad,
            admin=AdminService(self.state, registry, self.transfers, self.memory, llamad.rules_now),
            on_call_failed=bench.measures.on_call_failed,
        )
        if loaded:
            self.load()

    def load(self) -> None:
        self.state.ready(
            Serving(
                self.bench.scheduler, Codec(), facts(self.bench), lambda: MEASURED, self.prefixes
            )
        )
        self.server.health.set_serving(True)

    async def start_jobs(self) -> None:
        """Open the state directory, and what is stored there; a test saves it itself."""
        self.directory.path.mkdir(exist_ok=True)
        self.directory.open()
        await self.jobs.open()

    def fail_submit(self, error: BaseException) -> None:
        """Let every submission raise an error."""

        async def submit(request: object, stream: object = None) -> Any:
            raise error

        self.bench.scheduler.submit = submit  # type: ignore[method-assign]

    def fail_model(self, error: LlamadError) -> None:
        self.state.failed(error)
        self.server.health.set_serving(False)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """Open a connection of its own: gRPC shares them within a process."""
        unshared = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.path}", options=unshared) as channel:
            yield channel

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with self.channel() as channel:
            yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        async with self.channel() as channel:
            yield admin_pb2_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]


def facts(bench: Bench) -> ModelFacts:
    model = bench.model
    return replace(FACTS, name=model.name, n_ctx=model.n_ctx, vocab_size=model.vocab_size)


@asynccontextmanager
async def serving(
    *,
    limits: Limits | None = None,
    rules: Rules | None = None,
    loaded: bool = True,
    name: str = "llamad.sock",
    mode: int = 0o660,
    credentials: CredentialsOf = peer_credentials,
    config: Config | None = None,
    capacity: Capacity = FULL,
    files: Files | None = None,
    **sizes: Any,
) -> AsyncIterator[Service]:
    """Run a service with a socket of this name; sizes are those of FakeModel.

    ``credentials`` tells whose process made a connection; ``files`` are the board's.
    """
    bench = Bench(limits, **sizes)
    with tempfile.TemporaryDirectory() as folder:
        service = Service(
            Path(folder) / name,
            bench,
            rules or Rules(gateway_group=GATEWAY_GROUP),
            loaded=loaded,
            mode=mode,
            credentials=credentials,
            config=config or Config(),
            capacity=capacity,
            files=files,
        )
        async with bench.running():
            await service.server.start()
            await service.start_jobs()
            try:
                yield service
            finally:
                await service.jobs.close()
                service.directory.close()
                await service.server.stop(0)


async def error_of_call(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return code, message and trailing metadata of a call that fails."""
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", dict(iter(error.trailing_metadata() or ()))
    raise AssertionError("the call did not fail")
