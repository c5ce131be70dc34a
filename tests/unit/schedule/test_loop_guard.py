"""Ends that belong to the answer: a loop, the bound of a model that may never end, thoughts."""

import pytest

from llamad.jobs.event import Delta, Finished, FinishReason, Queued
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.schedule.loop_guard import LONGEST_TOKENS, WINDOW_TOKENS, is_due, is_loop
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import Bench, asynchronous, events_of, saying


@pytest.mark.parametrize("n", [1, 2, 3, 7, 63, LONGEST_TOKENS])
def test_a_stretch_over_and_over_is_a_loop(n: int) -> None:
    tokens = [i % n for i in range(WINDOW_TOKENS)]
    assert is_loop([99, *tokens])
    assert not is_loop(tokens[1:])
    for place in (0, WINDOW_TOKENS // 2, WINDOW_TOKENS - 1):
        assert not is_loop([*tokens[:place], 999, *tokens[place + 1 :]])


def test_a_longer_stretch_and_a_list_that_counts_are_none() -> None:
    assert not is_loop([i % (LONGEST_TOKENS + 1) for i in range(WINDOW_TOKENS)])
    assert not is_loop([token for i in range(WINDOW_TOKENS) for token in (5, i, 6)])
    assert [n for n in range(400) if is_due(n)] == [256, 288, 320, 352, 384]


async def _ended(request: GenerationRequest, rule: str, then: int, bench: Bench) -> list[object]:
    bench.engine.rule = saying(rule, then)
    async with bench.running():
        return list(await events_of(await bench.scheduler.submit(request)))


@asynchronous
async def test_an_answer_that_repeats_itself_ends_with_that_reason() -> None:
    request = GenerationRequest(prompt="p", loop_guard=True)
    events = await _ended(request, "x", ord("a"), Bench(n_ctx=1024))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.completion_tokens) == (FinishReason.LOOP, 288)
    assert not last.context_full


@asynchronous
async def test_without_the_guard_it_goes_on_to_the_end_of_the_context() -> None:
    events = await _ended(GenerationRequest(prompt="p"), "x", ord("a"), Bench(n_ctx=512))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.completion_tokens) == (FinishReason.LENGTH, 511)
    assert last.context_full


@asynchronous
async def test_a_model_that_may_never_end_gets_512_tokens_unless_asked() -> None:
    for asked, n_tokens in ((None, 512), (600, 600)):
        bench = Bench(n_ctx=1024)
        bench.model.ends_answers = False
        request = GenerationRequest(prompt="p", max_tokens=asked)
        last = (await _ended(request, "x", ord("a"), bench))[-1]
        assert isinstance(last, Finished)
        assert (last.completion_tokens, last.context_full) == (n_tokens, False)


@asynchronous
async def test_a_chat_with_a_substitute_template_says_so_first() -> None:
    bench = Bench()
    bench.model.chat_template.substitute = "transcript"
    chat = GenerationRequest(messages=(ChatMessage("user", "u"),), max_tokens=1)
    first = (await _ended(chat, "x", 0, bench))[0]
    assert isinstance(first, Queued)
    assert first.substitute_template == "transcript"


@asynchronous
async def test_thoughts_of_a_chat_are_apart_and_counted_and_a_prompt_has_none() -> None:
    text = "<think>Hm</think>\n\nYes"
    for chat in (True, False):
        bench = Bench()
        bench.model.thinking = ThinkingMarks((("<think>", "</think>"),))
        request = (
            GenerationRequest(messages=(ChatMessage("user", "u"),))
            if chat
            else GenerationRequest(prompt="u")
        )
        events = await _ended(request, text, 0, bench)
        deltas = [event for event in events if isinstance(event, Delta)]
        thought = "".join(delta.text for delta in deltas if delta.thinking)
        answer = "".join(delta.text for delta in deltas if not delta.thinking)
        last = events[-1]
        assert isinstance(last, Finished)
        assert (thought, answer) == (("Hm", "Yes") if chat else ("", text))
        assert last.reasoning_tokens == (len("<think>Hm</think>") - 6 if chat else 0)
