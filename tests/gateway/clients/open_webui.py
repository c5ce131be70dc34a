"""Open WebUI itself: its server on the gateway, as Ollama and llama.cpp, driven as by its page."""
# mypy: ignore-errors

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

GATEWAY, MODEL = os.environ["GATEWAY"], os.environ["MODEL"]
PREFIX = "llamacpp"  # of the models of the second connection
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
LAMP = {"name": "lamp", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}}

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
settings = {
    "DATA_DIR": str(Path("data").absolute()),
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "secret" * 6,
    "OFFLINE_MODE": "True",
    "RAG_EMBEDDING_ENGINE": "ollama",  # else it fetches a model of its own
    "ANONYMIZED_TELEMETRY": "False",
}
Path("data").mkdir()
log = Path("log").open("wb")  # noqa: SIM115 - the server has it
serve = "from open_webui import app; app()"
server = subprocess.Popen(
    [sys.executable, "-c", serve, "serve", "--host", "127.0.0.1", "--port", str(port)],
    stdout=log,
    stderr=log,
    env={**os.environ, **settings},
)
token = ""


def call(method, path, body=None):
    """Return status and body of an answer of Open WebUI's server."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def done(method, path, body=None):
    """Return what an answer says that has to succeed."""
    status, text = call(method, path, body)
    assert status == 200, (path, status, text)
    return json.loads(text)


def chat(model, **options):
    """Return the message that a chat is answered with."""
    body = {"model": model, "messages": QUESTION, "stream": False, "max_tokens": 12, **options}
    return done("POST", "/api/chat/completions", body)["choices"][0]["message"]


def streamed(model):
    """Return the text of a chat that streams, and whether its end had the numbers."""
    body = {"model": model, "messages": QUESTION, "stream": True, "max_tokens": 12}
    body["stream_options"] = {"include_usage": True}
    status, text = call("POST", "/api/chat/completions", body)
    assert status == 200, text
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines
    chunks = [json.loads(line) for line in lines[:-1]]
    pieces = [choice["delta"].get("content") for c in chunks for choice in c["choices"]]
    return "".join(piece or "" for piece in pieces), any(c.get("usage") for c in chunks)


try:
    end = time.monotonic() + 180
    while True:
        try:
            done("GET", "/health")
            break
        except (OSError, AssertionError):
            assert server.poll() is None, Path("log").read_text()
            assert time.monotonic() < end, Path("log").read_text()
            time.sleep(0.5)
    token = done("POST", "/api/v1/auths/signin", {"email": "", "password": ""})["token"]

    # the two connections, as an administrator enters and verifies them
    assert "version" in done("POST", "/ollama/verify", {"url": GATEWAY, "key": ""})
    ollama = {"ENABLE_OLLAMA_API": True, "OLLAMA_BASE_URLS": [GATEWAY], "OLLAMA_API_CONFIGS": {}}
    done("POST", "/ollama/config/update", ollama)
    url = GATEWAY + "/v1"
    assert done("POST", "/openai/verify", {"url": url, "key": ""})["data"][0]["id"] == MODEL
    config = {"enable": True, "provider": "llama.cpp", "prefix_id": PREFIX}
    openai = {"ENABLE_OPENAI_API": True, "OPENAI_API_BASE_URLS": [url], "OPENAI_API_KEYS": [""]}
    done("POST", "/openai/config/update", {**openai, "OPENAI_API_CONFIGS": {"0": config}})
    models = {m["id"]: m["loaded"] for m in done("GET", "/api/models")["data"]}
    assert models == {MODEL: True, f"{PREFIX}.{MODEL}": True}, models

    for model in models:
        assert chat(model)["content"]
        text, counted = streamed(model)
        assert text, model
        assert counted, model
        city = json.loads(chat(model, response_format=FORMAT)["content"])["city"]
        assert city in ("Paris", "Rome")
        assert chat(model, tools=[{"type": "function", "function": LAMP}])["role"] == "assistant"
        begun = [*QUESTION, {"role": "assistant", "content": "The capital is"}]
        assert chat(model, messages=begun)["role"] == "assistant"

    # what its pages for models ask
    assert done("GET", "/ollama/api/version")["version"]
    assert done("GET", "/ollama/api/ps")["models"][0]["model"] == MODEL
    assert done("POST", "/ollama/api/show", {"model": MODEL})["capabilities"]
    assert done("POST", "/ollama/api/unload", {"model": MODEL}) == {"status": True}
    assert "success" in call("POST", "/ollama/api/pull", {"model": MODEL})[1]
    status, said = call("POST", "/openai/models/0/load", {"model": f"{PREFIX}.{MODEL}"})
    assert (status, "--admin" in said) == (403, True), (status, said)
    status, said = call("POST", "/ollama/api/embed", {"model": MODEL, "input": ["a"]})
    assert (status, "was not made for vectors" in said) == (400, True), (status, said)
except BaseException:
    sys.stderr.write(Path("log").read_text()[-5000:])
    raise
finally:
    server.terminate()
    server.wait(30)
