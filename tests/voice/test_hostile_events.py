"""What no satellite of ours sends: each connection is closed, and the next one is answered."""

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment
from gateway.gateway_process import GatewayProcess, gateway_process
from gateway.test_hostile_requests import send_for_ever
from unit.schedule.fakes import TIMEOUT_SECONDS
from voice.conftest import CONFIG, PROGRAM
from voice.satellite import heard, raw, said_once

HUGE = 1 << 60
HURRIED = "[limits]\nevent_seconds = 0.5\n"


def serves(gateway: GatewayProcess) -> None:
    """Check that a transcript is answered, and that nothing failed in the gateway's own code."""
    assert heard(said_once(gateway, "hello")) == "It is noon."
    assert [
        line for line in gateway.lines if "Traceback" in line or "connection failed" in line
    ] == []


def refusal(gateway: GatewayProcess, sent: bytes) -> str:
    """Return the text of the one error that some bytes are answered with."""
    header, _, data = raw(gateway, sent).partition(b"\n")
    assert json.loads(header)["type"] == "error", header
    error = json.loads(data)
    assert error["code"] == "bad-event"
    return str(error["text"])


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"hello\n", "the line of an event: is no JSON"),
        (b"\n", "the line of an event: is no JSON"),
        (b"\xff\xfe\n", "the line of an event: is no JSON"),
        (b"[]\n", "the line of an event: must be an object"),
        (b"{}\n", "type: must be a string"),
        (b'{"type": 7}\n', "type: must be a string"),
        (b'{"type": "transcript", "data": []}\n', "data: must be an object"),
        (b'{"type": "transcript", "data": {"text": 7}}\n', "transcript: text must be a string"),
        (
            b'{"type": "transcript", "data": {"text": "x", "context": {"conversation_id": 7}}}\n',
            "transcript: conversation_id must be a string",
        ),
        (b'{"type": "ping", "data": {"text": []}}\n', "ping: text must be a string"),
        (b'{"type": "x", "payload_length": %d}\n' % HUGE, "payload_length: must be a whole number"),
        (b'{"type": "x", "payload_length": -1}\n', "payload_length: must be a whole number"),
        (b'{"type": "x", "payload_length": true}\n', "payload_length: must be a whole number"),
        (b'{"type": "x", "payload_length": 1.5}\n', "payload_length: must be a whole number"),
        (
            b'{"type": "x", "data_length": %d}\n' % HUGE,
            "data_length: must be a whole number from 0",
        ),
        (b'{"type": "x", "data_length": "9"}\n', "data_length: must be a whole number from 0"),
        (b'{"type": "x", "data_length": 5}\n[1,2]', "data: must be an object"),
        (b'{"type": "x", "data_length": 5}\nhello', "data: is no JSON"),
        (b'{"type": "x", "data_length": 1e400}\n', "data_length: must be a whole number"),
        (b'{"type": ' + b"9" * 5000 + b"}\n", "the line of an event: is no JSON"),
        (b"[" * 16000 + b"\n", "the line of an event: is no JSON"),
        (b"x" * 20_000, "the line of an event has at most 16384 bytes"),
        (b"x" * 20_000 + b"\n", "the line of an event has at most 16384 bytes"),
    ],
)
def test_what_is_no_event_is_an_error(gateway: GatewayProcess, sent: bytes, says: str) -> None:
    assert says in refusal(gateway, sent)
    serves(gateway)


def test_an_error_arrives_though_the_client_sends_on(gateway: GatewayProcess) -> None:
    """A connection that is closed with bytes unread is reset, and the error is lost with it."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        for _ in range(8):  # far more than the buffers of two sockets
            connection.sendall(b"x" * (1 << 20))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            assert b"bad-event" in file.read()
    serves(gateway)


def test_who_sends_on_behind_an_error_is_let_go(gateway: GatewayProcess) -> None:
    with (
        socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection,
        pytest.raises(ConnectionError),
    ):
        send_for_ever(connection)
    serves(gateway)


@pytest.fixture(scope="module")
def hurried(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Return a gateway that waits half a second for an event that has begun."""
    folder = tmp_path_factory.mktemp("hurried")
    with gateway_process(folder, service.path, HURRIED, PROGRAM) as running:
        yield running


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b'{"type": "transcript"',
        b'{"type": "transcript", "data_length": 100}\n{"text"',
        b'{"type": "audio-chunk", "payload_length": 1000000}\n' + bytes(1000),
    ],
)
def test_half_an_event_and_silence_closes_the_connection(
    gateway: GatewayProcess, hurried: GatewayProcess, sent: bytes
) -> None:
    if sent:  # the test ends because the gateway hangs up
        assert raw(hurried, sent) == b""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(sent)  # and leaves
    serves(gateway)


def test_text_that_is_no_unicode_is_not_handled(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b'{"type": "transcript", "data": {"text": "\\ud800"}}\n')
        assert b'"not-handled"' in connection.recv(65536)


def test_one_address_has_so_many_connections(service: RunningService, tmp_path: Path) -> None:
    ping = b'{"type": "ping"}\n'
    with gateway_process(tmp_path, service.path, CONFIG, PROGRAM) as gateway:
        connections = [
            socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS)
            for _ in range(40)
        ]
        try:
            connections[-1].sendall(ping)
            assert b'"pong"' in connections[-1].recv(1000)
            assert raw(gateway, ping) == b""
        finally:
            for connection in connections:
                connection.close()
        while not (answer := first_of(gateway, ping)):
            pass
        assert b'"pong"' in answer


def first_of(gateway: GatewayProcess, sent: bytes) -> bytes:
    """Return the first bytes that come; none where there are too many connections."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        try:
            connection.sendall(sent)
            return connection.recv(1000)
        except ConnectionError:
            return b""


MANY = """
[limits]
max_connections = 2000
max_connections_per_address = 2000
"""
MOST_BYTES = 30 << 20  # of memory that 1,000 connections take, each with half a line sent


def test_a_thousand_connections_cost_little(service: RunningService, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with gateway_process(tmp_path, service.path, MANY, PROGRAM) as gateway:
        assert heard(said_once(gateway, "hello")) == "It is noon."
        before = resident_bytes(gateway)

        async def flood() -> int:
            pairs = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(1000)]
            for reader, writer in pairs:
                writer.write(b'{"type": "ping"}\n' + b"x" * 4000)
                await reader.readline()
            after = resident_bytes(gateway)
            for _, writer in pairs:
                writer.close()
            return after - before

        assert asyncio.run(flood()) < MOST_BYTES
        assert heard(said_once(gateway, "hello")) == "It is noon."


def resident_bytes(gateway: GatewayProcess) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


# ---- the program itself -------------------------------------------------------------------------


def run(tmp_path: Path, config: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    file = tmp_path / "wyoming.toml"
    file.write_text(config)
    return subprocess.run(
        [sys.executable, "-m", PROGRAM, "--config", str(file), "serve", *flags],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def test_other_machines_are_let_in_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "", "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "reachable from other machines, and Wyoming has no keys" in done.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[server]\nlisten = 7", "server.listen: must be a list of strings"),
        ("[answers]\nmax_tokens = 0", "answers.max_tokens: must be 1 to"),
        ('[service]\npriority = "now"', "service.priority: must be one of interactive, normal"),
        ("[speech]", "[speech]: unknown, there are answers, limits, server, service"),
        ("[answers]\nvoice = 1", "answers.voice: unknown key"),
        ("[", "wyoming.toml: "),
    ],
)
def test_a_mistake_of_the_configuration_is_named(tmp_path: Path, config: str, says: str) -> None:
    done = run(tmp_path, config)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
