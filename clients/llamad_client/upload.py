"""Sending a model file through AddModel.

Owns the order of the call's messages and the hand-over between two threads: the caller's thread
reads the source and the answers, a thread of grpc sends. So whatever the source raises, Ctrl-C
included, is raised where the source was read.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from llamad_api.v1 import admin_pb2
from llamad_client.failure import client_error

MAX_CHUNK_BYTES = 4 << 20  # of AddModelRequest.Chunk.data

OpenAt = Callable[[int], tuple[int, Iterable[bytes]]]
"""From the bytes that the service has to where the pieces begin (there, or 0), and the pieces."""


@dataclass(frozen=True, slots=True)
class AddedModel:
    """A model that the service has now. ``unchanged``: it had it already, nothing was sent."""

    name: str
    path: str
    file_bytes: int
    sha256: str
    unchanged: bool


def upload(
    method: Any, start: admin_pb2.AddModelRequest.Start, open_at: OpenAt, path: Path
) -> AddedModel:
    """Send one model; return it. ``method``: the stub's AddModel; ``path``: of the socket.

    Raises ClientError for what the service says, and what ``open_at`` and its pieces raise.
    """
    requests = _Requests()
    requests.put(admin_pb2.AddModelRequest(start=start))
    call = method(requests)
    if not call.add_callback(requests.abandon):
        requests.abandon()  # the call has ended already
    try:
        event = next(call)
        if event.HasField("accepted"):
            _send(requests, start, event.accepted.offset, open_at)
            event = next(call)
        return _added(event.done)
    except grpc.RpcError as error:
        raise client_error(error, path) from None
    finally:
        call.cancel()  # first: for a call that lives, the end of the messages is a half close
        requests.abandon()


def _send(
    requests: "_Requests", start: admin_pb2.AddModelRequest.Start, kept: int, open_at: OpenAt
) -> None:
    """Send what the service does not have and half close; stop early when the call has ended."""
    if not (start.HasField("file_bytes") and start.file_bytes == kept):
        offset, pieces = open_at(kept)
        if offset not in (0, kept):
            raise ValueError(f"the source begins at {offset}, must be {kept} or 0")
        for data in _cut(pieces):
            chunk = admin_pb2.AddModelRequest.Chunk(offset=offset, data=data)
            if not requests.put(admin_pb2.AddModelRequest(chunk=chunk)):
                return
            offset += len(data)
    requests.end()


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces without empty ones, the large ones cut."""
    for piece in pieces:
        for first in range(0, len(piece), MAX_CHUNK_BYTES):
            yield piece[first : first + MAX_CHUNK_BYTES]


def _added(done: admin_pb2.AddModelResponse.Done) -> AddedModel:
    model = done.model
    return AddedModel(model.name, model.path, model.file_bytes, done.sha256, done.unchanged)


class _Requests:
    """The messages of the call: put by one thread, taken by another, one at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._message: admin_pb2.AddModelRequest | None = None
        self._ended = False  # nothing more will be put
        self._abandoned = False  # nothing more will be taken

    def put(self, message: admin_pb2.AddModelRequest) -> bool:
        """Hand over a message once the one before is taken; False when the call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._message is None or self._abandoned)
            self._message = message
            self._changed.notify_all()
            return not self._abandoned

    def end(self) -> None:
        """Half close after the last message."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let both sides go: the call has ended."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> admin_pb2.AddModelRequest:
        with self._changed:
            self._changed.wait_for(lambda: self._message or self._ended or self._abandoned)
            message, self._message = self._message, None
            self._changed.notify_all()
            if message is None or self._abandoned:
                raise StopIteration
            return message
