"""Several answers of one prompt, end to end."""

import asyncio
from typing import Any

import pytest

from clients.running import running_service
from llamad.schedule.limits import Limits
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Client
from rpc.serving import error_of_call, serving
from rpc.test_generate import wait_until_idle
from unit.schedule.fakes import asynchronous, saying

PROMPT = "a prompt that fills a block of the cache, and a little more of it"


def asked(**fields: Any) -> pb.GenerateRequest:
    fields.setdefault("max_tokens", 12)
    return pb.GenerateRequest(prompt=PROMPT, options=pb.Options(**fields))


async def answers_to(call: Any) -> dict[int, tuple[str, pb.Finished]]:
    """Return text and end of each answer."""
    texts: dict[int, str] = {}
    ends = {}
    async for message in call:
        texts[message.index] = texts.get(message.index, "") + message.delta.text
        if message.HasField("finished"):
            ends[message.index] = message.finished
    return {index: (texts[index], end) for index, end in ends.items()}


@asynchronous
async def test_each_answer_is_that_of_its_seed_and_the_prompt_is_read_once() -> None:
    async with serving() as service, service.stub() as stub:
        several = await answers_to(stub.Generate(asked(n=3, sampling=pb.Sampling(seed=5))))
        assert sorted(several) == [0, 1, 2]
        read = sum(row for step in service.bench.engine.steps for row in step)
        assert read < 2 * len(PROMPT) + 3 * 12  # and not three times
        for index, (text, end) in several.items():
            alone = asked(sampling=pb.Sampling(seed=5 + index))
            ((expected, _),) = (await answers_to(stub.Generate(alone))).values()
            assert (text, end.seed, end.usage.completion_tokens) == (expected, 5 + index, 12)
    assert len({text for text, _ in several.values()}) == 3
    assert len({end.job_id for _, end in several.values()}) == 3


@asynchronous
async def test_a_client_that_leaves_ends_every_answer() -> None:
    async with serving() as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        call = stub.Generate(asked(n=4))
        reading = asyncio.ensure_future(call.read())
        await entered.wait()
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)  # it may have been told of its place
        await wait_until_idle(service)
        assert service.bench.book.list(include_ended=True)
        assert not service.bench.book.list()


@asynchronous
async def test_each_answer_counts_and_what_does_not_fit_ends_the_others() -> None:
    async with serving(limits=Limits(queue_capacity=2)) as service, service.stub() as stub:
        service.bench.pause_step(0)
        _, message, trailing = await error_of_call(stub.Generate(asked(n=8)))
        assert trailing["llamad-reason"] in ("QUEUE_FULL", "OWNER_QUEUE_FULL"), message
        await wait_until_idle(service)


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("Generate", asked(n=2, resumable_seconds=1)),
        ("SubmitJob", pb.SubmitJobRequest(generate=asked(n=2))),
    ],
)
@asynchronous
async def test_several_answers_are_not_kept(call: str, request_: Any) -> None:
    async with serving() as service, service.stub() as stub:
        _, _, trailing = await error_of_call(getattr(stub, call)(request_))
    assert trailing["llamad-reason"] == "INVALID_N"


def test_the_client_puts_the_answers_together() -> None:
    with running_service() as service, Client(service.path) as client:
        service.engine.rule = saying("yes")
        answers = client.generate("q", n=3, seed=9).answers()
        assert [answer.text for answer in answers] == ["yes"] * 3
        assert [answer.result and answer.result.seed for answer in answers] == [9, 10, 11]
        (one,) = client.chat([{"role": "user", "content": "q"}]).answers()
        assert one.text == "yes"
