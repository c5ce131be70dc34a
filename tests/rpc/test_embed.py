"""Embed: vectors in the order of the texts, and what is refused."""

import math
from typing import Any

import pytest

from llamad.schedule.limits import Limits
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import serving
from rpc.texts import check_cancel, check_leaving, check_refusal
from unit.schedule.fakes import asynchronous


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


@asynchronous
async def test_a_call_has_more_texts_than_the_queue_has_room_for() -> None:
    limits = Limits(queue_capacity=3)
    async with serving(limits=limits, n_sequences=1) as service, service.stub() as stub:
        asked = pb.EmbedRequest(texts=["ab"] * 20)
        answers = [answer async for answer in stub.Embed(asked)]
    assert [answer.index for answer in answers] == list(range(20))


@asynchronous
async def test_a_call_is_one_line_in_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving() as service, service.stub() as stub:
        _ = [answer async for answer in stub.Embed(pb.EmbedRequest(texts=["ab"] * 20))]
    lines = [m for m in caplog.messages if "finished" in m]
    assert len(lines) == 1
    assert " texts=20 tokens=40 seconds=" in lines[0]


@pytest.mark.parametrize(
    ("request_", "reason", "message"),
    [
        (pb.EmbedRequest(), "INVALID_TEXTS", "there are 0, must be 1 to 1024"),
        (pb.EmbedRequest(texts=["a"] * 1025), "INVALID_TEXTS", "there are 1025"),
        (pb.EmbedRequest(texts=["a", ""]), "INVALID_TEXTS", "texts: text 1 is empty"),
        (of_numbers(pooling=9), "INVALID_POOLING", "9 is no pooling"),
        (of_numbers(dimensions=0), "INVALID_DIMENSIONS", "is 0, must be 1 or more"),
        (of_numbers(dimensions=3), "INVALID_DIMENSIONS", "is 3, the model's vectors have 2"),
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
    await check_refusal(lambda stub: stub.Embed(request_), reason, message)


@asynchronous
async def test_a_client_that_leaves_ends_its_texts() -> None:
    await check_leaving(lambda stub: stub.Embed(pb.EmbedRequest(texts=["a" * 40])))


@asynchronous
async def test_a_text_that_somebody_cancels_has_no_vector() -> None:
    await check_cancel(lambda stub: stub.Embed(pb.EmbedRequest(texts=["a" * 40])))


@asynchronous
async def test_a_vector_of_fewer_numbers_has_length_1() -> None:
    async with serving() as service, service.stub() as stub:
        asked = pb.EmbedRequest(texts=["ab"], dimensions=1)
        (answer,) = [answer async for answer in stub.Embed(asked)]
        asked.dimensions = 2
        (whole,) = [answer async for answer in stub.Embed(asked)]
    assert list(answer.values) == [1.0]
    assert whole.values[1] == pytest.approx(direction("ab"), rel=1e-5)
