"""What no client of ours sends: each is refused with a status, and the next request is answered."""

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

LIMITS = """
[limits]
max_body_bytes = 100000
max_connections_per_address = 40
max_completions = 2
head_seconds = 600
"""
PATIENT = "head_seconds = 600\nkeep_alive_seconds = 600\n"  # longer than a busy machine takes
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """Return a service over a fake engine."""
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


@pytest.fixture(scope="module")
def gateway(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Return a gateway with narrow limits, and enough time for a busy machine."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), service.path, LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Return a gateway that waits half a second for a body, or for the rest of a refused one."""
    limits = LIMITS + "body_seconds = 0.5\n"
    with gateway_process(tmp_path_factory.mktemp("hurried"), service.path, limits) as running:
        yield running


def ask(
    gateway: GatewayProcess,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str = "",
) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(gateway: GatewayProcess, sent: bytes) -> bytes:
    """Send bytes and return all that comes until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        return received


def serves(gateway: GatewayProcess) -> None:
    """Check that a chat is answered."""
    status, body = ask(gateway, CHAT, json.dumps(HELLO).encode())
    assert status == 200, body
    assert json.loads(body)["choices"][0]["message"]["content"] == "An answer."


# ---- where a request comes from -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:11434", 200),
        ("192.168.1.7", 200),
        ("[::1]:8080", 200),
        ("[fe80::1%25eth0]", 200),
        (socket.gethostname(), 200),
        ("x.localhost", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("evil.example:8080", 403),
        ("", 403),
        ("[::1", 403),
        ("0x7f.1", 403),
    ],
)
def test_a_host_that_is_no_name_of_this_machine_is_refused(
    gateway: GatewayProcess, host: str, status: int
) -> None:
    assert ask(gateway, "/v1/models", headers={"Host": host})[0] == status


def test_two_hosts_are_refused_in_any_order(gateway: GatewayProcess) -> None:
    for hosts in ("localhost", "evil.example"), ("evil.example", "localhost"):
        head = "".join(f"Host: {host}\r\n" for host in hosts)
        answer = raw(gateway, f"GET /v1/models HTTP/1.1\r\n{head}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 "), answer
    serves(gateway)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost", 403),  # another port is another origin
        ("http://localhost:8080", 200),
    ],
)
def test_a_page_of_another_origin_is_refused_before_its_body_is_read(
    gateway: GatewayProcess, origin: str, status: int
) -> None:
    headers = {"Host": "localhost:8080", "Origin": origin, "Content-Type": "text/plain"}
    assert ask(gateway, CHAT, json.dumps(HELLO).encode(), headers)[0] == status


def test_nothing_is_allowed_to_pages_that_nobody_named(gateway: GatewayProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_SECONDS)
    connection.request("OPTIONS", CHAT, headers={"Origin": "https://evil.example"})
    answer = connection.getresponse()
    assert answer.status == 403
    assert not [name for name, _ in answer.getheaders() if name.startswith("access-control")]
    connection.close()


# ---- bytes --------------------------------------------------------------------------------------

SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5,6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"X: a\rb\r\n",
        b" folded: x\r\n",
    ],
)
def test_a_body_whose_length_is_ambiguous_hides_no_second_request(
    gateway: GatewayProcess, head: bytes
) -> None:
    sent = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n0\r\n\r\n" + SMUGGLED
    answer = raw(gateway, sent)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ", b"HTTP/1.1 501 ")), answer
    serves(gateway)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(gateway: GatewayProcess, sent: bytes) -> None:
    answer = raw(gateway, sent)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    serves(gateway)


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_who_offers_another_protocol_is_answered_in_this_one(
    gateway: GatewayProcess, protocol: str
) -> None:
    body = b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUpgrade: {protocol}\r\n"
    head += "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answered = raw(gateway, head.encode() + body + last)
    assert answered.count(b"HTTP/1.1 200 OK") == 2, answered


def test_a_body_that_is_too_large_is_refused_announced_or_not(gateway: GatewayProcess) -> None:
    assert ask(gateway, CHAT, b"{}" + b" " * 100_000)[0] == 413
    chunk = b"%x\r\n" % 60_000 + b" " * 60_000 + b"\r\n"
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in raw(gateway, head + chunk + chunk)[:20]
    serves(gateway)


@pytest.mark.parametrize(
    ("path", "size", "status"), [("/api/push", 2, 403), ("/nowhere", 2, 404), (CHAT, 5 << 20, 413)]
)
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_body_that_comes_after_the_refusal_is_read_and_the_answer_arrives(
    gateway: GatewayProcess, path: str, size: int, status: int, connection: str
) -> None:
    """A connection that is closed with bytes unread is reset; the answer would be lost with it."""
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_SECONDS)
    with contextlib.closing(client):
        client.putrequest("POST", path)
        client.putheader("Content-Length", str(size))
        client.putheader("Connection", connection)
        client.endheaders()
        time.sleep(0.1)  # the head arrives alone
        client.send(b" " * size)
        answer = client.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
        if connection == "keep-alive":
            client.request("GET", "/health")
            assert client.getresponse().status == 200


def test_a_refusal_does_not_wait_for_a_body_that_never_comes(gateway: GatewayProcess) -> None:
    head = b"POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    for more in b"", b"Expect: 100-continue\r\n":
        answer = raw(gateway, head + more + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert b"connection: close" in answer


POST = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Content-Length: 9999999\r\nX: " + b"x" * 50_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, 400),
        (POST + b"Content-Length: 99999\r\n\r\n{", 408),
        (POST + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n{", 413),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ],
)
def test_a_refusal_arrives_though_the_client_sends_on(
    hurried: GatewayProcess, sent: bytes, status: int
) -> None:
    """Whoever closes with bytes unread resets the connection, and the answer is lost with it."""
    with socket.create_connection(("127.0.0.1", hurried.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(sent)
        assert connection.recv(1, socket.MSG_PEEK)  # it has been refused, and that is not read yet
        for _ in range(4):
            connection.sendall(b"x" * (1 << 20))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            answer = file.read()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    serves(hurried)


def test_who_sends_on_behind_a_refusal_is_let_go(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"no request\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(connection)
    serves(gateway)


def send_for_ever(connection: socket.socket) -> None:
    """Send until the connection fails."""
    while True:
        connection.sendall(b"x" * (1 << 20))


def test_a_compressed_body_is_refused(gateway: GatewayProcess) -> None:
    assert ask(gateway, CHAT, b"x", {"Content-Encoding": "gzip"})[0] == 415


def test_a_body_has_to_come_in_time(hurried: GatewayProcess) -> None:
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    assert b" 408 " in raw(hurried, head)[:20]
    serves(hurried)


def test_a_head_has_to_come_in_time(service: RunningService, tmp_path: Path) -> None:
    with gateway_process(tmp_path, service.path, "[limits]\nhead_seconds = 0.5\n") as gateway:
        assert raw(gateway, b"GET / HTTP/1.1\r\nHost: loc") == b""
        until_it_serves(gateway)


# ---- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\udfff", "messages": [{"role": "user", "content": "x"}]}',
        b'{"temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}',
        b'{"seed": 1' + b"0" * 4000 + b', "messages": [{"role": "user", "content": "x"}]}',
        b'{"seed": 1' + b"0" * 5000 + b', "messages": [{"role": "user", "content": "x"}]}',
        b'{"messages": {"role": "user"}}',
        b'{"messages": [[]]}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}',
        b'{"stop": {"a": 1}, "messages": [{"role": "user", "content": "x"}]}',
        b'{"stream": "yes", "messages": [{"role": "user", "content": "x"}]}',
        b'{"stream_options": [], "messages": [{"role": "user", "content": "x"}]}',
        b'{"logit_bias": {"x": 1}, "messages": [{"role": "user", "content": "x"}]}',
        b'{"logit_bias": {"99999999999": 1}, "messages": [{"role": "user", "content": "x"}]}',
        b'{"chat_template_kwargs": {"messages": 1}, "messages": [{"role": "user", "content": ""}]}',
        b'{"a": ' * 70 + b"1" + b"}" * 70,
    ],
)
def test_json_that_is_wrong_is_a_400(gateway: GatewayProcess, body: bytes) -> None:
    status, answer = ask(gateway, CHAT, body)
    assert status == 400, answer
    assert json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_of_ten_thousands_of_levels_is_a_400(gateway: GatewayProcess, opening: bytes) -> None:
    for path in CHAT, "/api/chat", "/completion", "/tokenize":
        assert ask(gateway, path, b'{"a":' + opening * 15_000)[0] == 400
    serves(gateway)


def test_a_hundred_thousand_levels_are_a_400(demo_gateway: GatewayProcess) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        body = b'{"a":' + opening * 100_000 + b"1" + closing * 100_000 + b"}"
        status, answer = ask(demo_gateway, CHAT, body)
        assert (status, b"objects and lists" in answer) == (400, True)


def test_a_thousand_idle_connections_leave_room_for_the_next(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def hold(gateway: GatewayProcess) -> None:
        request = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        streams = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(1000)]
        for _, writer in streams:
            writer.write(request)
        for reader, _ in streams:  # each was answered, and stays
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        await asyncio.to_thread(serves, gateway)
        for _, writer in streams[::100]:
            writer.write(request)
        for reader, _ in streams[::100]:
            assert (await reader.read(12)).startswith(b"HTTP/1.1 200")
        for _, writer in streams:
            writer.close()

    folder = tmp_path_factory.mktemp("many")
    with gateway_process(
        folder, service.path, f"[limits]\nmax_connections_per_address = 1024\n{PATIENT}"
    ) as gateway:
        asyncio.run(hold(gateway))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", "\x00", "x" * 5000, "%2e%2e"])
def test_a_name_of_a_model_is_never_a_path(gateway: GatewayProcess, name: str) -> None:
    for path in "/api/show", "/api/pull", "/api/generate":
        status, answer = ask(gateway, path, json.dumps({"model": name}).encode())
        assert status in (403, 404), answer
        assert b"root:" not in answer


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/%00", "/v1/%ff"],
)
def test_a_path_leads_nowhere(gateway: GatewayProcess, path: str) -> None:
    assert ask(gateway, path)[0] == 404


# ---- many at once -------------------------------------------------------------------------------


def test_who_leaves_in_the_middle_leaves_nothing(
    gateway: GatewayProcess, service: RunningService
) -> None:
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 400}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    for cut in (1, len(body) // 2, len(body)):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                connection.sendall(head.encode() + body[:cut])
    service.wait_until_idle()
    until_it_serves(gateway)


def until_it_serves(gateway: GatewayProcess) -> None:
    """Wait until those who left were noticed."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        with contextlib.suppress(ConnectionError):
            if ask(gateway, CHAT, json.dumps(HELLO).encode())[0] == 200:
                return
        assert time.monotonic() < end


def test_one_address_has_so_many_connections(gateway: GatewayProcess) -> None:
    async def open_many() -> int:
        streams = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(60)]
        for _, writer in streams:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answered = 0
        for reader, writer in streams:
            with contextlib.suppress(ConnectionResetError):
                answered += (await reader.read(12)).startswith(b"HTTP/1.1 200")
            writer.close()
        return answered

    assert asyncio.run(open_many()) == 40
    until_it_serves(gateway)


def test_one_request_too_many_is_told_to_come_back(
    gateway: GatewayProcess, service: RunningService
) -> None:
    entered = service.pause_step(0)
    body = json.dumps({**HELLO, "stream": True}).encode()
    streams = []
    try:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
            connection.request("POST", CHAT, body)
            streams.append(connection)
            assert connection.getresponse().status == 200
        assert entered.wait(TIMEOUT_SECONDS)
        third = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_SECONDS)
        third.request("POST", CHAT, body)
        answer = third.getresponse()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        third.close()
    finally:
        for connection in streams:
            connection.close()
        service.engine.before_step = lambda: None
    service.wait_until_idle()
    until_it_serves(gateway)


def test_nothing_of_all_that_was_an_error_of_the_gateway(gateway: GatewayProcess) -> None:
    assert gateway.process.poll() is None
    assert [line for line in gateway.lines if "Traceback" in line or "status=500" in line] == []
