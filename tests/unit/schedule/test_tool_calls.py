"""A job whose model calls tools: what its client is told, and that it goes on the same."""

import json

from llamad.jobs.event import Delta, FinishReason, ToolCallHead
from llamad.jobs.request import ChatMessage, GenerationRequest, Thinking, Tool, ToolUse
from llamad.jobs.stored_job import plain_deltas, read_deltas
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import Bench, Rule, asynchronous, events_of, saying, text_in

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
