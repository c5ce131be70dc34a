"""Who is an administrator, what only they may do, and that a caller cannot be somebody else."""

import asyncio
import grp
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from another_user import NOBODY
from clients.running import environment
from llamad.door import caller
from llamad.door.caller import Caller, CallerGroups, Credentials, peer_credentials
from llamad.door.unix_socket import NamelessSocket
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import ADMIN_GROUP, GATEWAY_GROUP, Service, error_of_call, serving
from unit.schedule.fakes import asynchronous

ALICE = Credentials(uid=54321, gids=frozenset({54321}))
BOB = Credentials(uid=54322, gids=frozenset({54322}))
GATEWAY = Credentials(uid=54324, gids=frozenset({54324, grp.getgrnam(GATEWAY_GROUP).gr_gid}))
MANAGER = Credentials(uid=54323, gids=frozenset({54323, grp.getgrnam(ADMIN_GROUP).gr_gid}))
ADMIN_METHODS = [m.name for m in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods]


def always(credentials: Credentials) -> Callable[[socket.socket], Credentials]:
    return lambda connection: credentials


async def admin_call(service: Service, method: str) -> tuple[grpc.StatusCode, str, str]:
    """Return code, message and reason of a call without a message's fields; OK has no reason."""
    async with service.channel() as channel:
        call = channel.stream_stream(f"/llamad.v1.Admin/{method}")(iter([b""]))
        try:
            code, message, metadata = await error_of_call(call)
        except AssertionError:
            return grpc.StatusCode.OK, "", ""
        return code, message, metadata.get("llamad-reason", "")


# ---- credentials ---------------------------------------------------------------------------------


def test_the_credentials_of_a_connection_are_the_users_and_all_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen = peer_credentials(ours)
    assert seen == Credentials(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


class WithoutGroups:
    """A connection of a user with more groups than the option returns."""

    def __init__(self, uid: int, gid: int) -> None:
        self._ucred = struct.pack("iII", 1, uid, gid)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == caller.SO_PEERGROUPS:
            raise OSError(34, "Numerical result out of range")
        return self._ucred


def test_where_the_kernel_does_not_tell_the_groups_the_user_database_does() -> None:
    seen = peer_credentials(WithoutGroups(0, 4))  # type: ignore[arg-type]
    assert seen == Credentials(0, frozenset(os.getgrouplist("root", 4)))
    assert peer_credentials(WithoutGroups(54321, 7)).gids == {7}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("credentials", "is_admin"),
    [
        (Credentials(0, frozenset()), True),
        (Credentials(os.geteuid(), frozenset()), True),
        (MANAGER, True),
        (ALICE, False),
    ],
)
def test_root_the_service_itself_and_the_group_are_administrators(
    credentials: Credentials, is_admin: bool
) -> None:
    who = CallerGroups(ADMIN_GROUP).caller(credentials)
    assert who == Caller(credentials.uid, is_admin)


@pytest.mark.parametrize("group", ["", "no-such-group"])
def test_a_group_that_does_not_exist_has_no_members(group: str) -> None:
    assert not CallerGroups(group).caller(MANAGER).is_admin


# ---- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ADMIN_METHODS)
@asynchronous
async def test_whoever_may_connect_may_list_models_and_nothing_else_of_admin(method: str) -> None:
    async with serving(credentials=always(ALICE)) as service:
        code, message, reason = await admin_call(service, method)
    if method == "ListModels":
        assert code is grpc.StatusCode.OK
    else:
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ADMIN")
        assert "only root and members of group root may " in message
        assert "user 54321 is not one of them" in message


@pytest.mark.parametrize("method", ADMIN_METHODS)
@asynchronous
async def test_a_member_of_the_group_is_not_refused(method: str) -> None:
    async with serving(credentials=always(MANAGER)) as service:
        code, _, _ = await admin_call(service, method)
    assert code is not grpc.StatusCode.PERMISSION_DENIED


@asynchronous
async def test_a_refusal_comes_before_the_request_is_parsed() -> None:
    async with serving(credentials=always(ALICE)) as service, service.channel() as channel:
        broken = channel.unary_unary("/llamad.v1.Admin/UseModel")(b"\xff\xff")
        code, _, _ = await error_of_call(broken)
    assert code is grpc.StatusCode.PERMISSION_DENIED


@asynchronous
async def test_everything_else_is_for_whoever_may_connect() -> None:
    async with serving(credentials=always(ALICE)) as service, service.stub() as stub:
        assert (await stub.GetVersion(pb.GetVersionRequest())).api_version == "v1"
        assert len((await stub.Tokenize(pb.TokenizeRequest(text="abc"))).tokens) == 3
        async for message in stub.Generate(pb.GenerateRequest(prompt="p")):
            last = message
        assert last.HasField("finished")


# ---- jobs ----------------------------------------------------------------------------------------


@asynchronous
async def test_a_job_is_cancelled_by_its_owner_and_by_administrators_only() -> None:
    who = [ALICE]
    async with serving(credentials=lambda connection: who[0]) as service:
        entered = service.bench.pause_step(0)
        async with service.stub() as alice:
            calls = [alice.Generate(pb.GenerateRequest(prompt="p")) for _ in range(2)]
            first, second = [(await call.read()).queued.job_id for call in calls]
            await entered.wait()
            who[0] = BOB
            async with service.stub() as bob:
                [listed, _] = (await bob.ListJobs(pb.ListJobsRequest())).jobs
                assert listed.owner_uid == ALICE.uid
                cancel = bob.CancelJob(pb.CancelJobRequest(id=first))
                code, message, metadata = await error_of_call(cancel)
                assert (code, metadata["llamad-reason"]) == (
                    grpc.StatusCode.PERMISSION_DENIED,
                    "NOT_OWNER",
                )
                assert f"job {first} belongs to user 54321" in message
            own = await alice.CancelJob(pb.CancelJobRequest(id=first))
            who[0] = MANAGER
            async with service.stub() as manager:
                others = await manager.CancelJob(pb.CancelJobRequest(id=second))
        assert own.job.state == others.job.state == pb.JOB_STATE_CANCELLED


@asynchronous
async def test_a_gateway_asks_for_users_it_names_and_may_cancel_what_it_asked() -> None:
    who = [GATEWAY]
    async with serving(credentials=lambda connection: who[0]) as service:
        entered = service.bench.pause_step(0)
        options = pb.Options(on_behalf_of="54321")  # a user without a name
        async with service.stub() as gateway:
            calls = [
                gateway.Generate(pb.GenerateRequest(prompt="p", options=options)) for _ in range(2)
            ]
            first, second = [(await call.read()).queued.job_id for call in calls]
            await entered.wait()
            listed = (await gateway.ListJobs(pb.ListJobsRequest())).jobs
            who[0] = BOB
            async with service.stub() as bob:
                cancel = bob.CancelJob(pb.CancelJobRequest(id=first))
                _, message, metadata = await error_of_call(cancel)
            who[0] = ALICE
            async with service.stub() as alice:
                await alice.CancelJob(pb.CancelJobRequest(id=first))
            await gateway.CancelJob(pb.CancelJobRequest(id=second))
    assert {(job.owner_uid, job.on_behalf_of) for job in listed} == {(GATEWAY.uid, "54321")}
    assert metadata["llamad-reason"] == "NOT_OWNER"
    assert f"job {first} belongs to user 54321" in message


@pytest.mark.parametrize("method", ["Generate", "Chat"])
@asynchronous
async def test_nobody_else_asks_for_others(method: str) -> None:
    options = pb.Options(on_behalf_of="anna")
    message: Any = {
        "Generate": pb.GenerateRequest(prompt="p", options=options),
        "Chat": pb.ChatRequest(messages=[pb.Message(role="user", content="p")], options=options),
    }[method]
    async with serving(credentials=always(ALICE)) as service, service.stub() as stub:
        code, text, metadata = await error_of_call(getattr(stub, method)(message).read())
    assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_GATEWAY")
    assert f"members of group {GATEWAY_GROUP} and administrators" in text


# ---- connections ---------------------------------------------------------------------------------


@asynchronous
async def test_the_private_socket_has_no_name_and_takes_no_strangers() -> None:
    async with serving() as service:
        names = {path.name for path in service.path.parent.iterdir()}
        assert names == {"llamad.sock", "models", "state"}
        private = service.server._private
        assert isinstance(private, NamelessSocket)
        async with grpc.aio.insecure_channel(f"unix:{private.address}") as channel:
            call = channel.unary_unary("/llamad.v1.Llamad/GetVersion")(b"")
            code, _, metadata = await error_of_call(call)
    assert (code, metadata["llamad-reason"]) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "UNKNOWN_CALLER",
    )


def test_the_private_socket_fits_in_a_folder_whose_path_is_nearly_too_long() -> None:
    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder) / ("d" * (105 - len(folder)))
        deep.mkdir()
        bound: list[Any] = []

        def bind(path: str) -> None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            assert (deep / Path(path).name).stat().st_mode & 0o777 == 0o600
            listener.listen()
            bound.append(listener)

        private = NamelessSocket(deep, bind)
        assert list(deep.iterdir()) == []
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(private.address)
        private.close()
        bound[0].close()


AS_NOBODY = """
import sys, grpc
from another_user import become_another_user
from llamad_api.v1 import admin_pb2, admin_pb2_grpc, llamad_pb2, llamad_pb2_grpc
become_another_user(groups=[54399])
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    print(llamad_pb2_grpc.LlamadStub(channel).GetVersion(llamad_pb2.GetVersionRequest()).api_version)
    try:
        admin_pb2_grpc.AdminStub(channel).UnloadModel(admin_pb2.UnloadModelRequest())
    except grpc.RpcError as error:
        print(error.code().name, dict(error.trailing_metadata())["llamad-reason"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@asynchronous
async def test_a_process_of_another_user_is_known_as_that_user() -> None:
    seen: list[Credentials] = []

    def credentials(connection: socket.socket) -> Credentials:
        seen.append(peer_credentials(connection))
        return seen[-1]

    async with serving(mode=0o666, credentials=credentials) as service:
        service.path.parent.chmod(0o755)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            AS_NOBODY,
            str(service.path),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await child.communicate()
    assert output.decode().splitlines() == ["v1", "PERMISSION_DENIED NOT_ADMIN"]
    assert set(seen) == {Credentials(NOBODY, frozenset({NOBODY, 54399}))}
