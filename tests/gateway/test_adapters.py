"""Adapters by HTTP: as models of OpenAI's and Ollama's, by ``lora``, and for all requests."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from clients.daemon_process import Daemon, daemon
from gateway.gateway_process import GatewayProcess, gateway_process
from gateway.libraries import openai_of
from llamad_client import Client
from llamad_http.authorization import add_key
from tiny_adapter import TinyAdapter, write_tiny_adapter
from tiny_gguf import TinySpec, write_tiny_model
from unit.schedule.fakes import TIMEOUT_SECONDS

PROMPT = "hello"
GREEDY: dict[str, Any] = {"temperature": 0, "seed": 1}
SPEC = TinySpec(metadata={"llama.pooling_type": 1})  # it makes vectors, too
FOREIGN = TinyAdapter(metadata={"general.architecture": "qwen2"})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return a service with the model base, its adapters first and second, and one that fails."""
    folder = tmp_path_factory.mktemp("s")
    models = folder / "models"
    models.mkdir()
    for name in ("base", "other"):
        write_tiny_model(models / f"{name}.gguf", SPEC)
    write_tiny_adapter(models / "first.gguf", SPEC, TinyAdapter())
    write_tiny_adapter(models / "second.gguf", SPEC, TinyAdapter(seed=2))
    write_tiny_adapter(models / "foreign.gguf", SPEC, FOREIGN)
    config = folder / "llamad.toml"
    config.write_text(f'[model]\ndirectory = "{models}"\n')
    with daemon(folder, "--config", str(config), "--threads", "1") as running:
        while running.llamactl("use", "base").returncode != 0:
            assert running.process.poll() is None, running.log.read_text()
        yield running


@pytest.fixture
def gateway(service: Daemon, tmp_path: Path) -> Iterator[GatewayProcess]:
    with gateway_process(tmp_path, service.socket) as running:
        yield running


@pytest.fixture(scope="module")
def texts(service: Daemon) -> dict[str, str]:
    """Return what the service itself answers, by adapter and scale."""
    chosen: dict[str, dict[str, Any]] = {
        "plain": {},
        "first": {"adapter": "first"},
        "second": {"adapter": "second"},
        "weak": {"adapter": "first", "adapter_scale": 0.25},
    }
    with Client(service.socket) as client:
        found = {
            name: client.generate(
                PROMPT, parse_special=True, max_tokens=12, temperature=0.0, **adapter
            ).text()
            for name, adapter in chosen.items()
        }
    assert len(set(found.values())) == 4
    return found


def ask(gateway: GatewayProcess, path: str, body: Any = None, key: str = "") -> Any:
    """Return the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(gateway.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def refused(gateway: GatewayProcess, path: str, body: Any, key: str = "") -> tuple[int, str]:
    """Return status and message of an answer that is an error."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(gateway, path, body, key)
    return caught.value.code, json.load(caught.value)["error"]["message"]


def complete(gateway: GatewayProcess, key: str = "", **fields: Any) -> str:
    """Return what /completion answers."""
    body = {"prompt": PROMPT, "n_predict": 12, "temperature": 0, **fields}
    content: str = ask(gateway, "/completion", body, key)["content"]
    return content


def lora(*scales: float) -> list[dict[str, float]]:
    return [{"id": number, "scale": scale} for number, scale in enumerate(scales)]


def test_adapters_are_listed_with_their_ids(gateway: GatewayProcess) -> None:
    assert ask(gateway, "/lora-adapters") == [
        {"id": 0, "path": "first.gguf", "scale": 0.0},
        {"id": 1, "path": "second.gguf", "scale": 0.0},
    ]


def test_a_request_names_adapters_by_id(gateway: GatewayProcess, texts: dict[str, str]) -> None:
    assert complete(gateway) == texts["plain"]
    assert complete(gateway, lora=lora(1)) == texts["first"]
    assert complete(gateway, lora=lora(0, 1)) == texts["second"]
    assert complete(gateway, lora=lora(0.25)) == texts["weak"]
    assert complete(gateway, lora=lora(0, 0)) == texts["plain"]
    assert complete(gateway, lora=[]) == texts["plain"]
    assert complete(gateway, lora=[{"id": 1, "scale": 1}], model="first") == texts["second"]
    body = {"prompt": PROMPT, "max_tokens": 12, "lora": lora(1), **GREEDY}
    assert ask(gateway, "/v1/completions", body)["choices"][0]["text"] == texts["first"]
    chats = [
        ask(
            gateway,
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 12, **GREEDY, **more},
        )["choices"][0]["message"]["content"]
        for more in ({}, {"lora": lora(0)}, {"lora": lora(1)}, {"model": "first"})
    ]
    assert chats[0] == chats[1]
    assert chats[2] == chats[3] != chats[0]


def test_an_adapter_is_a_model_to_openai_and_ollama(
    gateway: GatewayProcess, texts: dict[str, str]
) -> None:
    client = openai_of(gateway, "none")
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert list(models) == ["base", "first", "other", "second"]
    assert models["first"]["parent"] == "base"
    assert "parent" not in models["base"]
    assert client.models.retrieve("second").model_dump()["parent"] == "base"
    with pytest.raises(openai.NotFoundError, match="'foreign' not found"):
        client.models.retrieve("foreign")
    for name, shown in (("first", "first"), ("second:latest", "second"), ("base", "base")):
        answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=12, **GREEDY)
        assert answer.model == shown
        assert answer.choices[0].text == texts["plain" if name == "base" else shown]
    with pytest.raises(openai.NotFoundError, match=r"'foreign' is not loaded: .*general\.arch"):
        client.completions.create(model="foreign", prompt=PROMPT)
    vectors = [
        client.embeddings.create(model=name, input=PROMPT).data[0].embedding
        for name in ("base", "first")
    ]
    assert vectors[0] != vectors[1]
    options = {"num_predict": 12, **GREEDY}
    body = {"model": "first", "prompt": PROMPT, "raw": True, "stream": False, "options": options}
    assert ask(gateway, "/api/generate", body)["response"] == texts["first"]
    assert [m["name"] for m in ask(gateway, "/api/tags")["models"]] == ["base", "other"]
    facts = [ask(gateway, "/api/show", {"model": n})["model_info"] for n in ("base", "first")]
    assert facts[0] == facts[1]


def test_an_echo_is_scored_through_the_adapter(gateway: GatewayProcess) -> None:
    body = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 1}
    told = [
        ask(gateway, "/v1/completions", {**body, **more})["choices"][0]["logprobs"][
            "token_logprobs"
        ]
        for more in ({}, {"lora": lora(1)}, {"model": "first"})
    ]
    assert told[1] == told[2] != told[0]


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        (lora(1, 1), 400, "lora[1].scale: must be 0: a request goes through one adapter"),
        (lora(0, 0, 1), 400, "lora[2].id: is 2, there are 2 adapters"),
        ([{"id": 0}], 400, "lora[0].scale: is missing"),
        ([{"scale": 1}], 400, "lora[0].id: is missing"),
        ([{"id": -1, "scale": 1}], 400, "lora[0].id: must be 0 to"),
        ([{"id": "first", "scale": 1}], 400, "lora[0].id: must be an integer, not a string"),
        ([{"id": 0, "scale": True}], 400, "lora[0].scale: must be a number"),
        ([{"id": 0, "scale": 1e9}], 400, "adapter.scale: is 1e+09"),
        ([0], 400, "lora[0]: must be an object, not a number"),
        ({"id": 0, "scale": 1}, 400, "lora: must be a list, not an object"),
    ],
)
def test_a_wrong_list_is_refused_by_the_field(
    gateway: GatewayProcess, value: Any, status: int, words: str
) -> None:
    for path, body in (
        ("/completion", {"prompt": PROMPT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]}),
        ("/v1/completions", {"prompt": PROMPT}),
    ):
        code, message = refused(gateway, path, {**body, "lora": value})
        assert code == status
        assert words in message


def test_an_administrator_sets_the_adapter_of_all_requests(
    gateway: GatewayProcess, texts: dict[str, str], tmp_path: Path
) -> None:
    assert refused(gateway, "/lora-adapters", lora(1))[0] == 403
    admin = add_key(tmp_path / "keys", "boss", "interactive", True)
    user = add_key(tmp_path / "keys", "kitchen", "interactive", False)
    assert refused(gateway, "/lora-adapters", lora(1), user)[0] == 403
    assert ask(gateway, "/lora-adapters", lora(0.25), admin) == {"success": True}
    assert [one["scale"] for one in ask(gateway, "/lora-adapters", key=user)] == [0.25, 0.0]
    assert complete(gateway, user) == texts["weak"]
    assert complete(gateway, user, lora=lora(0, 1)) == texts["second"]
    assert complete(gateway, user, lora=[]) == texts["plain"]
    assert complete(gateway, user, model="first") == texts["first"]
    code, message = refused(gateway, "/lora-adapters", {"id": 0, "scale": 1}, admin)
    assert (code, message) == (400, "body: must be a JSON list")
    code, message = refused(gateway, "/lora-adapters", lora(1, 2), admin)
    assert (code, message[:13]) == (400, "lora[1].scale")
    assert [one["scale"] for one in ask(gateway, "/lora-adapters", key=user)] == [0.25, 0.0]
    assert ask(gateway, "/lora-adapters", [], admin) == {"success": True}
    assert complete(gateway, user) == texts["plain"]
