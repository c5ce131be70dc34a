"""Guessing from n-grams: what is guessed, and that it changes no answer."""

import pytest

from llamad.schedule.limits import Limits
from llamad.schedule.prompt_lookup import MAX_DRAFTS, MAX_FREE_DRAFTS, PromptLookup
from unit.schedule.fakes import Bench, asynchronous, finish_of, letters, request, saying, text_of


def test_what_followed_the_last_occurrence_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3])
    assert lookup.draft(8) == (4, 5, 6, 7)
    assert lookup.draft(2) == (4, 5)
    assert lookup.draft(0) == ()
    lookup.append(4)
    assert lookup.draft(8) == (5, 6, 7, 9)
    lookup.append(8)
    assert lookup.draft(8) == ()


def test_the_newest_occurrence_wins() -> None:
    assert PromptLookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).draft(1) == (5,)


def test_a_guess_may_run_into_the_repetition_itself() -> None:
    assert PromptLookup([7, 7, 7, 7]).draft(4) == (7,)


@pytest.mark.parametrize("tokens", [[], [1], [1, 2], [1, 2, 3]])
def test_a_short_sequence_gives_no_guess(tokens: list[int]) -> None:
    assert PromptLookup(tokens).draft(4) == ()


def test_free_guesses_are_more() -> None:
    tokens = list(range(100, 130))
    lookup = PromptLookup([1, 2, 3, *tokens, 1, 2, 3])
    assert lookup.draft(64, free=True) == tuple(tokens[:MAX_FREE_DRAFTS])
    assert lookup.draft(3, free=True) == tuple(tokens[:3])
    assert lookup.draft(64) == tuple(tokens[:MAX_DRAFTS])


@asynchronous
async def test_a_repeating_answer_takes_fewer_steps_and_stays_the_same() -> None:
    said = "the kitchen light, the hall light, the kitchen light, the hall light" * 3
    steps, texts = [], []
    for speculation in (False, True):
        bench = Bench(Limits(speculation=speculation))
        bench.engine.rule = saying(said)
        async with bench.running():
            texts.append(await text_of(await bench.scheduler.submit(request("x"))))
        steps.append(len(bench.engine.steps))
    assert texts == [said, said]
    assert steps[1] < steps[0] / 2


@asynchronous
async def test_wrong_guesses_leave_neither_tokens_nor_draws_behind() -> None:
    prompt = "abcdabcdabcdabcd"
    answers = []
    for speculation in (False, True):
        bench = Bench()
        bench.engine.rule = lambda history, seed, draw: (
            history[-4] if draw % 5 else letters(history, seed, draw)
        )
        async with bench.running():
            job = await bench.scheduler.submit(
                request(prompt, max_tokens=60, speculation=speculation)
            )
            answers.append(await text_of(job))
            assert bench.model.samplers[0].n_draws == 60
        assert any(rows[0] > 1 for rows in bench.engine.steps[1:]) == speculation
    assert answers[0] == answers[1]


@asynchronous
async def test_a_guess_never_goes_beyond_max_tokens() -> None:
    bench = Bench(Limits(speculation=True))
    bench.engine.rule = saying("abcabcabcabcabcabcabc")
    async with bench.running():
        finished = await finish_of(await bench.scheduler.submit(request("abcabc", max_tokens=7)))
    assert finished.completion_tokens == 7
    assert sum(rows[0] for rows in bench.engine.steps) <= len("abcabc") + 7 - 1 + MAX_DRAFTS


@asynchronous
async def test_company_leaves_room_for_few_guesses() -> None:
    bench = Bench(Limits(speculation=True), n_sequences=8, guess_rows=8)
    bench.engine.rule = saying("abcabcabcabcabcabcabc")
    async with bench.running():
        jobs = [await bench.scheduler.submit(request("abcabc")) for _ in range(8)]
        for job in jobs:
            assert await text_of(job) == "abcabcabcabcabcabcabc"
    assert all(sum(rows) <= 8 for rows in bench.engine.steps if len(rows) == 8 and max(rows) < 6)
