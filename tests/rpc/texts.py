"""What Embed, Score and Rerank, the calls of many texts, have in common."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from rpc.test_generate import wait_until_idle

Call = Callable[[Any], Any]  # of a stub


async def check_refusal(call: Call, reason: str, message: str, **sizes: Any) -> None:
    """Fail unless a call fails with this reason, and a text that holds this message."""
    async with serving(**sizes) as service, service.stub() as stub:
        _, text, trailing = await error_of_call(call(stub))
    assert trailing["llamad-reason"] == reason
    assert message in text


async def check_leaving(call: Call, **sizes: Any) -> None:
    """Fail unless the jobs of a call end when its client leaves in the midst of a step."""
    async with serving(**sizes) as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        running = call(stub)
        reading = asyncio.ensure_future(running.read() if hasattr(running, "read") else running)
        await entered.wait()
        assert service.bench.book.list()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await wait_until_idle(service)
        assert not service.bench.book.list()


async def check_cancel(call: Call, **sizes: Any) -> None:
    """Fail unless a call ends with CANCELLED when somebody cancels one of its jobs by its id."""
    async with serving(**sizes) as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        ending = asyncio.ensure_future(error_of_call(call(stub)))
        await entered.wait()
        first = service.bench.book.list()[0]
        await stub.CancelJob(pb.CancelJobRequest(id=first.id))
        code, text, trailing = await ending
        assert (code, trailing["llamad-reason"]) == (grpc.StatusCode.CANCELLED, "CANCELLED"), text
        assert first.id in text
        await wait_until_idle(service)
        assert not service.bench.book.list()
