"""Rerank: documents in the order of their scores, and what is refused.

The fake model's score is by the last character of a document.
"""

import asyncio
import math
from typing import Any

import pytest

from clients.running import running_service
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import AsyncClient, Client, RankedDocument, Ranking
from rpc.serving import serving
from rpc.texts import check_cancel, check_leaving, check_refusal
from unit.schedule.fakes import asynchronous

DOCUMENTS = ["of c", "of a", "of d", "of c too, c", "of b"]
BEST_FIRST = [2, 0, 3, 4, 1]


def score(document: str) -> float:
    return 1 / (1 + math.exp(-ord(document[-1]) / 100))


def asked(*documents: str, **fields: Any) -> pb.RerankRequest:
    return pb.RerankRequest(**{"query": "q", "documents": documents, **fields})


@asynchronous
async def test_the_best_documents_come_first_and_equal_ones_in_their_order() -> None:
    async with serving(ranks=True) as service, service.stub() as stub:
        whole = await stub.Rerank(asked(*DOCUMENTS))
        top = await stub.Rerank(asked(*DOCUMENTS, top_n=2))
        more = await stub.Rerank(asked(*DOCUMENTS, top_n=100))
        assert not (await stub.ListJobs(pb.ListJobsRequest())).jobs
    assert [result.index for result in whole.results] == BEST_FIRST
    for result in whole.results:
        assert result.score == pytest.approx(score(DOCUMENTS[result.index]), rel=1e-6)
    assert whole.prompt_tokens == sum(len("q|" + document) for document in DOCUMENTS)
    assert whole.model == "fake"
    assert (list(top.results), top.prompt_tokens) == (list(whole.results)[:2], whole.prompt_tokens)
    assert more == whole


@asynchronous
async def test_many_documents_never_fill_the_queue() -> None:
    async with serving(ranks=True) as service, service.stub() as stub:
        documents = [f"number {i}" for i in range(200)]
        found = await stub.Rerank(asked(*documents))
    assert sorted(result.index for result in found.results) == list(range(200))


@asynchronous
async def test_only_a_document_is_cut_and_only_where_that_may_be() -> None:
    async with serving(ranks=True) as service, service.stub() as stub:
        found = await stub.Rerank(asked("a" * 600, truncate=True))
    assert found.results[0].truncated_tokens == 602 - 512
    assert found.prompt_tokens == 512
    await check_refusal(
        lambda stub: stub.Rerank(asked("a", query="q" * 600, truncate=True)),
        "PROMPT_TOO_LONG",
        "601 of them are no part that may be cut",
        ranks=True,
    )


@pytest.mark.parametrize(
    ("request_", "reason", "message"),
    [
        (asked("a", query=""), "INVALID_QUERY", "is empty"),
        (asked(), "INVALID_DOCUMENTS", "there are 0, must be 1 to 1024"),
        (asked(*["a"] * 1025), "INVALID_DOCUMENTS", "there are 1025"),
        (asked("a", ""), "INVALID_DOCUMENTS", "text 1 is empty"),
        (asked("a" * (1 << 20)), "INVALID_DOCUMENTS", "bytes in all"),
        (asked("a", query="q" * (1 << 20) + "q"), "INVALID_QUERY", "has 1048577 bytes"),
        (asked("a", top_n=0), "INVALID_TOP_N", "is 0, must be 1 or more"),
        (asked("a", priority=9), "INVALID_PRIORITY", "9 is no priority"),
        (asked("a", deadline_seconds=0), "INVALID_DEADLINE_SECONDS", "must be in (0, inf)"),
        (asked("a", model="other"), "MODEL_NOT_FOUND", "'other' is not loaded"),
        (asked("a" * 600), "PROMPT_TOO_LONG", "602 tokens"),
    ],
    ids=lambda value: str(value)[:30],
)
@asynchronous
async def test_what_is_wrong_is_named(
    request_: pb.RerankRequest, reason: str, message: str
) -> None:
    await check_refusal(lambda stub: stub.Rerank(request_), reason, message, ranks=True)


@asynchronous
async def test_a_model_that_is_no_reranker_says_so() -> None:
    await check_refusal(
        lambda stub: stub.Rerank(asked("a")), "MODEL_DOES_NOT_RANK", "'fake' is no reranker"
    )


@asynchronous
async def test_a_client_that_leaves_ends_its_texts() -> None:
    await check_leaving(lambda stub: stub.Rerank(asked("a", "b")), ranks=True)


@asynchronous
async def test_a_text_that_somebody_cancels_has_no_order() -> None:
    await check_cancel(lambda stub: stub.Rerank(asked("a")), ranks=True)


def test_both_clients_return_the_order() -> None:
    async def of_async(path: str) -> Ranking:
        async with AsyncClient(path) as client:
            return await client.rerank("q", DOCUMENTS, top_n=1)

    with running_service(ranks=True) as service, Client(service.path) as client:
        ranking = client.rerank("q", DOCUMENTS, priority="batch", truncate=True)
        top = asyncio.run(of_async(str(service.path)))
    assert [result.index for result in ranking.results] == BEST_FIRST
    assert ranking.model == "fake"
    (best,) = top.results
    assert best == RankedDocument(2, pytest.approx(score("d")), 0)  # type: ignore[arg-type]
