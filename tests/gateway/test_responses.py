"""``/v1/responses`` through the unmodified ``openai`` library."""

import json
from typing import Any

import openai
import pytest

from clients.daemon_process import Daemon
from clients.running import RunningService
from gateway.gateway_process import GatewayProcess
from gateway.libraries import openai_of
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

CALLS = (
    'I look.<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
PARAMETERS = {"type": "object", "properties": {"on": {"type": "boolean"}}}
TOOLS: Any = [
    {"type": "function", "name": "lamp", "parameters": PARAMETERS, "strict": False},
    {"type": "web_search"},  # of OpenAI's servers: left out, as programs expect
    {"type": "function", "name": "clock", "description": "Tell the time."},
]
ASKED: Any = {"model": "gpt-5", "input": "hello"}


@pytest.fixture
def client(gateway: GatewayProcess) -> openai.OpenAI:
    return openai_of(gateway)


def answer_of(client: openai.OpenAI, streamed: bool, **asked: Any) -> Any:
    """Return the response that a request is answered with."""
    if not streamed:
        return client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        return stream.get_final_response()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_text_is_answered(client: openai.OpenAI, service: RunningService, streamed: bool) -> None:
    service.engine.rule = saying("An answer.")
    answer = answer_of(client, streamed, **ASKED, instructions="Be brief.", metadata={"a": "b"})
    assert (answer.status, answer.output_text) == ("completed", "An answer.")
    assert (answer.instructions, answer.metadata) == ("Be brief.", {"a": "b"})
    assert answer.usage.output_tokens == len("An answer.") + 1
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_a_strict_tool_has_a_schema_that_can_be_held_to(client: openai.OpenAI) -> None:
    tool: Any = {**TOOLS[0], "parameters": {"type": "object", "minItems": "two"}}
    strict: Any = {**tool, "strict": True}
    client.responses.create(**ASKED, tools=[tool])
    with pytest.raises(openai.BadRequestError, match="lamp"):
        client.responses.create(**ASKED, tools=[strict])


def test_the_events_of_a_stream_come_in_their_order(
    client: openai.OpenAI, service: RunningService
) -> None:
    service.engine.rule = saying("<think>Hm.</think>\n\nYes.")
    events = list(client.responses.create(**ASKED, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    short = [kind for n, kind in enumerate(kinds) if n == 0 or kind != kinds[n - 1]]
    assert short == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added"),
        *("reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        "completed",
    ]
    last: Any = events[-1]
    assert [item.type for item in last.response.output] == ["reasoning", "message"]
    assert last.response.output_text == "Yes."


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_called_and_their_results_read(
    client: openai.OpenAI, service: RunningService, streamed: bool
) -> None:
    service.engine.rule = saying(CALLS)
    answer = answer_of(client, streamed, **ASKED, tools=TOOLS)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(c.name, json.loads(c.arguments)) for c in calls] == [
        ("lamp", {"on": True}),
        ("clock", {}),
    ]
    assert len({c.id for c in calls} | {c.call_id for c in calls}) == 4
    history: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        *[item.to_dict() for item in answer.output],
        *[{"type": "function_call_output", "call_id": c.call_id, "output": "ok"} for c in calls],
    ]
    service.engine.rule = saying("It is on.")
    after = client.responses.create(model="m", input=history, tools=TOOLS)
    assert after.output_text == "It is on."


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cut_answer_is_incomplete(
    client: openai.OpenAI, service: RunningService, streamed: bool
) -> None:
    service.engine.rule = saying("An answer.")
    if streamed:
        last: Any = list(client.responses.create(**ASKED, max_output_tokens=3, stream=True))[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    else:
        answer = client.responses.create(**ASKED, max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.output_text, answer.output[-1].status) == ("An ", "incomplete")


def test_a_stream_that_fails_says_so(client: openai.OpenAI, service: RunningService) -> None:
    entered = service.pause_step(2)
    try:
        stream = client.responses.create(**ASKED, stream=True)
        assert entered.wait(TIMEOUT_SECONDS)
        (job,) = service.do(lambda: service.service.bench.book.list())
        service.do(lambda: service.service.bench.book.cancel(job.id))
        last: Any = list(stream)[-1]
    finally:
        service.engine.before_step = lambda: None
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert "cancelled" in last.response.error.message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, r"input\[0\].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, r"input\[0\].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            r"input\[0\].content\[0\].type",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"truncation": "some"}, "truncation"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\].name"),
        ({"tools": TOOLS, "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "door"}}, "door"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "none"}},
            r"tool_choice\.mode",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
            r"tool_choice\.tools",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_a_wrong_or_unsupported_field_is_named(
    client: openai.OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.responses.create(**(ASKED | fields))


def test_no_response_is_kept(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="not kept"):
        client.responses.retrieve("resp_1")


def test_tokens_are_counted_and_no_job_made(client: openai.OpenAI, service: RunningService) -> None:
    before = len(service.wait_until_idle())
    plain = client.responses.input_tokens.count(model="m", input="hello").input_tokens
    more = client.responses.input_tokens.count(model="m", input="hello", instructions="Be brief.")
    assert 0 < plain < more.input_tokens
    assert len(service.wait_until_idle()) == before


def test_the_demo_model_answers_as_the_service_does(
    demo_gateway: GatewayProcess, demo_service: Daemon
) -> None:
    client = openai_of(demo_gateway)
    question = "What is the capital of France?"
    asked: Any = {"model": "m", "input": question, "temperature": 0, "max_output_tokens": 24}
    with Client(demo_service.socket) as direct:
        messages = [{"role": "user", "content": question}]
        text = direct.chat(messages, temperature=0, max_tokens=24).text()
    assert client.responses.create(**asked).output_text == text
    schema = {**PARAMETERS, "required": ["on"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "name": "lamp", "schema": schema}}
    answer = client.responses.create(model="m", input=question, text=form, temperature=1.5)
    assert set(json.loads(answer.output_text)) == {"on"}
    longer: Any = [{"role": "user", "content": "word " * 600} for _ in range(2)]
    with pytest.raises(openai.BadRequestError, match="1024"):
        client.responses.create(model="m", input=longer, max_output_tokens=4)
    longer += messages
    cut = client.responses.create(model="m", input=longer, max_output_tokens=4, truncation="auto")
    assert cut.usage is not None
    assert cut.usage.input_tokens < 1024
