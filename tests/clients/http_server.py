"""An HTTP server for tests that says exactly what it is told, lies included.

``HttpServer`` hands each request to a function and sends the bytes that it returns, as they are;
``a_file`` is such a function for a server that behaves, but for where it is told to fail.
"""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from unit.schedule.fakes import TIMEOUT_SECONDS

CERTIFICATE = Path(__file__).with_name("localhost.pem")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. headers: names in lower case."""

    path: str
    headers: dict[str, str]


Rule = Callable[[HttpRequest], bytes | Iterable[bytes]]


@dataclass
class HttpServer:
    """A server on the loopback interface. A connection has a thread, one request and one answer."""

    rule: Rule
    scheme: str
    address: str
    port: int
    requests: list[HttpRequest] = field(default_factory=list)

    def url(self, path: str = "/model.gguf", host: str = "") -> str:
        """Return the URL of a path. host: another name of the same server."""
        return f"{self.scheme}://{host or self.address}:{self.port}{path}"

    def serve(self: Self, connection: socket.socket) -> None:
        """Answer one request and close."""
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            request = _parse(head)
            self.requests.append(request)
            answer = self.rule(request)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_RDWR)


def _parse(head: bytes) -> HttpRequest:
    first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return HttpRequest(first.split()[1], {name.lower(): value for name, value in pairs})


@contextmanager
def http_server(
    rule: Rule, *, tls: bool = False, address: str = "127.0.0.1"
) -> Iterator[HttpServer]:
    """Serve until the end of the block. address: of the loopback interface."""
    listener = socket.create_server((address, 0))
    server = HttpServer(rule, "https" if tls else "http", *listener.getsockname())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    threads: list[threading.Thread] = []

    def handle(connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            if tls:
                connection = context.wrap_socket(connection, server_side=True)
        except OSError:  # the client did not like our certificate
            connection.close()
            return
        server.serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=handle, args=(listener.accept()[0],))
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join(TIMEOUT_SECONDS)


def trusting() -> ssl.SSLContext:
    """Return a client's context that knows the test's certificate."""
    return ssl.create_default_context(cafile=CERTIFICATE)


def reply(status: int, body: bytes = b"", *headers: str, length: str | None = "") -> bytes:
    """Return an answer. length: what Content-Length says; "" is the truth, None is no such line."""
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length or len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def a_file(
    content: bytes,
    *,
    tag: str = '"v1"',
    cuts: Iterable[int] = (),
    ranges: bool = True,
    headers: tuple[str, ...] = (),
) -> Rule:
    """Return the rule of a server that has a file.

    cuts: after so many bytes of the body the first answers break off. ranges: whether it can begin
    in the middle.
    """
    left = list(cuts)
    named = (*([f"ETag: {tag}"] if tag else []), *headers)

    def rule(request: HttpRequest) -> bytes:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        start = int(match[1]) if match and ranges else 0
        if tag and request.headers.get("if-range", tag) != tag:
            start = 0
        if start and start >= len(content):
            return reply(416, b"", f"Content-Range: bytes */{len(content)}")
        body = content[start:]
        where = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        answer = reply(206, body, where, *named) if start else reply(200, body, *named)
        if left:
            head = len(answer) - len(body)
            return answer[: head + left.pop(0)]
        return answer

    return rule
