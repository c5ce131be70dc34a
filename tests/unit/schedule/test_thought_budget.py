"""A thought budget of a model that answers in channels: it is the answer's, not each thought's."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from llamad.jobs.event import Delta
from llamad.jobs.request import ChatMessage, GenerationRequest, Thinking, Tool, ToolUse
from llamad.text.channels import ANALYSIS_HEAD, ASSISTANT, END, FINAL_HEAD, MARKS, ChannelSplitter
from unit.schedule.fake_formats import FakeFormats
from unit.schedule.fakes import Bench, FakeTokenizer, Rule, asynchronous, events_of

CONTROLS = dict(enumerate(MARKS, start=1))
BY_NAME = {name: token for token, name in CONTROLS.items()}
PLAN_HEAD = "<|channel|>commentary<|message|>"
CALL_HEAD = "<|channel|>commentary to=functions."
NEXT = END + ASSISTANT


class ChannelTokenizer(FakeTokenizer):
    """One token a mark, else one a byte."""

    def encode(
        self, text: str, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        tokens: list[int] = []
        for part in re.split(r"(<\|\w+\|>)", text):
            tokens += [BY_NAME[part]] if part in BY_NAME else part.encode()
        return tokens

    def piece(self, token: int, special: bool = False) -> bytes:
        return b"" if token in CONTROLS else bytes([token])


class Channels:
    """Marks of a model whose prompt ends with the head of a message."""

    def splitter(self, prompt_tail: str) -> ChannelSplitter:
        return ChannelSplitter(CONTROLS, begun=False)

    def without_thought(self, prompt_tail: str, *, told: bool, calls: bool) -> str:
        return ""


class FreeFormats(FakeFormats):
    """Formats that hold nobody to anything: theirs is the notation of another family."""

    def constraint(self, grammar: Any, tokens: Sequence[int]) -> Any:
        return None


def always_begins(head: str) -> Rule:
    """Return a rule that begins every message so and never ends one."""
    wanted, final = (bytes(ChannelTokenizer().encode(text)) for text in (head, FINAL_HEAD))

    def rule(history: tuple[int, ...], seed: int, draw: int) -> int:
        message = bytes(history[len(history) - draw :]).rsplit(b"assistant", 1)[-1]
        if message != wanted and wanted.startswith(message):
            return wanted[len(message)]
        return ord("!") if message.startswith(final) else ord("h")

    return rule


async def written(head: str, budget: int, n_tokens: int, tool_use: ToolUse) -> str:
    """Return all that an answer's tokens are, marks by name."""
    bench = Bench()
    bench.model.tokenizer, bench.model.thinking = ChannelTokenizer(), Channels()
    bench.model.formats = FreeFormats()
    bench.engine.rule = always_begins(head)
    request = GenerationRequest(
        messages=(ChatMessage("user", "u"),),
        tools=(Tool("lamp", "", '{"type": "object"}'),),
        tool_use=tool_use,
        thinking=Thinking(budget_tokens=budget),
        max_tokens=n_tokens,
    )
    async with bench.running():
        job = await bench.scheduler.submit(request)
        events = await events_of(job)
    assert any(isinstance(event, Delta) and event.thinking for event in events)
    return "".join(CONTROLS.get(token, chr(token)) for token in job.tokens[-n_tokens:])


@pytest.mark.parametrize(
    ("head", "second", "tool_use"),
    [
        (ANALYSIS_HEAD, ANALYSIS_HEAD + NEXT + FINAL_HEAD, ToolUse.AUTO),
        (PLAN_HEAD, PLAN_HEAD + NEXT + CALL_HEAD, ToolUse.AUTO),
        (ANALYSIS_HEAD, CALL_HEAD, ToolUse.REQUIRED),
    ],
    ids=["answers", "calls what it planned", "must call"],
)
@asynchronous
async def test_a_thought_that_is_begun_behind_the_budget_ends_at_once(
    head: str, second: str, tool_use: ToolUse
) -> None:
    thought = head + "h" * 9
    budget = len(ChannelTokenizer().encode(thought))
    expected = thought + NEXT + second
    n_tokens = len(ChannelTokenizer().encode(expected))
    assert await written(head, budget, n_tokens, tool_use) == expected
