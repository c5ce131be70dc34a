"""A call of AddModel that the service ends while the asyncio client writes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad_api.v1.admin_pb2 import AddModelRequest, AddModelResponse
from llamad_client.errors import ClientError
from llamad_client.upload import upload_async
from unit.schedule.fakes import asynchronous

CORE = "Internal error from Core"


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


class EndedCall:
    """A call of grpc.aio whose write met its end, and which has a status of grpc.aio's own."""

    def __init__(self) -> None:
        self.n_writes = 0

    async def write(self, message: AddModelRequest) -> None:
        self.n_writes += 1
        if message.HasField("chunk"):
            raise _error(grpc.StatusCode.INTERNAL, CORE)

    async def read(self) -> Any:
        if self.n_writes == 1:
            accepted = AddModelResponse.Accepted(offset=0)
            return AddModelResponse(accepted=accepted)
        raise _error(grpc.StatusCode.INTERNAL, CORE)

    def cancel(self) -> None:
        pass


def test_a_reason_that_grpc_lost_is_said_to_be_lost() -> None:
    call = EndedCall()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"data"
            await asyncio.sleep(0)

    @asynchronous
    async def check() -> None:
        with pytest.raises(ClientError, match="the service ended the call") as error:
            await upload_async(
                lambda: call,
                AddModelRequest.Start(name="m"),
                lambda kept: (0, pieces()),
                Path("/s"),
            )
        assert error.value.reason == "CALL_ENDED"

    check()
    assert call.n_writes == 2  # nothing is sent to a call that has ended
