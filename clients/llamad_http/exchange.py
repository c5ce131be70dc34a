"""One HTTP request and its answer, on ASGI.

Owns reading the body within its limits, the shapes of answers, and the watch for a client that
leaves. It knows no API.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llamad_http.authorization import NOBODY, Caller
from llamad_http.errors import HttpError
from llamad_http.fields import Fields, parse_list, parse_object

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Answer = TypeVar("Answer")

DISCARD_SECONDS = 1.0
"""The longest wait for the rest of a body before a refusal is told."""

STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(slots=True)
class BodyBudget:
    """Bytes of bodies that all requests may hold together, and the longest time one may take."""

    most_bytes: int
    most_bytes_together: int
    seconds: float
    held: int = 0


@dataclass(slots=True)
class Exchange:
    """A request. ``caller`` is set once it is known; ``status`` once an answer has begun."""

    scope: Mapping[str, Any]
    receive: Receive
    send: Send
    budget: BodyBudget
    write_seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    extra_headers: dict[str, str] = field(default_factory=dict)
    caller: Caller = NOBODY
    status: int | None = None
    remark: str = ""
    _held: int = 0
    _body_read: bool = False

    def __post_init__(self) -> None:
        for name, value in self.scope["headers"]:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    @property
    def method(self) -> str:
        """Return the method; HEAD is answered as GET is, the server leaves the body out."""
        method: str = self.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        """Return the path, decoded."""
        path: str = self.scope["path"]
        return path

    async def body(self) -> bytes:
        """Return the body. Raises HttpError, and ClientGoneError."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpError(415, "ENCODING_REFUSED", "a compressed body is not accepted")
        announced = self.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self.budget.most_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.budget.seconds):
                while not self._body_read:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunk = message.get("body", b"")
                    self._hold(len(chunk))
                    chunks.append(chunk)
                    self._body_read = not message.get("more_body", False)
        except TimeoutError:
            message = f"the body did not come within {self.budget.seconds:g} seconds"
            self.extra_headers["connection"] = "close"
            raise HttpError(408, "BODY_TIMEOUT", message) from None
        return b"".join(chunks)

    async def _discard_body(self) -> bool:
        """Read what is left of a body that nobody wants; return whether it has come to its end.

        A connection that is closed with bytes unread is reset, and a client that still sends loses
        the answer with it (RFC 9112, 9.6).
        """
        if not {"content-length", "transfer-encoding"} & self.headers.keys():
            return self.method == "GET"
        if "expect" in self.headers or "connection" in self.extra_headers:
            return False  # it need not send the body, or what follows cannot be told from one
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._body_read:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    self._body_read = not message.get("more_body", False)
        return self._body_read

    def _hold(self, n_bytes: int) -> None:
        if self._held + n_bytes > self.budget.most_bytes:
            raise self._too_large()
        if self.budget.held + n_bytes > self.budget.most_bytes_together:
            message = "too many large requests arrive at once"
            raise HttpError(503, "TOO_MANY_BODIES", message, retry_after_seconds=1)
        self._held += n_bytes
        self.budget.held += n_bytes

    def _too_large(self) -> HttpError:
        message = f"the body has more than {self.budget.most_bytes} bytes"
        return HttpError(413, "BODY_TOO_LARGE", message)

    def release_body(self) -> None:
        """Give the bytes of the body back to the others."""
        self.budget.held -= self._held
        self._held = 0

    async def fields(self) -> Fields:
        """Return the JSON object of the body, whatever its content type says. Raises HttpError."""
        try:
            return parse_object(await self.body())
        finally:
            self.release_body()

    async def field_list(self, name: str) -> Fields:
        """Return an object whose field ``name`` is the JSON list of the body. Raises HttpError."""
        try:
            return parse_list(await self.body(), name)
        finally:
            self.release_body()

    async def respond_json(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        await self.respond(dump(value), "application/json", status)

    async def respond(self, body: bytes, content_type: str, status: int = 200) -> None:
        """Answer with a whole body."""
        headers = {"content-type": content_type, "content-length": str(len(body))}
        await self._start(status, headers)
        await self._write({"type": "http.response.body", "body": body})

    async def begin_stream(self, content_type: str) -> None:
        """Begin an answer of unknown length."""
        await self._start(200, {"content-type": content_type, **STREAM_HEADERS})

    async def write(self, body: bytes) -> None:
        """Send a piece of a stream. Raises ClientGoneError for a client that does not read."""
        if body:
            await self._write({"type": "http.response.body", "body": body, "more_body": True})

    async def end_stream(self) -> None:
        """End a stream."""
        await self._write({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        if not self._body_read and not await self._discard_body():
            headers["connection"] = "close"  # what is on its way is no next request
        self.status = status
        pairs = {**headers, **self.extra_headers}.items()
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await self._write({"type": "http.response.start", "status": status, "headers": raw})

    async def _write(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self.write_seconds):
                await self.send(message)
        except (TimeoutError, OSError):
            raise ClientGoneError from None

    async def until_gone(self) -> None:
        """Return when the client has left; the body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def unless_gone(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what a work returns. Raises ClientGoneError, and the work is cancelled then."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self.until_gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError
            return task.result()
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


def dump(value: Any) -> bytes:
    """Return JSON as it is sent: UTF-8, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
