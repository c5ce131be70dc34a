"""The gRPC server behind its public socket: options, limits, starting, stopping.

Owns the grpc.aio server, the peer proxy that accepts for it, and the socket file while it listens.
It knows no method; services come in from outside. Any ``:authority`` is accepted: the permissions
of the socket decide who may connect.
"""

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from llamad.door import limits
from llamad.door.caller import Caller, CallerGroups, Credentials, peer_credentials
from llamad.door.capacity import FULL, Capacity
from llamad.door.peer_proxy import PeerProxy
from llamad.door.unix_socket import NamelessSocket, group_id, listen, make_room
from llamad.errors import ErrorKind, LlamadError
from llamad.rpc.admin_service import ADMIN_NAME, AdminService
from llamad.rpc.health import SERVICE_NAME as HEALTH_NAME
from llamad.rpc.health import Health
from llamad.rpc.interceptor import CallInterceptor
from llamad.rpc.llamad_service import LLAMAD_NAME, LlamadService
from llamad.rpc.reflection import SERVICE_NAMES as REFLECTION_NAMES
from llamad.rpc.reflection import Reflection, published_files
from llamad_api.v1 import admin_pb2_grpc, llamad_pb2_grpc

FLUSH_SECONDS = 1.0  # for clients to take the last answers, once every call has ended
_IDENTITY_ONLY = 1  # a bit for each of grpc_compression_algorithm; a message expands 1,000 times

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.server.max_pending_requests", limits.WAITING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", limits.WAITING_CALLS),
    ("grpc.max_metadata_size", limits.METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", limits.METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
    # What a stream may send before anybody reads it; gRPC would let it grow with the traffic.
    ("grpc.http2.lookahead_bytes", limits.WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE_SECONDS * 1000)),
    ("grpc.so_reuseport", 0),
    # A client that stopped (SIGSTOP, a hung host program) is noticed and its jobs are freed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Against ping floods: a client that pings more often is disconnected.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
)


class RpcServer:
    """The server's life: ``start``, then ``stop``. Both on the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        mode: int,
        group: str,
        admin_group: str,
        gateway_group: str = "",
        llamad: LlamadService,
        admin: AdminService,
        health: Health | None = None,
        credentials: Callable[[socket.socket], Credentials] = peer_credentials,
        capacity: Capacity = FULL,
        on_call_failed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Serve these services; ``health`` None makes one that starts as NOT_SERVING.

        ``credentials`` returns whose process made a connection; ``on_call_failed`` hears the reason
        of every call that ends with an error.
        """
        self.path = path
        self.health = health or Health([LLAMAD_NAME, ADMIN_NAME, HEALTH_NAME, *REFLECTION_NAMES])
        self._mode = mode
        self._group = group
        self._groups = CallerGroups(admin_group, gateway_group)
        self._credentials = credentials
        self._capacity = capacity
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(self._caller, admin_group, on_call_failed, capacity)],
            options=[
                *_OPTIONS,
                ("grpc.max_concurrent_streams", capacity.streams_of_a_connection),
            ],
        )
        llamad_pb2_grpc.add_LlamadServicer_to_server(llamad, self._server)  # type: ignore[no-untyped-call]
        admin_pb2_grpc.add_AdminServicer_to_server(admin, self._server)  # type: ignore[no-untyped-call]
        self._server.add_generic_rpc_handlers(self._standard_handlers())
        self._private: NamelessSocket | None = None
        self._peer_proxy: PeerProxy | None = None
        self._identity: tuple[int, int] | None = None  # (device, inode) of the bound socket

    def _standard_handlers(self) -> Iterable[Any]:
        return (self.health.handler(), *Reflection(published_files()).handlers())

    async def start(self) -> None:
        """Bind the sockets and serve. Raises the LlamadError of a socket that cannot be had."""
        gid = group_id(self._group)
        make_room(self.path)
        with contextlib.ExitStack() as undo:
            self._private = undo.enter_context(contextlib.closing(self._make_private()))
            listener = undo.enter_context(listen(self.path, gid, self._mode))
            undo.callback(self._remove)
            status = self.path.stat()
            self._identity = (status.st_dev, status.st_ino)
            await self._server.start()
            self._peer_proxy = PeerProxy(
                listener, self._private.address, self._identify, self._capacity
            )
            self._peer_proxy.start()
            undo.pop_all()

    def _make_private(self) -> NamelessSocket:
        try:
            return NamelessSocket(self.path.parent, self._bind)
        except OSError as error:
            raise LlamadError(
                ErrorKind.STATE,
                "SOCKET_UNUSABLE",
                f"socket {self.path}: no private socket beside it: {error.strerror}",
            ) from error

    def _bind(self, path: str) -> None:
        try:
            bound = self._server.add_insecure_port("unix:" + path)
        except RuntimeError:
            bound = 0
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, "gRPC cannot bind it")

    def _identify(self, connection: socket.socket) -> Caller:
        return self._groups.caller(self._credentials(connection))

    def _caller(self, peer: str) -> Caller | None:
        return None if self._peer_proxy is None else self._peer_proxy.caller(peer)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, give running ones the grace, end the rest, remove the socket."""
        if self._peer_proxy is not None:
            self._peer_proxy.refuse()
        self._remove()
        await self._server.stop(grace_seconds)
        if self._peer_proxy is not None:
            await self._peer_proxy.close(FLUSH_SECONDS)
        if self._private is not None:
            self._private.close()

    def _remove(self) -> None:
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return
        if (status.st_dev, status.st_ino) == self._identity:
            self.path.unlink()
