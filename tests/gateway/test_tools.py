"""Tools through the unmodified libraries: a scripted model calls, and hears of the result."""

import json
import urllib.error
import urllib.request
from typing import Any

import ollama
import openai
import pytest

from clients.running import RunningService
from gateway.gateway_process import GatewayProcess
from gateway.libraries import openai_of
from llamad.errors import ErrorKind, LlamadError
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

CALLS = (
    '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
PARAMETERS = {"type": "object", "properties": {"on": {"type": "boolean"}}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "lamp", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "clock", "description": "Tell the time."}},
]
QUESTION: Any = [{"role": "user", "content": "light"}]


def allowed(mode: str, *names: str) -> Any:
    """Return a choice between tools, as the chats of OpenAI's API have it."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.fixture
def client(gateway: GatewayProcess) -> openai.OpenAI:
    return openai_of(gateway)


def test_openai_hears_of_whole_calls(client: openai.OpenAI, service: RunningService) -> None:
    service.engine.rule = saying(CALLS)
    answer = client.chat.completions.create(model="m", messages=QUESTION, tools=TOOLS)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls: Any = choice.message.tool_calls
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        ("lamp", {"on": True}),
        ("clock", {}),
    ]
    assert len({c.id for c in calls}) == 2
    history = [
        *QUESTION,
        choice.message,
        {"role": "tool", "tool_call_id": calls[0].id, "content": "done"},
        {"role": "tool", "tool_call_id": calls[1].id, "content": "noon"},
    ]
    service.engine.rule = saying("It is on.")
    after = client.chat.completions.create(model="m", messages=history, tools=TOOLS)
    assert after.choices[0].message.content == "It is on."
    assert after.choices[0].finish_reason == "stop"


def test_openai_hears_a_stream_of_calls_one_index_a_chunk(
    client: openai.OpenAI, service: RunningService
) -> None:
    service.engine.rule = saying(CALLS)
    names: dict[int, str] = {}
    arguments = {0: "", 1: ""}
    finish = []
    for chunk in client.chat.completions.create(
        model="m", messages=QUESTION, tools=TOOLS, stream=True
    ):
        delta = chunk.choices[0].delta
        finish += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
        assert not delta.content
        for call in delta.tool_calls or ():
            assert len(delta.tool_calls or ()) == 1
            assert call.function is not None
            if call.index not in names:
                assert (call.id, call.type) != (None, None)
                names[call.index] = call.function.name or ""
            else:
                assert (call.id, call.function.name) == (None, None)
            arguments[call.index] += call.function.arguments or ""
    assert names == {0: "lamp", 1: "clock"}
    assert {n: json.loads(text) for n, text in arguments.items()} == {0: {"on": True}, 1: {}}
    assert finish == ["tool_calls"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "door"}}}, "door"),
        ({"tool_choice": allowed("sometimes", "lamp")}, r"tool_choice\.allowed_tools\.mode"),
        ({"tool_choice": allowed("auto")}, r"tool_choice\.allowed_tools\.tools"),
        ({"tool_choice": allowed("auto", "lamp", "door")}, "door"),
        ({"tool_choice": {"type": "allowed_tools"}}, r"tool_choice\.allowed_tools\.mode"),
        ({"tool_choice": {"type": "custom"}}, r"tool_choice\.type"),
        ({"tool_choice": "required", "tools": []}, "there are no tools"),
        ({"tool_choice": allowed("auto", "lamp"), "tools": []}, "lamp"),
        ({"tools": [{"type": "retrieval"}]}, r"tools\[0\].type"),
        ({"tools": [{"type": "function", "function": {}}]}, r"tools\[0\].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "lamp"),
    ],
)
def test_what_is_wrong_with_tools_is_named(
    client: openai.OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.chat.completions.create(
            **({"model": "m", "messages": QUESTION, "tools": TOOLS} | fields)
        )


def test_responses_name_their_own_fields_of_a_choice(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "input": "light"}
    choices: Any = (
        ({"type": "allowed_tools"}, r"tool_choice\.mode"),
        ({"type": "allowed_tools", "mode": "auto"}, r"tool_choice\.tools"),
        ("required", "there are no tools"),
    )
    for choice, named in choices:
        with pytest.raises(openai.BadRequestError, match=named):
            client.responses.create(**asked, tool_choice=choice)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(
    client: openai.OpenAI, service: RunningService, mode: Any
) -> None:
    service.engine.rule = saying(CALLS)
    asked: Any = {"model": "m", "messages": QUESTION, "tools": TOOLS, "max_tokens": 200}
    answer = client.chat.completions.create(**asked, tool_choice=allowed(mode, "clock"))
    calls: Any = answer.choices[0].message.tool_calls
    assert {call.function.name for call in calls} == {"clock"}
    of_responses: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
    flat: Any = {"type": "allowed_tools", "mode": mode}
    flat["tools"] = [{"type": "image_generation"}, {"type": "function", "name": "clock"}]
    response = client.responses.create(
        model="m", input="light", tools=of_responses, tool_choice=flat, max_output_tokens=200
    )
    assert {item.name for item in response.output if item.type == "function_call"} == {"clock"}
    answered: Any = response.tool_choice
    assert (answered.type, answered.mode) == ("allowed_tools", mode)


@pytest.mark.parametrize("stream", [False, True])
def test_ollama_hears_of_calls_whole_and_in_one_line(
    gateway: GatewayProcess, service: RunningService, stream: bool
) -> None:
    service.engine.rule = saying(CALLS)
    client = ollama.Client(host=gateway.url, timeout=TIMEOUT_SECONDS)
    chat: Any = client.chat
    answer = chat("fake", QUESTION, tools=TOOLS, stream=stream)
    lines = list(answer) if stream else [answer]
    with_calls = [line.message.tool_calls for line in lines if line.message.tool_calls]
    assert len(with_calls) == 1
    assert [(c.function.name, dict(c.function.arguments)) for c in with_calls[0]] == [
        ("lamp", {"on": True}),
        ("clock", {}),
    ]
    assert (lines[-1].done, lines[-1].done_reason) == (True, "stop")
    history = [
        *QUESTION,
        {"role": "assistant", "tool_calls": with_calls[0]},
        {"role": "tool", "content": "done"},  # by order, as Home Assistant sends results
        {"role": "tool", "content": "noon", "tool_name": "clock"},
    ]
    service.engine.rule = saying("It is on.")
    assert client.chat("fake", history, tools=TOOLS).message.content == "It is on."


def test_a_template_is_applied_and_no_job_made(gateway: GatewayProcess) -> None:
    body = json.dumps({"messages": QUESTION}).encode()
    with urllib.request.urlopen(gateway.url + "/apply-template", body) as answer:
        assert json.load(answer) == {"prompt": "user:light|"}


@pytest.mark.parametrize("path", ["/apply-template", "/v1/chat/completions"])
def test_variables_of_the_template_reach_it(
    gateway: GatewayProcess, service: RunningService, path: str
) -> None:
    service.engine.rule = saying("Yes.")
    template = service.service.bench.model.chat_template
    before = len(template.arguments)
    variables = {"date_string": "1 May 2025", "documents": [{"title": "a"}]}
    body = json.dumps({"messages": QUESTION, "chat_template_kwargs": variables}).encode()
    with urllib.request.urlopen(gateway.url + path, body) as answer:
        json.load(answer)
    assert template.arguments[before:] == [variables]


def test_a_chat_on_which_the_template_fails_is_a_bad_request(
    gateway: GatewayProcess, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LlamadError(ErrorKind.INVALID, "CHAT_TEMPLATE_FAILED", "messages: the template fails")

    monkeypatch.setattr(service.service.bench.model.chat_template, "encode", fail)
    body = json.dumps({"messages": QUESTION}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(gateway.url + "/v1/chat/completions", body)
    with caught.value as answer:
        assert (answer.code, json.load(answer)["error"]["message"]) == (
            400,
            "messages: the template fails",
        )
