"""The unmodified ``anthropic`` library: against a scripted model, and against the demo model."""

import json
from typing import Any

import anthropic
import pytest

from clients.daemon_process import Daemon
from clients.running import RunningService
from gateway.gateway_process import GatewayProcess
from gateway.libraries import anthropic_of
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

CALLS = (
    'I look.<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}}
TOOLS: Any = [
    {"name": "lamp", "description": "Switch it.", "input_schema": SCHEMA},
    {"name": "clock", "input_schema": {"type": "object"}},
]
HELLO: Any = [{"role": "user", "content": "hello"}]
ASKED: Any = {"model": "claude", "max_tokens": 200, "messages": HELLO}


@pytest.fixture
def client(gateway: GatewayProcess) -> anthropic.Anthropic:
    return anthropic_of(gateway)


def test_a_message_is_answered_whole_and_as_a_stream(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    service.engine.rule = saying("An answer.")
    whole = client.messages.create(**ASKED, system=[{"type": "text", "text": "Be brief."}])
    assert (whole.role, whole.type, whole.stop_reason) == ("assistant", "message", "end_turn")
    assert [block.to_dict() for block in whole.content] == [{"type": "text", "text": "An answer."}]
    assert whole.usage.output_tokens == len("An answer.") + 1  # its end is a token, too
    with client.messages.stream(**ASKED, system="Be brief.") as stream:
        assert "".join(stream.text_stream) == "An answer."
        last = stream.get_final_message()
    assert texts_of(last) == texts_of(whole)
    assert last.stop_reason == "end_turn"
    read = last.usage.input_tokens + (last.usage.cache_read_input_tokens or 0)
    assert read == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


def test_models_are_listed_and_found(client: anthropic.Anthropic) -> None:
    (model,) = client.models.list()
    assert (model.id, model.type, model.display_name) == ("fake", "model", "fake")
    assert client.models.retrieve("fake").created_at.year == 1970
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("other")


def test_an_empty_last_message_of_the_assistant_is_none(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    service.engine.rule = saying("An answer.")
    messages: Any = [*HELLO, {"role": "assistant", "content": ""}]
    assert texts_of(client.messages.create(model="m", max_tokens=20, messages=messages)) == [
        "An answer."
    ]


def test_a_strict_tool_has_a_schema_that_can_be_held_to(client: anthropic.Anthropic) -> None:
    tool: Any = {"name": "lamp", "input_schema": {"type": "object", "minItems": "two"}}
    strict: Any = {**tool, "strict": True}
    client.messages.create(**ASKED, tools=[tool])
    with pytest.raises(anthropic.BadRequestError, match="lamp"):
        client.messages.create(**ASKED, tools=[strict])


def test_a_stream_has_its_events_in_their_order(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    service.engine.rule = saying("<think>Hm.</think>\n\nYes.")
    stream = client.messages.create(**ASKED, thinking={"type": "adaptive"}, stream=True)
    kinds = [event.type for event in stream]
    short = [kind for n, kind in enumerate(kinds) if n == 0 or kind != kinds[n - 1]]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert short == ["message_start", *block, *block, "message_delta", "message_stop"]


@pytest.mark.parametrize("streamed", [False, True])
def test_thoughts_are_a_block_of_their_own_and_go_back(
    client: anthropic.Anthropic, service: RunningService, streamed: bool
) -> None:
    service.engine.rule = saying("<think>Hm.</think>\n\nYes.")
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    answer = answer_of(client, streamed, **ASKED, thinking=thinking)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert (answer.content[0].thinking, answer.content[1].text) == ("Hm.", "Yes.")
    history = [*HELLO, {"role": "assistant", "content": answer.content}, *HELLO]
    service.engine.rule = saying("Still yes.")
    after = client.messages.create(model="m", max_tokens=20, messages=history)
    assert texts_of(after) == ["Still yes."]


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_called_and_their_results_read(
    client: anthropic.Anthropic, service: RunningService, streamed: bool
) -> None:
    service.engine.rule = saying(CALLS)
    answer = answer_of(client, streamed, **ASKED, tools=TOOLS, tool_choice={"type": "auto"})
    assert answer.stop_reason == "tool_use"
    text, lamp, clock = answer.content
    assert text.text.strip() == "I look."
    assert (lamp.name, lamp.input, clock.name, clock.input) == ("lamp", {"on": True}, "clock", {})
    results = [
        {"type": "tool_result", "tool_use_id": lamp.id, "content": "done"},
        {
            "type": "tool_result",
            "tool_use_id": clock.id,
            "content": [{"type": "text", "text": "noon"}],
        },
        {"type": "text", "text": "Well?"},
    ]
    history: Any = [
        *HELLO,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": results},
    ]
    service.engine.rule = saying("It is on.")
    after = client.messages.create(model="m", max_tokens=20, messages=history, tools=TOOLS)
    assert texts_of(after) == ["It is on."]


def texts_of(message: Any) -> list[str]:
    """Return the texts of a message."""
    return [block.text for block in message.content if block.type == "text"]


def answer_of(client: anthropic.Anthropic, streamed: bool, **asked: Any) -> Any:
    """Return the message that a request is answered with."""
    if not streamed:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def test_how_an_answer_ended_is_told(client: anthropic.Anthropic, service: RunningService) -> None:
    service.engine.rule = saying("One. Two. Three.")
    stopped = client.messages.create(**ASKED, stop_sequences=["Two", "Three"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Two")
    assert texts_of(stopped) == ["One. "]
    short = client.messages.create(model="m", max_tokens=3, messages=HELLO)
    assert (short.stop_reason, short.stop_sequence) == ("max_tokens", None)


def test_an_answer_that_was_begun_is_continued(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    begun: Any = [*HELLO, {"role": "assistant", "content": "The best answer is ("}]
    with_it = client.messages.count_tokens(model="m", messages=begun).input_tokens
    closed = client.messages.count_tokens(model="m", messages=[*begun, *HELLO]).input_tokens
    assert client.messages.count_tokens(model="m", messages=HELLO).input_tokens < with_it < closed
    service.engine.rule = saying("B)")
    answer = client.messages.create(model="m", max_tokens=9, messages=begun)
    assert texts_of(answer) == ["B)"]
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == with_it


def test_tokens_are_counted_and_no_job_made(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    before = len(service.wait_until_idle())
    plain = client.messages.count_tokens(model="m", messages=HELLO).input_tokens
    more = client.messages.count_tokens(model="m", messages=HELLO, system="Be brief.", tools=TOOLS)
    assert 0 < plain < more.input_tokens
    assert len(service.wait_until_idle()) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": -1}}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content"),
        ({"messages": [{"role": "user", "content": []}]}, r"messages\[0\].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            r"messages\[0\].content\[0\].type: 'image'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            r"content\[0\].tool_use_id",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, r"tools\[0\].type"),
        ({"tools": [{"input_schema": {}}]}, r"tools\[0\].name"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "door"}}, "door"),
        ({"tools": TOOLS, "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"extra_body": {"mcp_servers": [{}]}}, "mcp_servers"),
        ({"system": [{"type": "image"}]}, r"system\[0\].type"),
    ],
)
def test_a_wrong_or_unsupported_field_is_named(
    client: anthropic.Anthropic, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=named) as caught:
        client.messages.create(**(ASKED | fields))
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


def test_an_error_in_a_stream_is_raised(
    client: anthropic.Anthropic, service: RunningService
) -> None:
    entered = service.pause_step(2)
    try:
        with client.messages.stream(**ASKED) as stream:
            assert entered.wait(TIMEOUT_SECONDS)
            (job,) = service.do(lambda: service.service.bench.book.list())
            service.do(lambda: service.service.bench.book.cancel(job.id))
            with pytest.raises(anthropic.APIStatusError, match="cancelled"):
                stream.get_final_message()
    finally:
        service.engine.before_step = lambda: None


def test_the_demo_model_answers_as_the_service_does(
    demo_gateway: GatewayProcess, demo_service: Daemon
) -> None:
    client = anthropic_of(demo_gateway)
    question: Any = [{"role": "user", "content": "What is the capital of France?"}]
    asked: Any = {"model": "claude", "max_tokens": 24, "messages": question}
    greedy: Any = {"temperature": 0}  # the library has no such parameter any more
    with Client(demo_service.socket) as direct:
        completion = direct.chat(question, temperature=0, max_tokens=24)
        text = completion.text()
    assert texts_of(client.messages.create(**asked, extra_body=greedy)) == [text]
    with client.messages.stream(**asked, extra_body=greedy) as stream:
        assert "".join(stream.text_stream) == text
    schema = {**SCHEMA, "required": ["on"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    roomy = {**asked, "max_tokens": 200, "output_config": form}  # white space between the words
    answer = client.messages.create(**roomy, extra_body={"temperature": 1.5})
    assert set(json.loads(texts_of(answer)[0])) == {"on"}
