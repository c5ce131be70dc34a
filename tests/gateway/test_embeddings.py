"""Vectors through the unmodified libraries: those of the service, in the order of the texts."""

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
