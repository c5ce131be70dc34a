"""Score: how likely given texts are, in few steps, and what is refused."""

import math
from typing import Any

import pytest

from clients.running import running_service
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Client
from rpc.serving import serving
from rpc.texts import check_cancel, check_leaving, check_refusal
from unit.schedule.fakes import asynchronous

PROMPT = "a prompt that fills a block of the cache, and a little more of it"
TEXT = "the text whose tokens are looked at, one after the other"


def request(*texts: str, **fields: Any) -> pb.ScoreRequest:
    fields.setdefault("prompt", PROMPT)
    return pb.ScoreRequest(continuations=[pb.Continuation(text=text) for text in texts], **fields)


async def logprobs_of(service: Any, call: Any) -> dict[int, tuple[list[float], pb.Scored]]:
    tokens: dict[int, list[float]] = {}
    ends = {}
    async for message in call:
        if message.HasField("token"):
            tokens.setdefault(message.index, []).append(message.token.logprob)
        else:
            ends[message.index] = message.scored
    assert tokens.keys() == ends.keys()
    return {index: (tokens[index], end) for index, end in sorted(ends.items())}


@asynchronous
async def test_each_token_is_told_with_what_stood_before_it() -> None:
    async with serving() as service, service.stub() as stub:
        together = await logprobs_of(service, stub.Score(request(TEXT, "other", TEXT[:-1] + "!")))
        engine = service.bench.engine
        assert sum(map(sum, engine.steps)) < 2 * len(PROMPT) + 3 * len(TEXT)  # one prompt was read
        before = len(engine.steps)
        (alone,) = (await logprobs_of(service, stub.Score(request(TEXT)))).values()
        assert len(engine.steps) - before < len(TEXT) / 3  # several tokens a step
        one_by_one = []
        for i, character in enumerate(TEXT):
            asked = request(character, prompt=PROMPT + TEXT[:i])
            ((values, _),) = (await logprobs_of(service, stub.Score(asked))).values()
            one_by_one += values
    values, end = together[0]
    assert values == alone[0] == one_by_one
    assert (end.tokens, end.prompt_tokens, end.model) == (len(TEXT), len(PROMPT), "fake")
    assert end.logprob == math.fsum(values)
    assert together[2][0][:-1] == values[:-1]
    assert len(together[1][0]) == len("other")


@asynchronous
async def test_a_text_may_have_tokens_that_end_answers() -> None:
    async with serving() as service, service.stub() as stub:
        texts = [pb.Continuation(tokens=[97, 0, 98, 0])]
        asked = pb.ScoreRequest(prompt_tokens=[1, 2], continuations=texts, likeliest=3)
        messages = [message async for message in stub.Score(asked)]
    assert [m.token.token for m in messages[:-1]] == [97, 0, 98, 0]
    assert [len(m.token.likeliest) for m in messages[:-1]] == [3] * 4
    assert messages[-1].scored.tokens == 4


@asynchronous
async def test_many_continuations_never_fill_the_queue() -> None:
    async with serving() as service, service.stub() as stub:
        found = await logprobs_of(service, stub.Score(request(*[f"{i}" for i in range(64)])))
    assert list(found) == list(range(64))


@pytest.mark.parametrize(
    ("asked", "reason", "message"),
    [
        (request(), "INVALID_CONTINUATIONS", "there are 0, must be 1 to 64"),
        (request(*["a"] * 65), "INVALID_CONTINUATIONS", "there are 65"),
        (request("a", ""), "INVALID_CONTINUATIONS", "number 1 must have a text or tokens"),
        (
            pb.ScoreRequest(prompt="p", continuations=[pb.Continuation(text="a", tokens=[1])]),
            "INVALID_CONTINUATIONS",
            "number 0",
        ),
        (
            pb.ScoreRequest(prompt="p", continuations=[pb.Continuation(tokens=[256])]),
            "INVALID_CONTINUATIONS",
            "token 256 is outside the vocabulary",
        ),
        (request("a" * 500), "PROMPT_TOO_LONG", "565 tokens"),
        (request("a", prompt=""), "INVALID_PROMPT", "is empty"),
        (request("a", likeliest=21), "INVALID_LIKELIEST", "is 21, must be 0 to 20"),
        (request("a", deadline_seconds=0), "INVALID_DEADLINE_SECONDS", "must be in (0, inf)"),
        (request("a", model="other"), "MODEL_NOT_FOUND", "'other' is not loaded"),
    ],
    ids=lambda value: str(value)[:30],
)
@asynchronous
async def test_what_is_wrong_is_named(asked: pb.ScoreRequest, reason: str, message: str) -> None:
    await check_refusal(lambda stub: stub.Score(asked), reason, message)


@asynchronous
async def test_a_client_that_leaves_ends_its_texts() -> None:
    await check_leaving(lambda stub: stub.Score(request("a", "b")))


@asynchronous
async def test_a_text_that_somebody_cancels_has_no_score() -> None:
    await check_cancel(lambda stub: stub.Score(request(TEXT)))


def test_the_client_puts_the_scores_together() -> None:
    with running_service() as service, Client(service.path) as client:
        one, other = client.score("q", ["yes", [110, 111]], likeliest=1)
    assert b"".join(token.piece for token in one.tokens) == b"yes"
    assert [token.token for token in other.tokens] == [110, 111]
    assert one.logprob == math.fsum(token.logprob for token in one.tokens)
    assert (one.prompt_tokens, one.model, len(one.tokens[0].likeliest)) == (1, "fake", 1)
