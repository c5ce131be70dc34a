"""Reranking over HTTP, in the shapes of Jina, llama-server and TEI."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clients.running import running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from unit.schedule.fakes import TIMEOUT_SECONDS

DOCUMENTS = ["of c", "of a", "of d"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with (
        running_service(ranks=True) as service,
        gateway_process(tmp_path_factory.mktemp("gateway"), service.path) as running,
    ):
        yield running


def post(gateway: GatewayProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(gateway.url + path, json=body, timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    "path", ["/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking"]
)
def test_jinas_shape(gateway: GatewayProcess, path: str) -> None:
    answer = post(gateway, path, model="m", query="q", documents=DOCUMENTS, top_n=2).json()
    assert [result["index"] for result in answer["results"]] == [2, 0]
    assert all(0.5 < result["relevance_score"] < 1 for result in answer["results"])
    assert all(set(result) == {"index", "relevance_score"} for result in answer["results"])
    n_tokens = sum(len("q|" + document) for document in DOCUMENTS)
    assert answer["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    assert (answer["object"], answer["model"]) == ("list", "fake")


def test_documents_may_be_objects_and_come_back(gateway: GatewayProcess) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    answer = post(gateway, "/rerank", query="q", documents=documents, return_documents=True).json()
    assert [result["document"]["text"] for result in answer["results"]] == ["of d", "of c", "of a"]


def test_the_shape_of_text_embeddings_inference(gateway: GatewayProcess) -> None:
    answer = post(gateway, "/rerank", query="q", texts=DOCUMENTS, return_text=True).json()
    assert [(result["index"], result["text"]) for result in answer] == [
        (2, "of d"),
        (0, "of c"),
        (1, "of a"),
    ]
    assert all(0.5 < result["score"] < 1 for result in answer)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"documents": DOCUMENTS}, "query"),
        ({"query": 1, "documents": DOCUMENTS}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["a", ""]}, "documents"),
        ({"query": "q", "documents": [{"title": "a"}]}, "documents"),
        ({"query": "q", "documents": [{"text": "a"}, "b"]}, "documents"),
        ({"query": "q", "texts": [1]}, "texts"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "q", "documents": ["a"], "return_documents": 1}, "return_documents"),
    ],
)
def test_what_is_wrong_is_named(gateway: GatewayProcess, body: dict[str, Any], field: str) -> None:
    answer = post(gateway, "/v1/rerank", **body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
