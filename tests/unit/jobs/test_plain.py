"""Requests as JSON and back, and what is refused of a file that somebody else wrote."""

import json
from typing import Any

import pytest

from llamad.jobs.event import Finished, FinishReason, Timings
from llamad.jobs.plain import from_plain, to_plain
from llamad.jobs.request import (
    ChatMessage,
    ContextFull,
    GenerationRequest,
    Priority,
    Thinking,
    Tool,
    ToolCall,
    ToolUse,
)
from llamad.sampling.parameters import Sampling
from llamad.sampling.response_format import FormatKind, ResponseFormat

REQUEST = GenerationRequest(
    messages=(
        ChatMessage("user", "Grüße"),
        ChatMessage("assistant", "", (ToolCall("lamp", "{}", "id"),), thinking="hm"),
        ChatMessage("tool", "done", tool_call_id="id", tool_name="lamp"),
    ),
    tools=(Tool("lamp", "A lamp", "{}"),),
    tool_use=ToolUse.REQUIRED,
    required_tool="lamp",
    allowed_tools=("lamp", "clock"),
    parallel_tool_calls=False,
    thinking=Thinking(enabled=True, budget_tokens=9, effort="high"),
    context_full=ContextFull.REFUSE,
    template_arguments={"enable_thinking": False, "n": [1, {"a": None}]},
    model="m",
    max_tokens=5,
    stop=("a", "b"),
    sampling=Sampling(
        temperature=0.5, seed=1 << 63, logit_bias={3: -1.5}, mirostat=2, samplers=("top_k", "dry")
    ),
    priority=Priority.BATCH,
    deadline_seconds=2.0,
    speculation=True,
    owner_uid=1000,
    response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "{}", closed_objects=True),
    logprobs=3,
)
FINISHED = Finished(
    job_id="j1",
    model="m",
    reason=FinishReason.STOP,
    prompt_tokens=1,
    completion_tokens=2,
    cached_prompt_tokens=0,
    timings=Timings(0, 1.0, 2.0, 3.0, 4.0, 5.0),
    seed=7,
)


@pytest.mark.parametrize("value", [REQUEST, FINISHED, GenerationRequest(prompt="p")])
def test_a_value_comes_back_through_json(value: Any) -> None:
    assert from_plain(type(value), json.loads(json.dumps(to_plain(value)))) == value


def test_fields_that_are_absent_get_their_default_and_unknown_ones_are_left_out() -> None:
    assert from_plain(GenerationRequest, {"prompt": "p", "later": 1}) == GenerationRequest("p")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": "5"}, "GenerationRequest.max_tokens: is '5', no int"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": "text"}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"priority": 9}, "priority: 9 is not a valid Priority"),
        ({"sampling": []}, "Sampling: is no table"),
        ({"sampling": {"top_k": 1.5}}, "Sampling.top_k"),
        ({"sampling": {"logit_bias": {"x": 1.0}}}, "logit_bias"),
        ({"messages": [{"role": "user"}]}, "ChatMessage.content: is missing"),
    ],
)
def test_another_type_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        from_plain(GenerationRequest, {"prompt": "p", **change})


@pytest.mark.parametrize("plain", [None, [], "text", 3])
def test_what_is_no_table_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="is no table"):
        from_plain(GenerationRequest, plain)
