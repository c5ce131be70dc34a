"""Tools, calls and thoughts through gRPC: what is refused, and what a client hears."""

import json
from typing import Any

import grpc
import pytest

from llamad.rpc import tools_from_proto
from llamad.rpc.tools_from_proto import MAX_CONTAINERS
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import serving
from unit.schedule.fakes import asynchronous, saying

LAMP = pb.Tool(name="lamp", parameters='{"type": "object", "properties": {}}')
USER = pb.Message(role="user", content="u")
CALL = pb.ToolCall(name="lamp", arguments="{}")
NUMBER = "9" * 5000
LISTS = f'{{"a": [{"[]," * (MAX_CONTAINERS // 2)}1]}}'

BAD: list[tuple[str, dict[str, Any]]] = [
    ("TOOLS_NAME", {"tools": [pb.Tool(name="a b")]}),
    ("TOOLS_NAME", {"tools": [pb.Tool()]}),
    ("TOOLS_NAME", {"tools": [LAMP, LAMP]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters="{")]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters="[]")]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters='{"a": NaN}')]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters=f'{{"a": {NUMBER}}}')]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters='{"a": "\\ud800"}')]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters='{"a":' * 99 + "1" + "}" * 99)]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name="a", parameters='{"a":' * 9999)]}),
    ("TOOLS_PARAMETERS", {"tools": [pb.Tool(name=f"t{i}", parameters=LISTS) for i in range(2)]}),
    (
        "MESSAGES_TOOL_CALLS_ARGUMENTS",
        {
            "messages": [
                USER,
                pb.Message(role="assistant", tool_calls=[pb.ToolCall(name="a", arguments=LISTS)]),
                pb.Message(role="assistant", tool_calls=[pb.ToolCall(name="a", arguments=LISTS)]),
            ]
        },
    ),
    ("TOOLS_DESCRIPTION", {"tools": [pb.Tool(name="a", description="x" * 65537)]}),
    ("TOOLS", {"tools": [pb.Tool(name=f"t{i}") for i in range(129)]}),
    ("TOOLS", {"tools": [pb.Tool(name=f"t{i}", description="x" * 65000) for i in range(17)]}),
    ("TOOL_CHOICE", {"tool_choice": pb.ToolChoice(mode=pb.ToolChoice.MODE_REQUIRED)}),
    (
        "TOOL_CHOICE_ALLOWED",
        {"tools": [LAMP], "tool_choice": pb.ToolChoice(allowed=["lamp", "door"])},
    ),
    (
        "TOOL_CHOICE_ALLOWED",
        {
            "tools": [LAMP],
            "tool_choice": pb.ToolChoice(mode=pb.ToolChoice.MODE_NONE, allowed=["lamp"]),
        },
    ),
    (
        "TOOL_CHOICE_ALLOWED",
        {
            "tools": [LAMP],
            "tool_choice": pb.ToolChoice(
                mode=pb.ToolChoice.MODE_REQUIRED, name="lamp", allowed=["lamp"]
            ),
        },
    ),
    ("TOOL_CHOICE_NAME", {"tools": [LAMP], "tool_choice": pb.ToolChoice(name="lamp")}),
    (
        "TOOL_CHOICE_NAME",
        {"tools": [LAMP], "tool_choice": pb.ToolChoice(mode=pb.ToolChoice.MODE_REQUIRED, name="x")},
    ),
    ("MESSAGES_TOOL_CALLS", {"messages": [pb.Message(role="user", tool_calls=[CALL])]}),
    (
        "MESSAGES_TOOL_CALLS_NAME",
        {"messages": [USER, pb.Message(role="assistant", tool_calls=[pb.ToolCall()])]},
    ),
    (
        "MESSAGES_TOOL_CALLS_ARGUMENTS",
        {
            "messages": [
                USER,
                pb.Message(role="assistant", tool_calls=[pb.ToolCall(name="lamp", arguments="no")]),
            ]
        },
    ),
    (
        "TOOL_CHOICE",
        {
            "tools": [LAMP],
            "tool_choice": pb.ToolChoice(mode=pb.ToolChoice.MODE_REQUIRED),
            "continue_final_message": True,
        },
    ),
    ("MESSAGES_THINKING", {"messages": [pb.Message(role="user", thinking="x")]}),
    ("MESSAGES_TOOL_CALL_ID", {"messages": [pb.Message(role="user", tool_call_id="x")]}),
    (
        "THINKING_BUDGET_TOKENS",
        {"options": pb.Options(thinking=pb.Thinking(budget_tokens=0))},
    ),
    ("THINKING_EFFORT", {"options": pb.Options(thinking=pb.Thinking(effort=9))}),  # type: ignore[arg-type]
    (
        "THINKING_EFFORT",
        {"options": pb.Options(thinking=pb.Thinking(enabled=False, effort=pb.EFFORT_LOW))},
    ),
]


@pytest.mark.parametrize(("reason", "fields"), BAD)
@asynchronous
async def test_what_is_wrong_is_named(reason: str, fields: dict[str, Any]) -> None:
    async with serving() as service, service.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Chat(pb.ChatRequest(**{"messages": [USER], **fields})):
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing = dict(caught.value.trailing_metadata() or ())
    assert trailing["llamad-reason"] == f"INVALID_{reason}"


@asynchronous
async def test_a_client_hears_of_a_call() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying('<tool_call>{"name": "lamp"}</tool_call>')
        events = [event async for event in stub.Chat(pb.ChatRequest(messages=[USER], tools=[LAMP]))]
    (call,) = (event.tool_call for event in events if event.WhichOneof("event") == "tool_call")
    assert (call.index, call.name, json.loads(call.arguments)) == (0, "lamp", {})
    assert call.id
    assert events[-1].finished.reason == pb.FINISH_REASON_TOOL_CALLS


@asynchronous
async def test_a_chat_is_rendered_and_no_job_made() -> None:
    async with serving() as service, service.stub() as stub:
        chat = pb.ChatRequest(messages=[USER])
        response = await stub.RenderChat(pb.RenderChatRequest(chat=chat))
        jobs = await stub.ListJobs(pb.ListJobsRequest())
    assert response.text == "user:u|"
    assert bytes(response.tokens) == b"user:u|"
    assert not jobs.jobs


def test_brackets_in_texts_are_no_objects() -> None:
    schema = {"type": "object", "description": '"{' * 20_000, "properties": {"a\\": {}}}
    tools = [pb.Tool(name=f"t{i}", parameters=json.dumps(schema)) for i in range(2)]
    assert len(tools_from_proto.tools(tools, 1 << 20)) == 2
