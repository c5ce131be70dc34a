"""Models by HTTP: who may load, unload, delete and fetch them, with a real service."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from clients.daemon_process import Daemon, daemon
from clients.http_server import HttpServer, a_file, http_server
from gateway.gateway_process import GatewayProcess, gateway_process
from gateway.libraries import openai_of
from llamad_client import Client
from llamad_http.authorization import add_key
from tiny_gguf import TinySpec, write_tiny_model
from unit.schedule.fakes import TIMEOUT_SECONDS

CONFIG = """
[service]
pull = true
[aliases]
second = "two"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def source(folder: Path) -> Iterator[HttpServer]:
    """Return a server that has a model."""
    model = write_tiny_model(folder / "three.gguf", TinySpec(vocab_size=512))
    with http_server(a_file(model.read_bytes())) as server:
        yield server


@pytest.fixture
def service(folder: Path) -> Iterator[Daemon]:
    """Return a service that has the models one and two and has loaded the first."""
    models = folder / "models"
    models.mkdir()
    for name in ("one", "two"):
        write_tiny_model(models / f"{name}.gguf", TinySpec())
    config = folder / "llamad.toml"
    config.write_text(f'[model]\ndirectory = "{models}"\n')
    with daemon(folder, "--config", str(config), "--threads", "1") as running:
        while running.llamactl("use", "one").returncode != 0:
            assert running.process.poll() is None, running.log.read_text()
        yield running


@pytest.fixture
def gateway(
    folder: Path, service: Daemon, source: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GatewayProcess]:
    """Return a gateway whose catalogue has one model more, with keys of a user and of an admin."""
    catalogue = folder / "catalogue.toml"
    catalogue.write_text(
        f"""
        [boards]
        [[models]]
        name = "three"
        aliases = ["drei"]
        title = ""
        url = "{source.url("/three.gguf")}"
        file_bytes = 1
        sha256 = ""
        bytes_per_token = 1
        licence = ""
        conditions = ""
        memory = "1GB"
        context = 1
        note = ""
        """
    )
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(catalogue))
    with gateway_process(folder, service.socket, CONFIG) as running:
        yield running


@pytest.fixture
def admin(folder: Path, gateway: GatewayProcess) -> str:
    return add_key(folder / "keys", "boss", "interactive", True)


@pytest.fixture
def user(folder: Path, gateway: GatewayProcess) -> str:
    return add_key(folder / "keys", "kitchen", "interactive", False)


def ollama_of(gateway: GatewayProcess, key: str) -> ollama.Client:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return ollama.Client(host=gateway.url, headers=headers, timeout=TIMEOUT_SECONDS)


def loaded(service: Daemon) -> str:
    """Return the model that is loaded, empty for none."""
    with Client(service.socket) as client:
        model = client.status().model
    return "" if model is None else model.name


def test_a_request_loads_the_model_that_it_names_for_an_administrator(
    gateway: GatewayProcess, service: Daemon, admin: str, user: str
) -> None:
    asked: Any = {"prompt": "a", "max_tokens": 2}
    with pytest.raises(openai.NotFoundError, match="'two' is not loaded"):
        openai_of(gateway, user).completions.create(model="two", **asked)
    assert loaded(service) == "one"
    boss = openai_of(gateway, admin).completions
    assert boss.create(model="two", **asked).model == "two"
    assert boss.create(model="nobody", **asked).model == "two"  # any name is the loaded model's
    assert boss.create(model="one", **asked).model == "one"
    assert boss.create(model="second", **asked).model == "two"
    assert openai_of(gateway, user).completions.create(model="two:latest", **asked).model == "two"
    assert openai_of(gateway, user).models.retrieve("second").id == "two"


def test_clients_that_name_models_in_turn_all_get_their_answers(
    folder: Path, service: Daemon
) -> None:
    def ask(client: openai.OpenAI, model: str) -> list[str]:
        messages: Any = [{"role": "user", "content": "a"}]
        named = [client.completions.create(model=model, prompt="a", max_tokens=2).model]
        stream = client.chat.completions.create(
            model=model, messages=messages, max_tokens=2, stream=True
        )
        named += {piece.model for piece in stream}
        return named

    with (
        gateway_process(folder, service.socket, '[service]\nauto_use = "everybody"') as gateway,
        openai_of(gateway) as client,
        ThreadPoolExecutor(4) as clients,
    ):
        wanted = ["one", "two"] * 8
        answers = list(clients.map(ask, [client] * len(wanted), wanted))
    assert answers == [[model, model] for model in wanted]


def test_a_file_that_cannot_be_loaded_is_an_error_that_programs_do_not_send_again(
    folder: Path, gateway: GatewayProcess, service: Daemon, admin: str
) -> None:
    whole = (folder / "models" / "two.gguf").read_bytes()
    (folder / "models" / "broken.gguf").write_bytes(whole[: len(whole) // 2])
    strange = whole.replace(b"llama", b"lemon")
    (folder / "models" / "strange.gguf").write_bytes(strange)
    boss = openai_of(gateway, admin)
    for name in ("broken", "strange"):
        with pytest.raises(openai.UnprocessableEntityError, match=name) as refused:
            boss.completions.create(model=name, prompt="a", max_tokens=2)
        assert refused.value.param == "model"
        assert post(gateway, admin, "/models/load", name).status_code == 422
    assert post(gateway, admin, "/api/show", "broken").status_code == 422
    assert loaded(service) == "one"


def test_what_a_model_cannot_do_is_an_error_that_programs_do_not_send_again(
    gateway: GatewayProcess, admin: str
) -> None:
    answer = post(gateway, admin, "/v1/rerank", "one", query="a", documents=["b"])
    assert (answer.status_code, "no reranker" in answer.text) == (400, True), answer.text


def test_auto_use_is_everybody_s_or_nobody_s(folder: Path, service: Daemon) -> None:
    asked: Any = {"model": "two", "prompt": "a", "max_tokens": 2}
    with gateway_process(folder, service.socket, '[service]\nauto_use = "nobody"') as gateway:
        admin = add_key(folder / "keys", "boss", "interactive", True)
        with pytest.raises(openai.NotFoundError, match="not loaded"):
            openai_of(gateway, admin).completions.create(**asked)
    (folder / "keys").unlink()
    with gateway_process(folder, service.socket, '[service]\nauto_use = "everybody"') as gateway:
        assert openai_of(gateway, "none").completions.create(**asked).model == "two"


def test_an_empty_request_of_ollama_s_loads_and_unloads_for_an_administrator(
    gateway: GatewayProcess, service: Daemon, admin: str, user: str
) -> None:
    assert ollama_of(gateway, user).generate("one", keep_alive=0).done_reason == "unload"
    assert loaded(service) == "one"  # it stays
    boss = ollama_of(gateway, admin)
    assert boss.generate("two").done_reason == "load"
    assert loaded(service) == "two"
    assert boss.generate("one", keep_alive=0).done_reason == "unload"
    assert loaded(service) == "two"  # what is not loaded has nothing to leave, and is not loaded
    assert boss.generate("two", keep_alive=0).done_reason == "unload"
    assert loaded(service) == ""
    assert ollama_of(gateway, user).chat("two", keep_alive=0).done_reason == "unload"
    with pytest.raises(ollama.ResponseError, match="not found"):
        boss.generate("nobody", keep_alive=0)


def test_llama_server_s_addresses_load_and_unload_for_an_administrator(
    gateway: GatewayProcess, service: Daemon, admin: str, user: str
) -> None:
    for path in ("/models/load", "/models/unload"):
        assert post(gateway, user, path, "two").status_code == 403
    assert post(gateway, admin, "/models/load", "nobody").status_code == 404
    assert post(gateway, admin, "/models/load", "two").json() == {"success": True}
    assert loaded(service) == "two"
    assert post(gateway, admin, "/models/unload", "one").status_code == 400
    assert post(gateway, admin, "/models/unload", "two").json() == {"success": True}
    assert loaded(service) == ""


def post(gateway: GatewayProcess, key: str, path: str, model: str, **fields: Any) -> Any:
    """Send a request that names a model."""
    import httpx  # of the ollama library

    headers = {"authorization": f"Bearer {key}"}
    url = gateway.url + path
    body = {"model": model, **fields}
    return httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_SECONDS)


def test_models_are_deleted_by_an_administrator_alone(
    gateway: GatewayProcess, service: Daemon, admin: str, user: str
) -> None:
    for model in ("two", "nobody"):
        with pytest.raises(ollama.ResponseError, match="--admin") as refused:
            ollama_of(gateway, user).delete(model)
        assert refused.value.status_code == 403
    boss = ollama_of(gateway, admin)
    with pytest.raises(ollama.ResponseError, match="one") as in_use:
        boss.delete("one")
    assert in_use.value.status_code == 409
    with pytest.raises(ollama.ResponseError, match="not found"):
        boss.delete("nobody")
    boss.delete("two:latest")
    assert [model.model for model in boss.list().models] == ["one"]


def test_models_are_fetched_by_an_administrator_alone(
    gateway: GatewayProcess, source: HttpServer, admin: str, user: str
) -> None:
    with pytest.raises(ollama.ResponseError, match="--admin") as refused:
        ollama_of(gateway, user).pull("three")
    assert refused.value.status_code == 403
    assert source.requests == []
    assert ollama_of(gateway, user).pull("one").status == "success"  # it is there
    boss = ollama_of(gateway, admin)
    lines = list(boss.pull("drei", stream=True))
    assert lines[-1].status == "success"
    assert all(line.status == "pulling drei" and line.digest for line in lines[:-1])
    counts = [(line.completed, line.total) for line in lines[:-1]]
    assert counts == sorted(counts)
    assert counts[-1][0] == counts[-1][1]
    assert [model.model for model in boss.list().models] == ["one", "three", "two"]


NO_NAMES = (
    *("/etc/hostname", "../three.gguf", "three.gguf", "file:/etc/hostname", "--name", "a b"),
    *("http://localhost/x.gguf", "hf.co/a/b/../../c", "hf.co/a", "three\n"),
)


def test_only_a_name_is_fetched(gateway: GatewayProcess, source: HttpServer, admin: str) -> None:
    for name in ("nobody", *NO_NAMES):
        with pytest.raises(ollama.ResponseError) as refused:
            ollama_of(gateway, admin).pull(name)
        assert refused.value.status_code == (404 if name == "nobody" else 400), name
    assert source.requests == []


def test_a_fetch_that_fails_says_why(
    gateway: GatewayProcess, source: HttpServer, admin: str
) -> None:
    source.rule = lambda request: b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n"
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError, match="404"):
            list(ollama_of(gateway, admin).pull("three", stream=stream))


def test_a_file_that_is_too_large_is_not_a_matter_of_rights(
    gateway: GatewayProcess, source: HttpServer, admin: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 50}\r\n\r\n"
    source.rule = lambda request: head.encode()
    with pytest.raises(ollama.ResponseError, match="allowed are") as refused:
        ollama_of(gateway, admin).pull("three")
    assert refused.value.status_code == 422


def test_nothing_is_fetched_where_that_was_not_configured(folder: Path, service: Daemon) -> None:
    with gateway_process(folder, service.socket) as gateway:
        admin = add_key(folder / "keys", "boss", "interactive", True)
        with pytest.raises(ollama.ResponseError, match=r"service\.pull") as refused:
            ollama_of(gateway, admin).pull("three")
    assert refused.value.status_code == 403


def test_a_model_gets_another_name_in_the_configuration(
    gateway: GatewayProcess, admin: str, user: str
) -> None:
    for key, status in ((user, 403), (admin, 501)):
        with pytest.raises(ollama.ResponseError) as refused:
            ollama_of(gateway, key).copy("one", "uno")
        assert refused.value.status_code == status
    assert json.loads(str(ollama_of(gateway, user).show("second").model_dump_json()))


def test_without_a_key_nobody_is_an_administrator(folder: Path, service: Daemon) -> None:
    with gateway_process(folder, service.socket, "[service]\npull = true") as gateway:
        client = ollama_of(gateway, "")
        calls = (client.delete, client.pull)
        for call in calls:
            with pytest.raises(ollama.ResponseError, match="--admin"):
                call("three")
        with pytest.raises(ollama.ResponseError, match="--admin"):
            client.copy("one", "uno")
