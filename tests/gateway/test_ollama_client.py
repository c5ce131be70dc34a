"""The unmodified ``ollama`` library against the gateway and a real service with the demo model."""

import json
import urllib.request
from datetime import datetime
from typing import Any

import ollama
import pytest

from clients.daemon_process import Daemon
from gateway.conftest import DEMO_MODEL
from gateway.gateway_process import GatewayProcess
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS

MODEL = DEMO_MODEL.stem
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"temperature": 0, "num_predict": 12, "num_ctx": 8192, "num_gpu": 99}


@pytest.fixture
def client(demo_gateway: GatewayProcess) -> ollama.Client:
    return ollama.Client(host=demo_gateway.url, timeout=TIMEOUT_SECONDS)


def test_the_root_says_what_programs_look_for(demo_gateway: GatewayProcess) -> None:
    for method in ("GET", "HEAD"):
        request = urllib.request.Request(demo_gateway.url, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            assert answer.read() == (b"Ollama is running" if method == "GET" else b"")


def test_models_are_listed_shown_and_running(client: ollama.Client) -> None:
    (listed,) = client.list().models
    assert listed.model == MODEL
    assert listed.digest is not None
    assert len(listed.digest) == 64
    assert listed.size == DEMO_MODEL.stat().st_size
    assert isinstance(listed.modified_at, datetime)
    assert listed.details is not None
    assert listed.details.parameter_size == "135M"
    assert listed.details.quantization_level == "Q4_1"
    for name in (MODEL, MODEL + ":latest", MODEL.replace("-Instruct", ":Instruct")):
        shown = client.show(name)
        assert shown.capabilities == ["completion", "tools"]
        assert shown.modelinfo is not None
        assert shown.modelinfo["llama.context_length"] == 1024
        assert shown.template
    (running,) = client.ps().models
    assert (running.digest, running.context_length) == (listed.digest, 1024)
    assert running.expires_at is not None
    assert running.expires_at.year > 2200


def test_a_chat_is_answered_as_the_service_answers_it(
    client: ollama.Client, demo_service: Daemon
) -> None:
    answer = client.chat(MODEL, QUESTION, options=GREEDY, keep_alive=-1.0)
    with Client(demo_service.socket) as direct:
        text = direct.chat(QUESTION, temperature=0, max_tokens=12).text()
    assert answer.message.content == text
    assert answer.done
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count is not None
    assert answer.prompt_eval_count > 10
    assert answer.eval_count is not None
    assert 1 < answer.eval_count <= 12
    assert answer.total_duration is not None
    assert answer.total_duration > 0
    lines = list(client.chat(MODEL, QUESTION, options=GREEDY, stream=True, think=False))
    assert "".join(line.message.content or "" for line in lines) == text
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_prompt_is_answered_and_a_raw_one_is_continued(
    client: ollama.Client, demo_service: Daemon
) -> None:
    with Client(demo_service.socket) as direct:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        answered = direct.chat(messages, temperature=0, max_tokens=12).text()
        continued = direct.generate("One, two,", temperature=0, max_tokens=12).text()
    system = client.generate(MODEL, "Hi", system="Be brief.", options=GREEDY)
    assert system.response == answered
    raw = client.generate(MODEL, "One, two,", raw=True, options=GREEDY)
    assert raw.response == continued
    lines = list(client.generate(MODEL, "One, two,", raw=True, options=GREEDY, stream=True))
    assert "".join(line.response or "" for line in lines) == continued


def test_a_format_is_kept(client: ollama.Client) -> None:
    schema = {"enum": ["warm", "cold"]}
    hot = {"temperature": 1.5, "seed": 3}
    answer = client.chat(MODEL, QUESTION, format=schema, options=hot)
    assert json.loads(answer.message.content or "") in ("warm", "cold")
    text = client.generate(MODEL, "Hi", format="json", options={**hot, "num_predict": 200})
    assert (text.response or "").startswith("{")
    with pytest.raises(ollama.ResponseError, match="'contains' is not supported"):
        client.chat(MODEL, QUESTION, format={"contains": {}})


def test_no_text_loads_or_unloads(client: ollama.Client) -> None:
    assert client.generate(MODEL, "").done_reason == "load"
    assert client.generate(MODEL, "", keep_alive=0).done_reason == "unload"
    assert client.chat(MODEL, []).done_reason == "load"


def test_the_answer_without_a_text_is_one_object_also_as_a_stream(
    demo_gateway: GatewayProcess,
) -> None:
    for path, body in ("generate", {"keep_alive": 0, "prompt": ""}), ("chat", {"messages": []}):
        data = json.dumps({"model": MODEL, **body}).encode()
        with urllib.request.urlopen(f"{demo_gateway.url}/api/{path}", data) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            assert json.loads(answer.read())["done"]


def test_a_model_that_is_not_there_is_a_404_and_pull_says_how_it_comes(
    client: ollama.Client,
) -> None:
    for call in (
        lambda: client.chat("nobody", QUESTION),
        lambda: client.show("nobody"),
        lambda: client.generate("nobody", ""),
    ):
        with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as caught:
            call()
        assert caught.value.status_code == 404
    assert client.pull(MODEL).status == "success"
    with pytest.raises(ollama.ResponseError, match="llamactl pull"):
        client.pull("nobody")
    with pytest.raises(ollama.ResponseError, match="only API keys"):
        client.delete(MODEL)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"temperature": -1}}, "temperature"),
        ({"messages": [{"role": "boss", "content": "x"}]}, r"messages\[0\].role"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "1024"),
    ],
)
def test_a_wrong_or_unsupported_field_is_named(
    client: ollama.Client, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ollama.ResponseError, match=named) as caught:
        client._request(
            ollama.ChatResponse,
            "POST",
            "/api/chat",
            json={"model": MODEL, "messages": QUESTION, "stream": False} | fields,
        )
    assert caught.value.status_code == 400
