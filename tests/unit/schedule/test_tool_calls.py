"""A job whose model calls tools: what its client is told, and that it goes on the same."""

import asyncio
import json
from dataclasses import replace

import pytest

from llamad.errors import LlamadError
from llamad.jobs.event import Delta, Finished, FinishReason, ToolCallHead
from llamad.jobs.request import ChatMessage, GenerationRequest, Thinking, Tool, ToolUse
from llamad.jobs.stored_job import plain_deltas, read_deltas
from llamad.jobs.transcript import Transcript
from llamad.schedule.limits import Limits
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import Bench, Rule, asynchronous, events_of, saying, text_in
from unit.schedule.test_suspending import in_two_parts

SCHEMA = '{"type": "object", "properties": {"room": {"type": "string"}}}'
CALL = '<tool_call>\n{"name": "lamp", "arguments": {"room": "é"}}\n</tool_call>'


def chat(**fields: object) -> GenerationRequest:
    options = {"tools": (Tool("lamp", "A lamp", SCHEMA),), **fields}
    return GenerationRequest(messages=(ChatMessage("user", "u"),), **options)  # type: ignore[arg-type]


def calls_in(deltas: list[Delta]) -> list[tuple[int, str, object]]:
    return [(d.call.index, d.call.name, json.loads(d.text)) for d in deltas if d.call is not None]


async def answer(bench: Bench, request: GenerationRequest) -> tuple[list[Delta], FinishReason]:
    *events, finished = await events_of(await bench.scheduler.submit(request))
    return [event for event in events if isinstance(event, Delta)], finished.reason  # type: ignore[union-attr]


@asynchronous
async def test_calls_are_told_with_ids_and_the_reason_is_their_results() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(f"I do.\n{CALL}\n{CALL}")
        deltas, reason = await answer(bench, chat())
    assert calls_in(deltas) == [(0, "lamp", {"room": "é"}), (1, "lamp", {"room": "é"})]
    assert text_in([delta for delta in deltas if delta.call is None]) == "I do."
    ids = [delta.call.id for delta in deltas if delta.call is not None]
    assert len(set(ids)) == 2
    assert all(len(call_id) == 9 for call_id in ids)
    assert reason is FinishReason.TOOL_CALLS


@asynchronous
async def test_the_answer_ends_behind_its_first_call_where_one_is_wanted() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(f"{CALL}\n{CALL}")
        deltas, reason = await answer(bench, chat(parallel_tool_calls=False))
    assert len(calls_in(deltas)) == 1
    assert reason is FinishReason.TOOL_CALLS


@asynchronous
async def test_without_tools_and_with_none_wanted_marks_are_text() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(CALL)
        for request in (chat(tools=()), chat(tool_use=ToolUse.NONE)):
            deltas, reason = await answer(bench, request)
            assert text_in(deltas) == CALL
            assert reason is FinishReason.STOP


@asynchronous
async def test_half_a_call_that_the_length_cuts_is_text() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(CALL)
        deltas, reason = await answer(bench, chat(max_tokens=30))
    assert text_in(deltas) == CALL[:30]
    assert reason is FinishReason.LENGTH


@asynchronous
async def test_a_stop_string_is_looked_for_outside_of_calls() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(f"a{CALL} room b")
        deltas, reason = await answer(bench, chat(stop=("room",)))
    assert len(calls_in(deltas)) == 1
    assert reason is FinishReason.STOP_STRING


def test_a_call_is_stored_with_its_head() -> None:
    deltas = (Delta("a", 1), Delta("t", 2, True), Delta("{}", 9, call=ToolCallHead(0, "x", "lamp")))
    assert read_deltas(json.loads(json.dumps(plain_deltas(deltas)))) == deltas


STRICT_SCHEMA = json.dumps({
    "type": "object",
    "properties": {
        "room": {"enum": ["kitchen", "bath"]},
        "note": {"type": "string", "maxLength": 9},
    },
    "required": ["room"],
})  # fmt: skip
LAMPS = (Tool("set_lamp", "", STRICT_SCHEMA), Tool("get_lamp", "", STRICT_SCHEMA))


def wild(opening: str) -> Rule:
    """Return a rule that says how an answer begins, and then anything."""

    def rule(history: tuple[int, ...], seed: int, draw: int) -> int:
        if draw < len(opening):
            return ord(opening[draw])
        return (sum(history[-3:]) * 31 + draw * 7) % 256

    return rule


def told(deltas: list[Delta]) -> list[tuple[str, str]]:
    """Return what was said, with the names of calls."""
    return [(d.call.name if d.call else "", d.text) for d in deltas]


def joined(deltas: list[Delta]) -> tuple[str, list[tuple[str, str]]]:
    """Return the text, and the calls."""
    return text_in([d for d in deltas if d.call is None]), [t for t in told(deltas) if t[0]]


@asynchronous
async def test_behind_a_mark_nothing_but_a_call_is_drawn() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = wild("I do: <tool_call>")
        deltas, _ = await answer(bench, chat(tools=LAMPS, max_tokens=300))
    text, calls = joined(deltas)
    assert text.startswith("I do:")
    assert calls
    assert "<tool_call>" not in text
    for name, arguments in calls:
        assert name in ("set_lamp", "get_lamp")
        assert json.loads(arguments)["room"] in ("kitchen", "bath")


@asynchronous
async def test_an_answer_that_must_call_calls_the_tool_that_is_named() -> None:
    for required in ("", "get_lamp"):
        bench = Bench()
        async with bench.running():
            bench.engine.rule = wild("")
            request = chat(
                tools=LAMPS,
                tool_use=ToolUse.REQUIRED,
                required_tool=required,
                parallel_tool_calls=False,
                max_tokens=300,
            )
            deltas, reason = await answer(bench, request)
        text, calls = joined(deltas)
        assert not text
        assert len(calls) == 1
        assert required in ("", calls[0][0])
        assert reason is FinishReason.TOOL_CALLS


@asynchronous
@pytest.mark.parametrize("use", [ToolUse.AUTO, ToolUse.REQUIRED])
async def test_only_tools_that_are_allowed_are_called(use: ToolUse) -> None:
    wanted = chat(tools=LAMPS, tool_use=use, max_tokens=300)
    for name in ("set_lamp", "get_lamp"):
        bench = Bench()
        async with bench.running():
            bench.engine.rule = wild('<tool_call>\n{"name": "')
            deltas, _ = await answer(bench, replace(wanted, allowed_tools=(name,)))
        _, calls = joined(deltas)
        assert {called for called, _ in calls} == {name}


@asynchronous
async def test_the_model_is_told_of_tools_that_are_not_allowed() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying("no")
        some = replace(chat(tools=LAMPS), allowed_tools=("get_lamp",))
        jobs = [await bench.scheduler.submit(one) for one in (chat(tools=LAMPS), some)]
        for job in jobs:
            await events_of(job)
    first, second = (job.record.prompt_tokens for job in jobs)
    assert first == second


@asynchronous
async def test_a_call_of_a_tool_that_is_not_allowed_is_text() -> None:
    """Where no mark begins one: in a text that the model writes as it likes."""
    bench = Bench()
    said = 'I could {"name": "set_lamp", "arguments": {}}.'
    async with bench.running():
        bench.engine.rule = saying(said)
        deltas, _ = await answer(bench, replace(chat(tools=LAMPS), allowed_tools=("get_lamp",)))
    assert joined(deltas) == (said, [])


@asynchronous
async def test_a_call_is_the_same_alone_in_company_and_with_guesses() -> None:
    wanted = chat(tools=LAMPS, max_tokens=90)
    said, steps = [], []
    for speculation, company in ((False, 0), (True, 0), (True, 2)):
        bench = Bench(Limits(speculation=speculation))
        bench.engine.rule = wild("ok <tool_call>")
        async with bench.running():
            others = [chat(tools=LAMPS, max_tokens=30 + i) for i in range(company)]
            jobs = [await bench.scheduler.submit(one) for one in (wanted, *others)]
            events = await asyncio.gather(*map(events_of, jobs))
        said.append(joined([event for event in events[0] if isinstance(event, Delta)]))
        steps.append(len(bench.engine.steps))
    assert steps[1] < 0.9 * steps[0]  # what must follow takes no steps of its own
    assert said[0][1]
    assert all(one == said[0] for one in said)


@pytest.mark.parametrize("step", [0, 3, 20, 40])
@asynchronous
async def test_a_suspended_answer_goes_on_with_its_call(step: int) -> None:
    whole, transcript = Bench(), Transcript()
    whole.engine.rule = wild("ok <tool_call>")
    request = chat(tools=LAMPS, max_tokens=110)
    async with whole.running():
        expected = joined((await answer(whole, request))[0])
    made = Bench()
    made.engine.rule = wild("ok <tool_call>")
    job = await made.scheduler.submit(request, transcript)
    job.record.durable = True
    made.model.formats.kept.clear()
    await in_two_parts(made, job, step, answer=None)
    assert joined(list(transcript.deltas)) == expected


@asynchronous
async def test_an_answer_that_must_call_may_think_before() -> None:
    bench = Bench()
    bench.model.thinking = MARKS
    bench.model.formats.thoughts = MARKS.pairs
    thought = "<think>which <tool_call> it is</think>\n"
    async with bench.running():
        bench.engine.rule = wild(thought)
        request = chat(tools=LAMPS, tool_use=ToolUse.REQUIRED, max_tokens=300)
        deltas, _ = await answer(bench, request)
    thoughts = [d.text for d in deltas if d.thinking]
    assert "".join(thoughts) == "which <tool_call> it is"
    assert joined([d for d in deltas if not d.thinking])[1]


@asynchronous
async def test_a_length_inside_a_call_is_told() -> None:
    bench = Bench()
    async with bench.running():
        bench.engine.rule = saying(CALL)
        for most, incomplete in ((30, True), (8, False)):
            job = await bench.scheduler.submit(chat(max_tokens=most))
            *_, finished = await events_of(job)
            assert isinstance(finished, Finished)
            assert finished.reason is FinishReason.LENGTH
            assert finished.format_incomplete is incomplete


@asynchronous
async def test_a_strict_tool_with_an_unknown_keyword_is_refused() -> None:
    tool = Tool("lamp", "", '{"type": "object", "contains": {}}', strict=True)
    with pytest.raises(LlamadError, match="tool lamp: parameters: 'contains' is not supported"):
        await Bench().scheduler.submit(chat(tools=(tool,)))


MARKS = ThinkingMarks((("<think>", "</think>"),))


@asynchronous
async def test_a_thought_ends_with_its_budget() -> None:
    bench = Bench()
    async with bench.running():
        bench.model.thinking = MARKS
        text = "<think>"
        bench.engine.rule = then_thinks(text)
        request = chat(tools=(), thinking=Thinking(budget_tokens=20), max_tokens=40)
        job = await bench.scheduler.submit(request)
        *events, finished = await events_of(job)
    deltas = [event for event in events if isinstance(event, Delta)]
    thought = "".join(delta.text for delta in deltas if delta.thinking)
    said = "".join(delta.text for delta in deltas if not delta.thinking)
    assert thought == "h" * (20 - len(text))
    assert said == "!" * (40 - 20 - len("\n</think>\n\n"))
    assert finished.reasoning_tokens == 20 - len(text) + 1 + len("\n</think>")  # type: ignore[union-attr]


def then_thinks(opening: str) -> Rule:
    """Return a rule that opens a thought, never ends it, and answers with ! behind one."""

    def rule(history: tuple[int, ...], seed: int, draw: int) -> int:
        if draw < len(opening):
            return ord(opening[draw])
        return ord("!") if b"</think>" in bytes(history) else ord("h")

    return rule


@asynchronous
async def test_an_answer_without_a_thought_is_not_cut() -> None:
    bench = Bench()
    async with bench.running():
        bench.model.thinking = MARKS
        bench.engine.rule = saying("no thought in here")
        request = chat(tools=(), thinking=Thinking(budget_tokens=3))
        deltas, reason = await answer(bench, request)
    assert text_in(deltas) == "no thought in here"
    assert reason is FinishReason.STOP


@asynchronous
async def test_a_budgets_ending_does_not_depend_on_guesses_or_pauses() -> None:
    texts = []
    for speculation in (False, True):
        bench = Bench()
        bench.model.thinking = MARKS
        bench.engine.rule = then_thinks("<think>")
        request = chat(
            tools=(), thinking=Thinking(budget_tokens=40), max_tokens=90, speculation=speculation
        )
        async with bench.running():
            job = await bench.scheduler.submit(request)
            texts.append([event.text for event in await events_of(job) if isinstance(event, Delta)])
    assert "".join(texts[0]) == "".join(texts[1])


@pytest.mark.parametrize("step", [0, 5, 22, 30, 45])
@asynchronous
async def test_a_stored_job_ends_its_thought_at_the_same_token(step: int) -> None:
    """A budget of 20: it is resumed before, within and behind the mark that is put."""
    thinks = then_thinks("<think>")
    request = chat(tools=(), thinking=Thinking(budget_tokens=20), max_tokens=50)
    whole, transcript = Bench(), Transcript()
    whole.model.thinking, whole.engine.rule = MARKS, thinks
    async with whole.running():
        expected = await answer(whole, request)
    made = Bench()
    made.model.thinking, made.engine.rule = MARKS, thinks
    job = await made.scheduler.submit(request, transcript)
    job.record.durable = True
    await in_two_parts(made, job, step, answer=None)
    for wanted in (True, False):
        said = "".join(d.text for d in transcript.deltas if d.thinking is wanted)
        assert said == "".join(d.text for d in expected[0] if d.thinking is wanted)
    assert job.record.reasoning_tokens == 20 - len("<think>") + 1 + len("\n</think>")
