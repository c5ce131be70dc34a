"""A schema over HTTP: its objects have only the members that it names, in every API."""

import json
import urllib.request
from typing import Any

import pytest

from clients.running import RunningService
from gateway.gateway_process import GatewayProcess
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"on": {"type": "boolean"}}}
MESSAGES = [{"role": "user", "content": "light"}]
CHAT: dict[str, Any] = {"messages": MESSAGES}
WITH_OTHERS = '{"on": true, "made_up": 1}'


def formats(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each way to ask for a schema: an address and a body."""
    of_openai: Any = {"type": "json_schema", "json_schema": {"name": "lamp", "schema": schema}}
    strict = {**of_openai["json_schema"], "strict": True}
    form = {"type": "json_schema", "name": "lamp", "schema": schema}
    of_ollama = {"model": "fake", "format": schema, "stream": False}
    chat = "/v1/chat/completions"
    return [
        (chat, {**CHAT, "response_format": of_openai}),
        (chat, {**CHAT, "response_format": {**of_openai, "json_schema": strict}}),
        (chat, {**CHAT, "response_format": {"type": "json_object", "schema": schema}}),
        (chat, {**CHAT, "json_schema": schema}),
        ("/v1/completions", {"prompt": "light", "max_tokens": 99, "json_schema": schema}),
        ("/completion", {"prompt": "light", "json_schema": schema}),
        ("/v1/responses", {"input": "light", "text": {"format": form}}),
        ("/v1/messages", {**CHAT, "max_tokens": 99, "output_config": {"format": form}}),
        ("/api/chat", {**CHAT, **of_ollama}),
        ("/api/generate", {"prompt": "light", **of_ollama}),
    ]


def answer_of(gateway: GatewayProcess, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(gateway.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        whole = json.load(response)
    match path:
        case "/v1/chat/completions":
            text = whole["choices"][0]["message"]["content"]
        case "/v1/completions":
            text = whole["choices"][0]["text"]
        case "/completion":
            text = whole["content"]
        case "/v1/responses":
            text = whole["output"][-1]["content"][0]["text"]
        case "/v1/messages":
            text = whole["content"][0]["text"]
        case "/api/chat":
            text = whole["message"]["content"]
        case _:
            text = whole["response"]
    return json.loads(text)


@pytest.mark.parametrize("way", range(len(formats({}))))
def test_members_that_the_schema_does_not_name_come_only_where_it_says_so(
    gateway: GatewayProcess, service: RunningService, way: int
) -> None:
    service.engine.rule = saying(WITH_OTHERS)
    assert answer_of(gateway, *formats(SCHEMA)[way]) == {"on": True}
    opened = {**SCHEMA, "additionalProperties": {"type": "integer"}}
    assert answer_of(gateway, *formats(opened)[way]) == json.loads(WITH_OTHERS)


def test_a_schema_that_names_no_members_allows_any(
    gateway: GatewayProcess, service: RunningService
) -> None:
    service.engine.rule = saying(WITH_OTHERS)
    for path, body in formats({"type": "object"}):
        assert answer_of(gateway, path, body) == json.loads(WITH_OTHERS)
