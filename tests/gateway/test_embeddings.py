"""Vectors through the unmodified libraries: those of the service, in the order of the texts."""

import json
import math
import urllib.error
import urllib.request
from typing import Any

import ollama
import openai
import pytest

from clients.running import RunningService
from gateway.gateway_process import GatewayProcess
from gateway.libraries import openai_of
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS

TEXTS = ["a", "bcd", "e" * 40]


@pytest.fixture
def vectors(service: RunningService) -> list[list[float]]:
    """Return the service's own."""
    with Client(service.path) as direct:
        return [list(vector.values) for vector in direct.embed(TEXTS)]


def test_openai_gets_vectors_in_both_formats(
    gateway: GatewayProcess, vectors: list[list[float]]
) -> None:
    client = openai_of(gateway)
    for written in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model="m", input=TEXTS, **written)  # type: ignore[arg-type]
        assert [entry.embedding for entry in answer.data] == vectors
        assert [entry.index for entry in answer.data] == [0, 1, 2]
        assert answer.usage.prompt_tokens == sum(map(len, TEXTS))
    for field, value in (("input", [[1, 2]]), ("input", ""), ("dimensions", 7)):
        with pytest.raises(openai.BadRequestError, match=field):
            client.embeddings.create(**{"model": "m", "input": "x", field: value})  # type: ignore[arg-type]


def test_ollama_gets_vectors_on_both_addresses(
    gateway: GatewayProcess, vectors: list[list[float]]
) -> None:
    client = ollama.Client(host=gateway.url, timeout=TIMEOUT_SECONDS)
    answer = client.embed("fake", TEXTS)
    assert [list(vector) for vector in answer.embeddings] == vectors
    assert answer.prompt_eval_count == sum(map(len, TEXTS))
    assert list(client.embeddings("fake", TEXTS[0]).embedding) == vectors[0]
    with pytest.raises(ollama.ResponseError, match="texts"):
        client.embed("fake", [])


def test_ollama_gets_vectors_of_as_many_numbers_as_it_asks_for(gateway: GatewayProcess) -> None:
    client = ollama.Client(host=gateway.url, timeout=TIMEOUT_SECONDS)
    assert [list(v) for v in client.embed("fake", TEXTS[:2], dimensions=1).embeddings] == [[1], [1]]
    assert len(client.embed("fake", "a", dimensions=0).embeddings[0]) == 2
    with pytest.raises(ollama.ResponseError, match="dimensions"):
        client.embed("fake", "a", dimensions=3)


def post(gateway: GatewayProcess, body: Any) -> Any:
    """Return what llama-server's own address answers."""
    request = urllib.request.Request(gateway.url + "/embedding", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return json.loads(answer.read())


def test_llama_server_s_address_has_each_vector_in_a_list(
    gateway: GatewayProcess, vectors: list[list[float]]
) -> None:
    whole = [{"index": index, "embedding": [vector]} for index, vector in enumerate(vectors)]
    for body in (
        {"content": TEXTS},
        {"content": TEXTS, "embd_normalize": 2},
        {"input": TEXTS, "content": "z"},
        {"content": TEXTS, "embd_normalize": None},
    ):
        assert post(gateway, body) == whole
    assert post(gateway, {"content": TEXTS[0]}) == whole[:1]


@pytest.mark.parametrize("norm", [0, 1, 3, 1000])
def test_vectors_are_divided_by_the_norm_that_is_asked_for(
    gateway: GatewayProcess, vectors: list[list[float]], norm: int
) -> None:
    for answer, vector in zip(
        post(gateway, {"content": TEXTS, "embd_normalize": norm}), vectors, strict=True
    ):
        (got,) = answer["embedding"]
        length = math.hypot(*got)
        assert [value / length for value in got] == pytest.approx(vector, rel=1e-6)
        largest = max(map(abs, got))
        if norm == 0:
            assert largest == pytest.approx(32760)
        else:
            assert sum(abs(value) ** norm for value in got) == pytest.approx(1, rel=1e-6)


def test_a_model_that_was_not_made_for_vectors_makes_them_with_pooling(
    gateway: GatewayProcess, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service.bench.model, "pooling", None)
    client = openai_of(gateway)
    with pytest.raises(openai.BadRequestError, match="pooling"):
        client.embeddings.create(model="m", input="a")
    made = client.embeddings.create(model="m", input="a", extra_body={"pooling": "last"})
    assert made.data[0].embedding
    for path, field in (("/embedding", "content"), ("/api/embed", "input")):
        body = json.dumps({"model": "fake", field: "a", "pooling": "mean"}).encode()
        with urllib.request.urlopen(gateway.url + path, body) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"content": "a", "pooling": "all"}, "pooling"),
        ({}, "content"),
        ({"content": ""}, "content"),
        ({"content": ["a", ""]}, "content"),
        ({"content": [1, 2]}, "content"),
        ({"input": []}, "input"),
        ({"content": "a", "embd_normalize": -1}, "embd_normalize"),
        ({"content": "a", "embd_normalize": -2}, "embd_normalize"),
        ({"content": "a", "embd_normalize": 0.5}, "embd_normalize"),
    ],
)
def test_what_has_no_vector_is_refused_by_name(
    gateway: GatewayProcess, body: Any, named: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(gateway, body)
    with caught.value as answer:
        assert answer.status == 400
        assert named in json.loads(answer.read())["error"]["message"]
