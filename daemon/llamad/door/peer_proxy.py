"""The public socket: accepts connections, learns who connects, and passes the bytes on to gRPC.

gRPC hides which process is at the other end of a Unix socket, and takes no accepted connection from
others. So this proxy accepts, reads the credentials, and joins each connection to one of its own to
gRPC's private socket. It gives that one a name nobody can guess and none has had before; gRPC tells
the name as the peer of each call, and ``PeerProxy.caller`` tells whose connection it is.

Owns the accepted connections, their limits, and the pace at which those of a user are read. What
their bytes cost is known to ``traffic.py``; what administrators send is passed on unread.
Everything here runs on the event loop's thread, when a socket is ready; no socket call blocks.
"""

import asyncio
import contextlib
import errno
import logging
import resource
import secrets
import socket
from collections.abc import Callable
from functools import partial

from llamad.door import limits
from llamad.door.caller import Caller
from llamad.door.capacity import FULL, Capacity
from llamad.door.traffic import TooMuchError, Traffic, UserAllowance
from llamad.logs import fields

log = logging.getLogger(__name__)


class PeerProxy:
    """Accepts on a listening socket and joins each connection to one to gRPC's private socket."""

    def __init__(
        self,
        listener: socket.socket,
        private: str,
        identify: Callable[[socket.socket], Caller],
        capacity: Capacity = FULL,
    ) -> None:
        """Own the listener from now on; ``private`` is the address of gRPC's socket.

        ``identify`` may raise OSError, which ends the connection.
        """
        self._capacity = capacity
        self._listener = listener
        self._private = private
        self._identify = identify
        self._loop = asyncio.get_running_loop()
        self._splices: dict[str, _Splice] = {}  # by the peer that gRPC tells
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        possible = (descriptors - limits.OTHER_DESCRIPTORS) // limits.DESCRIPTORS_OF_A_CONNECTION
        self._max_connections = min(capacity.connections, possible)
        self._most_of_a_user = min(capacity.connections_of_a_user, possible // 2)
        self._users: dict[int, UserAllowance] = {}  # who connected and is no administrator
        self._idle = asyncio.Event()
        self._idle.set()
        self._complained = False  # in the log, about connections that could not be had
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def caller(self, peer: str) -> Caller | None:
        """Return who made the connection with this peer; None when it has ended, or is not ours."""
        splice = self._splices.get(peer)
        return None if splice is None else splice.caller

    def start(self) -> None:
        """Accept connections from now on."""
        self._loop.add_reader(self._listener, self._accept)

    def refuse(self) -> None:
        """Accept no more connections, and close the listener; those that are there go on."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() != -1:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def close(self, seconds: float) -> None:
        """Refuse new connections, give the others the seconds to end, and end the rest."""
        self.refuse()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            for splice in list(self._splices.values()):
                splice.end()

    # ---- accepting -------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:  # it left again
            return
        except OSError as error:
            self._complain(str(error.strerror))
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(limits.ACCEPT_PAUSE_SECONDS, self.start)
            return
        with contextlib.ExitStack() as undo:
            undo.callback(client.close)
            try:
                self._admit(client)
            except OSError as error:
                self._complain(str(error.strerror))
                return
            undo.pop_all()

    def _admit(self, client: socket.socket) -> None:
        """Join a connection to gRPC. Raises OSError when it cannot be had."""
        caller = self._identify(client)
        user = None if caller.is_admin else self._user(caller.uid)
        self._check_limits(caller, user)
        name = "llamad-" + secrets.token_hex(16)
        service = self._connected(name)
        peer = "unix-abstract:" + name
        splice = _Splice(caller, client, service, lambda: self._ended(peer))
        if user is not None:
            splice.limit(user, self._capacity)
        self._splices[peer] = splice
        self._idle.clear()

    def _user(self, uid: int) -> UserAllowance:
        """Return what a user has left; forget those who have been away for long."""
        if uid not in self._users:
            connected = {splice.caller.uid for splice in self._splices.values()}
            for other, user in list(self._users.items()):
                if other not in connected and user.is_untouched():
                    del self._users[other]
            self._users[uid] = UserAllowance(self._loop.time)
        return self._users[uid]

    def _check_limits(self, caller: Caller, user: UserAllowance | None) -> None:
        """Raise OSError when there are too many connections, in all or of this user."""
        if user is not None and user.connections.use(1):
            raise OSError(errno.EUSERS, f"too many connections a second of user {caller.uid}")
        reserved = 0 if caller.is_admin else self._capacity.reserved_connections
        if len(self._splices) >= self._max_connections - reserved:
            raise OSError(errno.EUSERS, "too many connections")
        of_user = sum(splice.caller.uid == caller.uid for splice in self._splices.values())
        if not caller.is_admin and of_user >= self._most_of_a_user:
            raise OSError(errno.EUSERS, f"too many connections of user {caller.uid}")

    def _connected(self, name: str) -> socket.socket:
        """Return a connection to gRPC under this name; it is there at once, or not at all."""
        with contextlib.ExitStack() as undo:
            connection = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.setblocking(False)
            connection.bind("\0" + name)
            connection.connect(self._private)
            undo.pop_all()
        return connection

    def _ended(self, peer: str) -> None:
        del self._splices[peer]
        if len(self._splices) < self._max_connections // 2:
            self._complained = False
        if not self._splices:
            self._idle.set()

    def _complain(self, reason: str) -> None:
        if not self._complained:
            log.warning(
                fields("connections refused", reason=reason, connections=len(self._splices))
            )
        self._complained = True


class _Splice:
    """A client's connection and one to gRPC, joined until either ends."""

    def __init__(
        self,
        caller: Caller,
        client: socket.socket,
        service: socket.socket,
        on_end: Callable[[], None],
    ) -> None:
        """Own both sockets and pass bytes from now on."""
        self.caller = caller
        self._client = client
        self._service = service
        self._on_end = on_end
        client.setblocking(False)
        # A client that ended reads no more either, and gRPC is to know at once: jobs hang on it.
        self._requests = _Pipe(client, service, self.end, self._let_last_answers_through)
        self._answers = _Pipe(service, client, self.end, self.end)
        self._answers.unread_seconds = limits.UNREAD_SECONDS

    def limit(self, user: UserAllowance, capacity: Capacity) -> None:
        """Pass on no more than a user is allowed."""
        traffic = Traffic(user, asyncio.get_running_loop().time, capacity)
        self._requests.read_bytes = limits.METERED_READ_BYTES
        self._requests.seconds_to_wait = user.seconds_to_wait
        self._requests.watch = partial(self._watch_request, traffic)
        # Who takes no answers asks no more: gRPC would keep the answers of all those calls.
        self._answers.on_held = self._requests.rest
        self._answers.watch = traffic.answer

    def _watch_request(self, traffic: Traffic, data: bytes) -> bytes:
        try:
            data = traffic.request(data)
        except TooMuchError as error:
            log.warning(fields("connection ended", user=self.caller.uid, reason=str(error)))
            self.end()
            return b""
        if resets := traffic.pending_answer():
            log.warning(fields("request too large", user=self.caller.uid))
            self._answers.insert(resets)
        return data

    def end(self) -> None:
        """Close both sides now; gRPC's answers up to its own end have been sent then."""
        if self._client.fileno() == -1:
            return
        self._requests.stop()
        self._answers.stop()
        self._client.close()
        self._service.close()
        self._on_end()

    def _let_last_answers_through(self) -> None:
        self._requests.stop()
        with contextlib.suppress(OSError):
            self._service.shutdown(socket.SHUT_WR)  # unless it is closed already: it will be now


class _Pipe:
    """One direction: what the source sends is written to the target, as fast as it takes it."""

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        on_source_end: Callable[[], None],
        on_target_end: Callable[[], None],
    ) -> None:
        """Pass bytes from now on."""
        self.watch: Callable[[bytes], bytes] = _unchanged  # from what came to what is passed on
        self.read_bytes = limits.HELD_BYTES
        self.seconds_to_wait: Callable[[], float] = _nothing  # until the source may be read
        self.unread_seconds: float | None = None  # until a target that takes nothing has ended
        self.on_held: Callable[[bool], None] = _ignored  # whether something is held, at each change
        self._source = source
        self._target = target
        self._on_source_end = on_source_end
        self._on_target_end = on_target_end
        self._held = b""  # read, and not taken by the target; nothing is read while there is some
        self._pause: asyncio.TimerHandle | None = None  # nothing is read either until it has passed
        self._rests = False  # nor while the other direction has somebody to wait for
        self._unread: asyncio.TimerHandle | None = None  # while something is held
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(source, self._read)

    def stop(self) -> None:
        """Pass nothing on any more."""
        self._stopped = True
        for timer in (self._pause, self._unread):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)

    def rest(self, rests: bool) -> None:
        """Read nothing from now on, or again. A target that ends is noticed all the same."""
        self._rests = rests
        if not self._stopped:
            self._loop.remove_reader(self._source)
            self._read_on()

    def _resume(self) -> None:
        self._pause = None
        self._read_on()

    def _read_on(self) -> None:
        """Read the source, unless something is still to be waited for."""
        if not (self._stopped or self._held or self._rests or self._pause is not None):
            self._loop.add_reader(self._source, self._read)

    def insert(self, data: bytes) -> None:
        """Pass on what did not come from the source."""
        if self._held:
            self._held += data
        elif not self._stopped:
            self._pass_on(data)

    def _read(self) -> None:
        if seconds := self.seconds_to_wait():
            self._loop.remove_reader(self._source)
            self._pause = self._loop.call_later(seconds, self._resume)
            return
        try:
            data = self._source.recv(self.read_bytes)
        except BlockingIOError:
            return
        except OSError:  # reset by the other end
            data = b""
        if not data:
            self._on_source_end()
            return
        data = self.watch(data)
        if not self._stopped:
            self._pass_on(data)

    def _pass_on_held(self) -> None:
        self._pass_on(self._held)

    def _pass_on(self, data: bytes) -> None:
        """Send what the target takes and hold the rest; the source is read when nothing is held."""
        try:
            rest = data[self._target.send(data) :]
        except BlockingIOError:
            rest = data
        except OSError:
            self._on_target_end()
            return
        held, self._held = self._held, rest
        if rest and not held:
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._pass_on_held)
            self.on_held(True)
        elif held and not rest:
            self._loop.remove_writer(self._target)
            self._read_on()
            self.on_held(False)
        self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        """Begin anew to wait for a target that has to take what is held."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._held and self.unread_seconds is not None:
            self._unread = self._loop.call_later(self.unread_seconds, self._on_target_end)


def _nothing() -> float:
    return 0.0


def _ignored(_: bool) -> None:
    pass


def _unchanged(data: bytes) -> bytes:
    return data
