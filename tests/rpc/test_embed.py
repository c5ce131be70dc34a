"""Embed: vectors in the order of the texts, and what is refused."""

import asyncio
import math
from typing import Any

import pytest

from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous


def direction(text: str) -> float:
    """Return the second number of the fake engine's vector, from which the first follows."""
    mean = sum(text.encode()) / len(text.encode())
    return 1.0 / math.hypot(mean, 1.0)


def of_numbers(**fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=["a"], **fields)


@asynchronous
async def test_vectors_come_in_the_order_of_the_texts() -> None:
    texts = [chr(97 + i % 26) * (1 + 7 * i % 40) for i in range(50)]
    async with serving() as service, service.stub() as stub:
        answers = [answer async for answer in stub.Embed(pb.EmbedRequest(texts=texts))]
        jobs = (await stub.ListJobs(pb.ListJobsRequest())).jobs
    assert [answer.index for answer in answers] == list(range(50))
    for text, answer in zip(texts, answers, strict=True):
        assert answer.values[1] == pytest.approx(direction(text), rel=1e-5)
        assert (answer.tokens, answer.truncated_tokens, answer.model) == (len(text), 0, "fake")
    assert not jobs


@pytest.mark.parametrize(
    ("request_", "reason", "message"),
    [
        (pb.EmbedRequest(), "INVALID_TEXTS", "there are 0, must be 1 to 1024"),
        (pb.EmbedRequest(texts=["a"] * 1025), "INVALID_TEXTS", "there are 1025"),
        (pb.EmbedRequest(texts=["a", ""]), "INVALID_TEXTS", "texts: text 1 is empty"),
        (of_numbers(pooling=9), "INVALID_POOLING", "9 is no pooling"),
        (of_numbers(priority=9), "INVALID_PRIORITY", "9 is no priority"),
        (
            pb.EmbedRequest(texts=["a"], deadline_seconds=0),
            "INVALID_DEADLINE_SECONDS",
            "must be in (0, inf)",
        ),
        (pb.EmbedRequest(texts=["a"], model="other"), "MODEL_NOT_FOUND", "'other' is not loaded"),
        (pb.EmbedRequest(texts=["a" * 600]), "PROMPT_TOO_LONG", "600 tokens"),
    ],
    ids=lambda value: str(value)[:30],
)
@asynchronous
async def test_what_is_wrong_is_named(request_: pb.EmbedRequest, reason: str, message: str) -> None:
    async with serving() as service, service.stub() as stub:
        _, text, trailing = await error_of_call(stub.Embed(request_))
    assert trailing["llamad-reason"] == reason
    assert message in text


@asynchronous
async def test_a_client_that_leaves_ends_its_texts() -> None:
    async with serving() as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        call = stub.Embed(pb.EmbedRequest(texts=["a" * 40]))
        reading = asyncio.ensure_future(call.read())
        await entered.wait()
        assert (await stub.ListJobs(pb.ListJobsRequest())).jobs
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(TIMEOUT_SECONDS):
            (job,) = service.bench.book.list(include_ended=True)
            async for _ in service.bench.book.watch(job.id):
                pass
        assert not service.bench.book.list()
