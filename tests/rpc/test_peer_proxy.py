"""The peer proxy before a listening socket that stands in for gRPC's: bytes, ends, limits."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamad.door import limits
from llamad.door.caller import Caller
from llamad.door.limits import HELD_BYTES
from llamad.door.peer_proxy import PeerProxy
from llamad.door.unix_socket import listen
from unit.schedule.fakes import asynchronous

USER = Caller(uid=1000, is_admin=False)
ADMIN = Caller(uid=0, is_admin=True)
MOST_IN_SOCKETS = 4 << 20  # what the kernel may hold of one direction in its two sockets, and more


class Stage:
    """A peer proxy, the listener behind it, and both ends of each connection."""

    def __init__(self, folder: Path, identify: Callable[[socket.socket], Caller]) -> None:
        self.loop = asyncio.get_running_loop()
        self.path = folder / "public"
        self.behind = listen(folder / "private", -1, 0o600)
        self.behind.setblocking(False)
        listener = listen(self.path, -1, 0o600)
        self.proxy = PeerProxy(listener, str(folder / "private"), identify)
        self.proxy.start()

    async def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        await self.loop.sock_connect(client, str(self.path))
        return client

    async def joined(self) -> tuple[socket.socket, socket.socket]:
        """Return a client's end and the end that gRPC would have."""
        client = await self.connect()
        service, _ = await self.loop.sock_accept(self.behind)
        return client, service

    async def fill(self, end: socket.socket) -> int:
        """Send until the other end would have to read; return the bytes sent."""
        sent = blocked = 0
        while blocked < 100:  # turns of the event loop, in which the proxy could take more
            try:
                sent += end.send(bytes(HELD_BYTES))
                blocked = 0
            except BlockingIOError:
                blocked += 1
                await asyncio.sleep(0)
        return sent

    async def read(self, end: socket.socket) -> bytes:
        """Read to the end of the connection."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await self.loop.sock_recv(end, 1 << 20):
                received += data
        return received


@asynccontextmanager
async def stage(
    identify: Callable[[socket.socket], Caller] = lambda connection: USER,
) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory() as folder:
        made = Stage(Path(folder), identify)
        try:
            yield made
        finally:
            await made.proxy.close(0)
            made.behind.close()


def peer(service: socket.socket) -> str:
    """Return what gRPC tells as the peer of a connection."""
    name = service.getpeername()
    assert isinstance(name, bytes)
    return "unix-abstract:" + name[1:].decode()


@pytest.fixture
def few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(limits, "RESERVED_CONNECTIONS", 1)


def open_sockets() -> set[str]:
    """Return the sockets of this process: each has a number that none had before."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, by whomever
            found.add(str(path.readlink()))
    return {target for target in found if target.startswith("socket:")}


@asynchronous
async def test_bytes_pass_in_both_directions_and_the_caller_is_known_by_the_peer() -> None:
    async with stage() as s:
        client, service = await s.joined()
        assert s.proxy.caller(peer(service)) == USER
        await s.loop.sock_sendall(client, b"question")
        assert await s.loop.sock_recv(service, 100) == b"question"
        await s.loop.sock_sendall(service, b"answer")
        assert await s.loop.sock_recv(client, 100) == b"answer"
        assert s.proxy.caller("unix-abstract:llamad-0") is None
        client.close()
        assert await s.read(service) == b""
        assert s.proxy.caller(peer(service)) is None
        service.close()


@asynchronous
async def test_every_connection_has_a_name_of_its_own() -> None:
    async with stage() as s:
        ends = [await s.joined() for _ in range(3)]
        assert len({peer(service) for _, service in ends}) == 3
        for client, service in ends:
            client.close()
            service.close()


@pytest.mark.parametrize("client_sends", [True, False])
def test_a_side_that_does_not_read_stops_the_other_and_gets_every_byte_later(
    client_sends: bool,
) -> None:
    @asynchronous
    async def body() -> None:
        async with stage() as s:
            ends = await s.joined()
            sender, reader = ends if client_sends else reversed(ends)
            held = await s.fill(sender)
            assert held < MOST_IN_SOCKETS
            data = os.urandom(1 << 20)
            sending = asyncio.create_task(s.loop.sock_sendall(sender, data))
            received = b""
            while len(received) < held + len(data):
                received += await s.loop.sock_recv(reader, 1 << 20)
            await sending
            assert received == bytes(held) + data
            sender.close()
            reader.close()

    body()


@asynchronous
async def test_a_user_who_takes_no_answers_asks_no_more_until_they_are_taken() -> None:
    async with stage() as s:
        client, service = await s.joined()
        answers = await s.fill(service)
        questions = await s.fill(client)
        with pytest.raises(BlockingIOError):
            service.recv(1)
        while answers:
            answers -= len(await s.loop.sock_recv(client, 1 << 20))
        while questions:
            questions -= len(await s.loop.sock_recv(service, 1 << 20))
        client.close()
        service.close()


@asynchronous
async def test_an_administrator_who_takes_no_answers_is_heard() -> None:
    async with stage(lambda connection: ADMIN) as s:
        client, service = await s.joined()
        await s.fill(service)
        await s.loop.sock_sendall(client, b"question")
        assert await s.loop.sock_recv(service, 100) == b"question"
        client.close()
        service.close()


@asynchronous
async def test_a_client_that_never_reads_and_ends_is_noticed_at_once() -> None:
    async with stage() as s:
        client, service = await s.joined()
        await s.fill(service)
        client.close()
        with contextlib.suppress(ConnectionError):
            assert await s.loop.sock_recv(service, 1) == b""
        service.close()


@asynchronous
async def test_what_the_service_wrote_last_reaches_the_client_before_the_end() -> None:
    async with stage() as s:
        client, service = await s.joined()
        sent = await s.fill(service)
        service.close()
        assert len(await s.read(client)) == sent
        client.close()


@asynchronous
async def test_the_last_answer_reaches_a_client_that_still_sends() -> None:
    async with stage() as s:
        client, service = await s.joined()
        goodbye = os.urandom(2 * HELD_BYTES)  # more than is passed on in one go
        assert service.send(goodbye) == len(goodbye)
        service.close()
        client.send(b"question")  # meets a closed socket before all of the answer is on its way
        assert await s.read(client) == goodbye
        client.close()


@asynchronous
async def test_connections_beyond_the_limit_are_closed_and_the_log_says_so_once(
    few_connections: None, caplog: pytest.LogCaptureFixture
) -> None:
    who = [USER]
    async with stage(lambda connection: who[0]) as s:
        ends = [await s.joined() for _ in range(3)]
        for _ in range(3):
            refused = await s.connect()
            assert await s.read(refused) == b""
            refused.close()
        said = [message for message in caplog.messages if "connections refused" in message]
        assert said == ['connections refused reason="too many connections" connections=3']
        who[0] = ADMIN
        ends.append(await s.joined())  # the last place is for administrators
        refused = await s.connect()
        assert await s.read(refused) == b""
        refused.close()
        client, service = ends.pop()
        client.close()
        assert await s.read(service) == b""
        service.close()
        ends.append(await s.joined())
        for client, service in ends:
            client.close()
            service.close()


@asynchronous
async def test_a_user_with_too_many_connections_keeps_no_other_user_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_OF_A_USER", 2)
    who = [USER]
    async with stage(lambda connection: who[0]) as s:
        ends = [await s.joined() for _ in range(2)]
        refused = await s.connect()
        assert await s.read(refused) == b""
        assert any("too many connections of user 1000" in message for message in caplog.messages)
        who[0] = Caller(uid=1001, is_admin=False)
        ends.append(await s.joined())
        who[0] = ADMIN
        ends.extend([await s.joined() for _ in range(3)])
        for end in (refused, *(end for pair in ends for end in pair)):
            end.close()


class Exhausted(socket.socket):
    """A listener of a process that has no descriptor left when it accepts first."""

    n_failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.n_failures:
            self.n_failures -= 1
            raise OSError(24, "Too many open files")
        return super().accept()


@asynchronous
async def test_a_lack_of_descriptors_passes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE_SECONDS", 0)
    with tempfile.TemporaryDirectory() as folder:
        behind = listen(Path(folder) / "private", -1, 0o600)
        behind.setblocking(False)
        listener = Exhausted(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{folder}/public")
        listener.listen()
        under_test = PeerProxy(listener, f"{folder}/private", lambda connection: USER)
        under_test.start()
        loop = asyncio.get_running_loop()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        await loop.sock_connect(client, f"{folder}/public")
        service, _ = await loop.sock_accept(behind)
        assert any("Too many open files" in message for message in caplog.messages)
        await under_test.close(0)
        for end in (client, service, behind):
            end.close()


@asynchronous
async def test_a_client_whose_credentials_cannot_be_read_is_refused() -> None:
    def unreadable(connection: socket.socket) -> Caller:
        raise OSError(107, "Transport endpoint is not connected")

    async with stage(unreadable) as s:
        client = await s.connect()
        assert await s.read(client) == b""
        client.close()


@asynchronous
async def test_a_connection_is_closed_when_nobody_listens_behind() -> None:
    async with stage() as s:
        s.behind.close()
        client = await s.connect()
        assert await s.read(client) == b""
        client.close()


@asynchronous
async def test_closing_ends_connections_that_do_not_end_themselves_and_leaks_nothing() -> None:
    before = open_sockets()
    async with stage() as s:
        ends = [await s.joined() for _ in range(5)]
        await s.fill(ends[0][1])
        ends[1][0].close()
        ends[2][1].close()
        await s.proxy.close(0)
        assert await s.read(ends[3][0]) == await s.read(ends[3][1]) == b""
        with pytest.raises(ConnectionRefusedError):
            await s.connect()
        for client, service in ends:
            client.close()
            service.close()
    assert open_sockets() <= before


@asynchronous
async def test_closing_waits_for_connections_that_end_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as s:
        client, service = await s.joined()
        sent = await s.fill(service)
        service.close()
        closing = asyncio.create_task(s.proxy.close(60))
        assert len(await s.read(client)) == sent
        await closing
        client.close()


@asynchronous
async def test_a_user_beyond_the_pace_is_read_later_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TRAFFIC_AT_ONCE", 1.0)
    monkeypatch.setattr(limits, "TRAFFIC_A_SECOND", 1e9)
    async with stage() as s:
        client, service = await s.joined()
        data = os.urandom(1 << 20)
        sending = asyncio.create_task(s.loop.sock_sendall(client, data))
        received = b""
        while len(received) < len(data):
            received += await s.loop.sock_recv(service, 1 << 20)
        await sending
        assert received == data
        client.close()
        service.close()


@asynchronous
async def test_an_administrator_is_read_at_any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRAFFIC_AT_ONCE", 1.0)
    monkeypatch.setattr(limits, "TRAFFIC_A_SECOND", 1e-9)
    async with stage(lambda connection: ADMIN) as s:
        client, service = await s.joined()
        for _ in range(2):
            await s.loop.sock_sendall(client, b"question")
            assert await s.loop.sock_recv(service, 100) == b"question"
        client.close()
        service.close()


@asynchronous
async def test_a_client_that_takes_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNREAD_SECONDS", 0.01)
    async with stage() as s:
        client, service = await s.joined()
        with contextlib.suppress(ConnectionError):  # where it is disconnected before it is full
            await s.fill(service)
        assert await s.read(service) == b""
        client.close()
        service.close()


@asynchronous
async def test_a_user_who_connects_too_often_is_refused_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_AT_ONCE", 1.0)
    monkeypatch.setattr(limits, "CONNECTIONS_A_SECOND", 1e-9)
    who = [USER]
    async with stage(lambda connection: who[0]) as s:
        ends = [await s.joined()]
        refused = await s.connect()
        assert await s.read(refused) == b""
        assert any("too many connections a second of user 1000" in m for m in caplog.messages)
        for other in (Caller(uid=1001, is_admin=False), ADMIN):
            who[0] = other
            ends.append(await s.joined())
        for end in (refused, *(end for pair in ends for end in pair)):
            end.close()
