"""Sending a model file through AddModel.

Owns the order of the call's messages. Two threads share the work: the caller's reads the source and
the answers, one of grpc sends. So whatever the source raises, Ctrl-C included, is raised where the
source was read. The asyncio client does the same on a thread (``aio_upload.py``).
"""

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Self

import grpc

from llamad_api.v1.admin_pb2 import AddModelRequest
from llamad_client.address import Address
from llamad_client.failure import client_error
from llamad_client.values import AddedModel, added_model
from llamad_client.waiting import interruptible

MAX_CHUNK_BYTES = 4 << 20  # of AddModelRequest.Chunk.data

OpenAt = Callable[[int], tuple[int, Iterable[bytes]]]
"""From the bytes that the service has to where the pieces begin (there, or 0), and the pieces."""


def upload(
    method: Any, start: AddModelRequest.Start, open_at: OpenAt, address: Address
) -> AddedModel:
    """Send one model; return it. ``method``: the stub's AddModel; ``address``: where.

    Raises ClientError for what the service says, and what ``open_at`` and its pieces raise.
    """
    requests = _Requests()
    requests.put(AddModelRequest(start=start))
    call = interruptible(lambda: method(requests))
    if not call.add_callback(requests.abandon):
        requests.abandon()  # the call has ended already
    try:
        event = interruptible(lambda: next(call))
        if event.HasField("accepted"):
            _send(requests, start, event.accepted.offset, open_at)
            event = interruptible(lambda: next(call))
        return added_model(event.done)
    except grpc.RpcError as error:
        raise client_error(error, address) from None
    finally:
        interruptible(call.cancel)  # first: for a call that lives, the end is a half close
        requests.abandon()


def _send(requests: "_Requests", start: AddModelRequest.Start, kept: int, open_at: OpenAt) -> None:
    """Send what the service does not have and half close; stop early when the call has ended."""
    if not _is_whole(start, kept):
        offset, pieces = _checked(open_at(kept), kept)
        for piece in pieces:
            for data in _cut(piece):
                if not requests.put(_chunk(offset, data)):
                    return
                offset += len(data)
    requests.end()


def _is_whole(start: AddModelRequest.Start, kept: int) -> bool:
    return start.HasField("file_bytes") and start.file_bytes == kept


def _checked(opened: tuple[int, Iterable[bytes]], kept: int) -> tuple[int, Iterable[bytes]]:
    if opened[0] not in (0, kept):
        raise ValueError(f"the source begins at {opened[0]}, must be {kept} or 0")
    return opened


def _cut(piece: bytes) -> Iterator[bytes]:
    """Yield a piece in parts of at most MAX_CHUNK_BYTES; an empty one has none."""
    for first in range(0, len(piece), MAX_CHUNK_BYTES):
        yield piece[first : first + MAX_CHUNK_BYTES]


def _chunk(offset: int, data: bytes) -> AddModelRequest:
    return AddModelRequest(chunk=AddModelRequest.Chunk(offset=offset, data=data))


class _Requests:
    """The messages of the call: put by one thread, taken by another, one at a time.

    Queues in C and no Condition: see ``waiting.py``.
    """

    def __init__(self) -> None:
        self._messages: SimpleQueue[AddModelRequest | None] = SimpleQueue()
        self._permits: SimpleQueue[bool] = SimpleQueue()  # True: one may be put; False: none more
        self._permits.put(True)

    def put(self, message: AddModelRequest) -> bool:
        """Hand over a message once the one before is taken; False when the call has ended."""
        if not self._permits.get():
            self._permits.put(False)
            return False
        self._messages.put(message)
        return True

    def end(self) -> None:
        """Half close after the last message."""
        self._messages.put(None)

    def abandon(self) -> None:
        """Let both sides go: the call has ended."""
        self._permits.put(False)
        self._messages.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AddModelRequest:
        message = self._messages.get()
        if message is None:
            raise StopIteration
        self._permits.put(True)
        return message
