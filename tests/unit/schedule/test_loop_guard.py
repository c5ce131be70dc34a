"""Ends that belong to the answer: a loop, the bound of a model that may never end, thoughts."""

import re
import zlib

import pytest

from llamad.jobs.event import Delta, Finished, FinishReason, Queued
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.schedule.loop_guard import (
    LEAST_TOKENS,
    LONGEST_TOKENS,
    MOST_TOKENS,
    TIMES,
    is_due,
    is_loop,
)
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import Bench, asynchronous, events_of, saying


def needed(n: int) -> int:
    """Return how many tokens of a stretch of n are a loop."""
    return min(max(LEAST_TOKENS, TIMES * n), MOST_TOKENS)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7, 63, LONGEST_TOKENS])
def test_a_stretch_over_and_over_is_a_loop(n: int) -> None:
    size = needed(n)
    tokens = [i % n for i in range(size)]
    assert is_loop([99, *tokens])
    assert not is_loop(tokens[1:])
    for place in (0, size // 2, size - 1):
        assert not is_loop([*tokens[:place], 999, *tokens[place + 1 :]])


def test_a_longer_stretch_and_a_list_that_counts_are_none() -> None:
    assert not is_loop([i % (LONGEST_TOKENS + 1) for i in range(MOST_TOKENS)])
    assert not is_loop([token for i in range(MOST_TOKENS) for token in (5, i, 6)])
    assert [n for n in range(150) if is_due(n)] == [96, 112, 128, 144]


def tokens_of(text: str) -> list[int]:
    """Return more tokens than any vocabulary makes of a text: words, digits and signs one by one.

    Spaces belong to what follows them, as in most vocabularies.
    """
    return [zlib.crc32(part.encode()) for part in re.findall(r" ?[^\W\d]+| ?[\d\W]", text)]


LOOPS = {
    "a word": "fashion, " * 60,
    "a word without a comma": "the " * 140,
    "a line": "I do not know.\n" * 45,
    "a sentence": "I am sorry, but I can not answer this question for you. " * 20,
    "a list that does not go on": "- The sky is blue because of the air.\n" * 30,
}

LEGITIMATE = {
    "a separator of 80 columns": "Results\n" + "-" * 80 + "\n",
    "an empty form": "|" + "---|" * 8 + "\n" + ("|" + "   |" * 8 + "\n") * 3,
    "a table of zeros": "| 0 | 0 | 0 | 0 |\n" * 12,
    "an array of 32": "{" + "0x00, " * 32 + "};",
    "a list of 32 words": "[" + "None, " * 32 + "]",
    "a matrix of 8 by 8": "[" + ("[" + "0, " * 8 + "],\n") * 8 + "]",
    "a word thirty times": "hello " * 30,
    "an HTML table": "<table>" + "<tr><td></td><td></td></tr>\n" * 10 + "</table>",
    "closing brackets": "}" * 12 + "\n" * 20,
    "bars of a picture": ("#" * 40 + "\n") * 4,
    "laughter": "Ha" + "ha" * 30 + "!",
    "counting": "".join(f"{i}, " for i in range(300)),
    "a refrain": ("La " * 12 + "\n") * 4 + "And then we sang again\n" * 8,
    "verses": "".join(f"{n} bottles of beer on the wall, {n} bottles.\n" for n in range(40)),
    "a log": "".join(f"12:00:{i:02} sensor kitchen 21.5\n" for i in range(60)),
}


def ends_at(text: str) -> int:
    """Return the token behind which an answer of this text is ended; 0 when it is not."""
    tokens = tokens_of(text)
    due = (n for n in range(1, len(tokens) + 1) if is_due(n))
    return next((n for n in due if is_loop(tokens[:n])), 0)


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
def test_an_answer_that_says_the_same_over_and_over_is_ended(text: str) -> None:
    assert 0 < ends_at(text) <= 272


def test_a_repeated_word_is_ended_within_120_tokens() -> None:
    assert 0 < ends_at("Fashion is an art. " + "fashion, " * 60) <= 120


@pytest.mark.parametrize("text", LEGITIMATE.values(), ids=LEGITIMATE)
def test_what_is_right_to_repeat_is_not_ended(text: str) -> None:
    assert ends_at(text + " That is all.") == 0


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
    assert (last.reason, last.completion_tokens) == (FinishReason.LOOP, 112)
    assert not last.context_full


@asynchronous
async def test_repetition_of_the_prompt_is_none_of_the_answer() -> None:
    request = GenerationRequest(prompt="a" * 300, loop_guard=True, max_tokens=95)
    last = (await _ended(request, "", ord("a"), Bench(n_ctx=1024)))[-1]
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.LENGTH


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


@pytest.mark.parametrize(
    ("text", "thought", "answer", "reason"),
    [
        ("<think>I stop at END.</think>\n\nYes END no", "I stop at END.", "Yes ", "stop_string"),
        ("<think>END</think>END", "END", "", "stop_string"),
        ("<think>EN</think>D", "EN", "D", "stop"),
        ("<think>E</think>", "E", "", "stop"),
        ("No thought EN", "", "No thought EN", "stop"),
    ],
)
def test_a_stop_string_ends_the_answer_and_no_thought(
    text: str, thought: str, answer: str, reason: str
) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench()
        bench.model.thinking = ThinkingMarks((("<think>", "</think>"),))
        request = GenerationRequest(messages=(ChatMessage("user", "u"),), stop=("END",))
        events = await _ended(request, text, 0, bench)
        deltas = [event for event in events if isinstance(event, Delta)]
        assert "".join(delta.text for delta in deltas if delta.thinking) == thought
        assert "".join(delta.text for delta in deltas if not delta.thinking) == answer
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.reason.value == reason

    check()
