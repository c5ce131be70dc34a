"""What the peer proxy knows of a user's connection: where frames begin, what they cost, resets."""

import pytest

from llamad.door import limits
from llamad.door.allowance import Allowance
from llamad.door.capacity import Capacity
from llamad.door.frames import CONTINUATION, DATA, HEADERS, PING, RST_STREAM, FrameReader, reset
from llamad.door.traffic import TooMuchError, Traffic, UserAllowance
from rpc.http2_frames import ACK, END_HEADERS, END_STREAM, PREFACE, frame
from unit.schedule.fakes import FakeClock

MOST_UNFINISHED_BYTES = Capacity().message_bytes + limits.WINDOW_BYTES
PIECE = 16384


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def user(clock: FakeClock) -> UserAllowance:
    return UserAllowance(clock.now)


@pytest.fixture
def connection(user: UserAllowance, clock: FakeClock) -> Traffic:
    """Return a connection whose preface has been read."""
    made = Traffic(user, clock.now)
    assert made.request(PREFACE) == PREFACE
    return made


def opened(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, b"x")


def upload(connection: Traffic, stream: int, n_bytes: int) -> bytes:
    """Send data in frames, each in a piece of its own; return what was passed on."""
    return b"".join(
        connection.request(frame(DATA, 0, stream, bytes(min(PIECE, n_bytes - sent))))
        for sent in range(0, n_bytes, PIECE)
    )


# ---- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8, 9, 10, 100])
def test_frames_are_found_however_their_bytes_are_cut(n: int) -> None:
    frames = [(HEADERS, END_HEADERS, 1, 20), (DATA, END_STREAM, 1, 0), (PING, 0, 0, 8)]
    data = b"".join(frame(kind, flags, stream, bytes(size)) for kind, flags, stream, size in frames)
    reader = FrameReader(3)
    data = b"pre" + data
    found = [f[:4] for i in range(0, len(data), n) for f in reader.read(data[i : i + n])]
    assert found == frames
    assert reader.between_frames


def test_a_frame_says_where_it_begins_and_the_reserved_bit_of_its_stream_is_none() -> None:
    reader = FrameReader()
    data = frame(PING, 0, 0, bytes(8)) + frame(DATA, 0, 1 << 31 | 5)
    assert [(f[2], f[4]) for f in reader.read(data[:20])] == [(0, 0)]
    assert not reader.between_frames
    assert [(f[2], f[4]) for f in reader.read(data[20:])] == [(5, -3)]


# ---- allowances ----------------------------------------------------------------------------------


def test_an_allowance_grows_to_its_limit_and_may_be_exceeded_once(clock: FakeClock) -> None:
    allowance = Allowance(2, 10, clock.now)
    assert (allowance.use(10), allowance.is_untouched()) == (0, False)
    assert allowance.use(4) == 2
    clock.advance(1)
    assert allowance.use(0) == 1
    clock.advance(100)
    assert allowance.is_untouched()
    assert allowance.use(11) == 0.5
    allowance.refill()
    assert allowance.is_untouched()


@pytest.mark.parametrize(
    ("data", "n"),
    [
        (frame(0x77, 0, 0), limits.TRAFFIC_AT_ONCE / (9 + limits.FRAME_COST)),
        (frame(0x77, 0, 0, bytes(PIECE)), limits.TRAFFIC_AT_ONCE / (PIECE + 109)),
        (opened(1) + frame(RST_STREAM, 0, 1, bytes(4)), limits.CALLS_AT_ONCE),
    ],
)
def test_a_user_waits_after_so_many_frames_of_any_connection(
    user: UserAllowance, clock: FakeClock, data: bytes, n: float
) -> None:
    connections = [Traffic(user, clock.now) for _ in range(2)]
    for connection in connections:
        connection.request(PREFACE)
    for i in range(int(n) - 1):
        assert not user.seconds_to_wait()
        connections[i % 2].request(data)
    for connection in connections:
        connection.request(data)
    assert user.seconds_to_wait() > 0
    clock.advance(60)
    assert not user.seconds_to_wait()
    assert user.is_untouched()


def test_pings_are_counted_until_something_is_answered(connection: Traffic) -> None:
    ping, answer = frame(PING, 0, 0, bytes(8)), frame(DATA, 0, 1, b"token")
    for _ in range(5):
        connection.request(ping * int(limits.PINGS_AT_ONCE))
        connection.request(frame(PING, ACK, 0, bytes(8)) * 100)
        assert connection.answer(answer) == answer
    with pytest.raises(TooMuchError, match="too many pings"):
        connection.request(ping * int(limits.PINGS_AT_ONCE + 1))


# ---- requests that are not whole -----------------------------------------------------------------


def test_a_stream_that_sends_too_much_is_reset_at_both_ends_and_the_others_go_on(
    connection: Traffic,
) -> None:
    connection.request(opened(1) + opened(3))
    passed = upload(connection, 1, MOST_UNFINISHED_BYTES)
    assert reset(1) not in passed
    assert connection.pending_answer() == b""
    last = frame(DATA, 0, 1, b"x")
    assert connection.request(last) == last + reset(1)
    assert connection.pending_answer() == reset(1)
    assert connection.pending_answer() == b""
    more = frame(DATA, END_STREAM, 3, b"x")
    assert connection.request(more) == more


def test_resets_stand_between_frames(connection: Traffic) -> None:
    connection.request(opened(1))
    upload(connection, 1, MOST_UNFINISHED_BYTES)
    connection.request(opened(1))  # of a stream that is open: its bytes count on
    answer, last = frame(DATA, 0, 1, bytes(20)), frame(DATA, 0, 1, bytes(20))
    assert connection.answer(answer[:10]) == answer[:10]
    assert connection.request(last[:15]) == last[:15]
    assert connection.pending_answer() == b""
    ping = frame(PING, ACK, 0, bytes(8))
    assert connection.request(last[15:] + ping) == last[15:] + reset(1) + ping
    assert connection.answer(answer[10:]) == answer[10:] + reset(1)


def test_who_hides_where_frames_begin_or_goes_on_is_disconnected(connection: Traffic) -> None:
    connection.request(opened(1))
    with pytest.raises(TooMuchError, match="bytes that is not whole"):
        upload(connection, 1, 2 * MOST_UNFINISHED_BYTES + PIECE)


@pytest.mark.parametrize("how", ["whole", "reset by the client", "reset", "answered"])
def test_a_request_that_has_ended_counts_no_more(connection: Traffic, how: str) -> None:
    connection.request(opened(1))
    upload(connection, 1, MOST_UNFINISHED_BYTES)
    match how:
        case "whole":
            connection.request(frame(DATA, END_STREAM, 1))
        case "reset by the client":
            connection.request(frame(RST_STREAM, 0, 1, bytes(4)))
        case "reset":
            connection.answer(reset(1))
        case "answered":
            connection.answer(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"x"))
    more = frame(DATA, 0, 1, bytes(PIECE))
    assert connection.request(more) == more
    assert connection.pending_answer() == b""


def test_streams_that_never_end_are_not_counted_for_ever(
    connection: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAMS_OF_A_CONNECTION", 2)
    with pytest.raises(TooMuchError, match="5 streams"):
        connection.request(b"".join(opened(stream) for stream in range(1, 11, 2)))


def test_headers_have_an_end(connection: Traffic) -> None:
    piece = limits.HEADER_BLOCK_BYTES // 4
    for stream in (1, 3):
        connection.request(frame(HEADERS, 0, stream, bytes(piece)))
        connection.request(frame(CONTINUATION, 0, stream, bytes(piece)) * 3)
    with pytest.raises(TooMuchError, match="headers of 32769 bytes"):
        connection.request(frame(CONTINUATION, 0, 3, b"x"))
