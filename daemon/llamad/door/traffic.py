"""What one connection of a user carries: its pace, and the requests on it that are not whole yet.

Owns the account of a connection: what its bytes, frames and calls cost of the user's allowance, and
how much each open stream has sent. gRPC 1.51 receives a message of any announced length before it
refuses it, so a stream that sent too much is reset here, towards both ends. It does no reading or
writing; ``peer_proxy.py`` does.
"""

from collections.abc import Callable

from llamad.door import limits
from llamad.door.allowance import Allowance
from llamad.door.capacity import FULL, Capacity
from llamad.door.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE_BYTES,
    RST_STREAM,
    Frame,
    FrameReader,
    reset,
)


class TooMuchError(Exception):
    """The client sends what no client sends that means well."""


class UserAllowance:
    """What one user may use up, on all connections together."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin with all of it; ``now`` is a clock in seconds."""
        self.connections = Allowance(limits.CONNECTIONS_A_SECOND, limits.CONNECTIONS_AT_ONCE, now)
        self.traffic = Allowance(limits.TRAFFIC_A_SECOND, limits.TRAFFIC_AT_ONCE, now)  # bytes
        self.calls = Allowance(limits.CALLS_A_SECOND, limits.CALLS_AT_ONCE, now)

    def seconds_to_wait(self) -> float:
        """Return the seconds until more may be read of the user's connections, often 0."""
        return max(self.traffic.use(0), self.calls.use(0))

    def is_untouched(self) -> bool:
        """Return whether forgetting this user makes no difference."""
        return all(a.is_untouched() for a in (self.connections, self.traffic, self.calls))


class Traffic:
    """The account of one connection."""

    def __init__(
        self, user: UserAllowance, now: Callable[[], float], capacity: Capacity = FULL
    ) -> None:
        """Charge what the client sends to its user; ``now`` is a clock in seconds."""
        self._user = user
        self._most_unfinished_bytes = capacity.message_bytes + limits.WINDOW_BYTES
        self._capacity = capacity
        self._pings = Allowance(limits.PINGS_A_SECOND, limits.PINGS_AT_ONCE, now)
        self._requests = FrameReader(PREFACE_BYTES)
        self._answers = FrameReader()
        self._unfinished: dict[int, int] = {}  # bytes by open stream, until its request is whole
        self._header_bytes = 0  # of the last headers, with their continuations
        self._resets_to_service: list[int] = []  # streams
        self._resets_to_client: list[int] = []

    def request(self, data: bytes) -> bytes:
        """Take note of what the client sent; return what to pass on. Raises TooMuchError."""
        cost, n_calls = float(len(data)), 0
        between: int | None = None  # where in the data a frame begins, after the resets were due
        for frame in self._requests.read(data):
            kind, place = frame[0], frame[4]
            if self._resets_to_service and between is None and place >= 0:
                between = place
            cost += limits.FRAME_COST
            n_calls += kind == HEADERS
            if kind in (HEADERS, CONTINUATION):
                self._note_headers(frame)
            if kind <= RST_STREAM:
                self._note_request(frame)
            elif kind == PING and not frame[1] & ACK and self._pings.use(1):
                raise TooMuchError("too many pings")
        self._user.traffic.use(cost)
        self._user.calls.use(n_calls)
        if not self._resets_to_service:
            return data
        if between is None:
            if not self._requests.between_frames:
                return data  # until a frame ends
            between = len(data)
        resets = b"".join(map(reset, self._resets_to_service))
        self._resets_to_service.clear()
        return data[:between] + resets + data[between:]

    def _note_headers(self, frame: Frame) -> None:
        kind, _, _, size, _ = frame
        self._header_bytes = size + (self._header_bytes if kind == CONTINUATION else 0)
        if self._header_bytes > limits.HEADER_BLOCK_BYTES:
            raise TooMuchError(f"headers of {self._header_bytes} bytes")

    def _note_request(self, frame: Frame) -> None:
        kind, flags, stream, size, _ = frame
        if kind == RST_STREAM or (flags & END_STREAM and kind in (DATA, HEADERS)):
            self._unfinished.pop(stream, None)
        elif kind == HEADERS:
            self._unfinished.setdefault(stream, 0)
            if len(self._unfinished) > 2 * self._capacity.streams_of_a_connection:
                raise TooMuchError(f"{len(self._unfinished)} streams")
        elif kind == DATA and stream in self._unfinished:
            self._add(stream, size)

    def _add(self, stream: int, size: int) -> None:
        before = self._unfinished[stream]
        total = self._unfinished[stream] = before + size
        if total > 2 * self._most_unfinished_bytes:
            raise TooMuchError(f"a request of {total} bytes that is not whole")
        if before <= self._most_unfinished_bytes < total:
            self._resets_to_service.append(stream)
            self._resets_to_client.append(stream)

    def answer(self, data: bytes) -> bytes:
        """Take note of what gRPC answers; return what to pass on to the client."""
        for kind, flags, stream, _, _ in self._answers.read(data):
            if kind in (DATA, HEADERS):
                self._pings.refill()
            if kind == RST_STREAM or (flags & END_STREAM and kind in (DATA, HEADERS)):
                self._unfinished.pop(stream, None)
        return data + self.pending_answer()

    def pending_answer(self) -> bytes:
        """Return the resets that the client is to get, if a frame can begin now."""
        if not self._resets_to_client or not self._answers.between_frames:
            return b""
        resets = b"".join(map(reset, self._resets_to_client))
        self._resets_to_client.clear()
        return resets
