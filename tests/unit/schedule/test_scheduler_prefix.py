"""What prompts take from the cache: across requests, owners, running and paused jobs."""

import asyncio
import random

import pytest

from llamad.jobs.record import JobState
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from unit.schedule.fakes import Bench, asynchronous, events_of, finish_of, request, saying, text_of

PROMPT = "the list of all devices in the house, one in each line, with its room"  # 69 tokens


@asynchronous
async def test_the_second_prompt_takes_what_the_first_computed() -> None:
    bench = Bench(kv_block_tokens=8)
    async with bench.running():
        first = await finish_of(await bench.scheduler.submit(request(PROMPT, max_tokens=4)))
        n_steps = len(bench.engine.steps)
        second = await finish_of(
            await bench.scheduler.submit(request(PROMPT + "?", seed=8, max_tokens=4))
        )
    assert (first.cached_prompt_tokens, second.cached_prompt_tokens) == (0, 64)
    assert bench.engine.steps[n_steps] == [6]  # what is left of 70
    counts = bench.scheduler.counts()
    assert (counts.prefix.hits, counts.prefix.misses, counts.prefix.tokens_reused) == (1, 1, 64)
    assert counts.kv_blocks_cached > 0
    assert counts.kv_blocks_free == counts.kv_blocks_total
    assert bench.book.totals.prompt_tokens == 69 + 70


@asynchronous
async def test_another_owner_does_not_see_it() -> None:
    bench = Bench(kv_block_tokens=8)
    async with bench.running():
        for uid, cached in ((1000, 0), (1001, 0), (1000, 64), (1001, 64)):
            wish = request(PROMPT, max_tokens=4, owner_uid=uid)
            finished = await finish_of(await bench.scheduler.submit(wish))
            assert finished.cached_prompt_tokens == cached


@asynchronous
async def test_a_conversation_finds_its_answers_too() -> None:
    bench = Bench(kv_block_tokens=8)
    async with bench.running():
        answer = await text_of(await bench.scheduler.submit(request(PROMPT, max_tokens=40)))
        again = await finish_of(
            await bench.scheduler.submit(request(PROMPT + answer + " and then?", max_tokens=1))
        )
    assert again.cached_prompt_tokens == (69 + 39) // 8 * 8  # the last token was never computed


@asynchronous
async def test_a_prompt_takes_what_a_running_job_has_computed_so_far() -> None:
    bench = Bench(kv_block_tokens=8, n_batch=8)
    async with bench.running():
        running = await bench.scheduler.submit(request(PROMPT))
        while running.state is not JobState.DECODE:
            await running.changed.wait()
        late = await finish_of(await bench.scheduler.submit(request(PROMPT + "!", max_tokens=1)))
        assert not running.ended
    assert late.cached_prompt_tokens == 64


@asynchronous
async def test_prompts_that_come_together_are_read_once() -> None:
    bench = Bench(kv_block_tokens=8)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(PROMPT, seed=seed, max_tokens=4))
            for seed in range(4)
        ]
        finishes = await asyncio.gather(*(finish_of(job) for job in jobs))
    cached = [finished.cached_prompt_tokens for finished in finishes]
    assert sum(69 - n for n in cached) == 64 + 4 * 5


class GivesWayOnce(Scheduler):
    """Takes the blocks of the job after its 20th token."""

    rows_before = 0  # of all steps, when that happened

    def _start_waiting(self, now: float) -> None:
        for generation in list(self._places.running):
            if generation.job.record.completion_tokens == 20 and not self.rows_before:
                self.rows_before = sum(map(sum, self._worker._engine.steps))  # type: ignore[attr-defined,arg-type]
                self._places.pause([generation], now)
        super()._start_waiting(now)


@asynchronous
async def test_a_job_that_gave_way_finds_its_own_blocks_again() -> None:
    bench = Bench(kv_block_tokens=8, scheduler_class=GivesWayOnce)
    async with bench.running():
        job = await bench.scheduler.submit(request(PROMPT, max_tokens=40))
        finished = await finish_of(job)
    assert isinstance(bench.scheduler, GivesWayOnce)
    assert finished.cached_prompt_tokens == 0  # it computed them itself
    in_last_block = (69 + 19) % 8 + 1  # and the token that was drawn last
    rows = sum(map(sum, bench.engine.steps)) - bench.scheduler.rows_before
    assert rows == in_last_block + 19


@pytest.mark.parametrize("seed", range(8))
def test_guesses_at_the_border_of_a_block_are_shared_only_when_they_were_right(seed: int) -> None:
    @asynchronous
    async def check() -> None:
        chance = random.Random(seed)
        said = "".join(chance.choice(["abcd", "abce", "xyz"]) for _ in range(60))
        bench = Bench(Limits(speculation=True), kv_block_tokens=4, n_ctx=400, kv_blocks_total=100)
        bench.engine.rule = saying(said)
        async with bench.running():
            await events_of(await bench.scheduler.submit(request("abcdabcd", max_tokens=150)))
            bench.engine.rule = lambda history, seed, draw: history[-1]  # the history is checked
            prompt = "abcdabcd" + said[:149] + "Z"
            sampled = await bench.scheduler.submit(request(prompt, max_tokens=1))
            finished = await finish_of(sampled)
        assert finished.cached_prompt_tokens >= 148
        assert bytes(bench.model.samplers[-1].prompt).decode() == prompt

    check()
