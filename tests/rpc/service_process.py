"""A service over a fake engine in a process of its own, whose memory and time can be read.

The child takes a client for the user in the name that the client bound its socket to
(``http2_frames.RawClient``), and for root without one. The arguments of the child are how many
descriptors it may have, and NAME=NUMBER for other limits than those of ``llamad.door.limits``.
"""

import asyncio
import resource
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from clients.running import environment
from llamad.door import limits
from llamad.door.caller import Credentials
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from rpc.http2_frames import DATA, RawClient, message
from rpc.serving import serving
from unit.schedule.fakes import Bench, saying

MOST_GROWTH_BYTES = 32 << 20  # of the child's memory, whatever one user does


def credentials(connection: socket.socket) -> Credentials:
    """Return those of the user that the client's name tells."""
    name = connection.getpeername()
    uid = int(name.split(b"-")[1]) if isinstance(name, bytes) and name else 0
    return Credentials(uid, frozenset({uid}))


class ServiceProcess:
    """A service in a child: its socket, its memory, its processor time, and calls to it."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path) -> None:
        self.path = path
        self.pid = process.pid
        self.process = process

    def peak_bytes(self) -> int:
        """Return the most memory that was resident in the child."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no VmHWM")

    def descriptors(self) -> int:
        """Return how many descriptors the child has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """Open a connection of root's own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.path}", options=options) as channel:
            yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]


async def serves(stub: Any) -> None:
    """Check that calls are answered: a small one, and a generation to its end."""
    await stub.GetVersion(pb.GetVersionRequest())
    while True:
        try:
            messages = [m async for m in stub.Generate(pb.GenerateRequest(prompt="p"))]
        except grpc.aio.AioRpcError as error:
            if "queue is full" in (error.details() or ""):
                continue  # as a client does that hears so
            raise
        assert messages[-1].finished.reason == pb.FINISH_REASON_STOP
        return


async def serves_user(path: Path, uid: int) -> None:
    """Check that another user's call is answered."""
    async with RawClient(path, uid) as client:
        client.read()
        await serves_client(client)


async def serves_client(client: RawClient) -> None:
    """Check that a call on this connection is answered."""
    stream = await client.open("/llamad.v1.Llamad/GetVersion")
    await client.send_data(stream, message(b""), end=True)
    await client.status(stream)
    assert any(f[0] == DATA and f[2] == stream for f in client.frames)
    client.frames.clear()


@asynccontextmanager
async def service_process(
    max_descriptors: int = 1024, **limits_of_child: float
) -> AsyncIterator[ServiceProcess]:
    """Run a service in a child that may have so many descriptors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rpc.service_process",
        str(max_descriptors),
        *(f"{name}={value}" for name, value in limits_of_child.items()),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        path = Path((await process.stdout.readline()).decode().strip())
        yield ServiceProcess(process, path)
    finally:
        process.stdin.close()
        await process.wait()


async def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
    for name, _, value in (argument.partition("=") for argument in sys.argv[2:]):
        assert hasattr(limits, name)
        setattr(limits, name, float(value))
    async with serving(credentials=credentials) as service:
        service.bench.engine.rule = saying("An answer.")
        _forget(service.bench)
        print(service.path, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _forget(bench: Bench) -> None:
    """Let the fakes remember the last of what they have seen, not all: memory is measured here."""
    bench.engine.steps = deque(maxlen=1)  # type: ignore[assignment]
    bench.observer.ended = deque(maxlen=1)  # type: ignore[assignment]
    bench.model.samplers = deque(maxlen=1)  # type: ignore[assignment]


if __name__ == "__main__":
    asyncio.run(_serve())
