"""Steps: who takes part, in which order, with how many rows, and that company changes nothing."""

import asyncio

import pytest

from llamad.jobs.event import Event, Finished, FinishReason, PrefillProgress, Queued
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from unit.schedule.fakes import (
    Bench,
    asynchronous,
    events_of,
    finish_of,
    request,
    saying,
    text_in,
    text_of,
)


@asynchronous
async def test_a_request_streams_queued_text_and_finished() -> None:
    bench = Bench()
    bench.engine.rule = saying("hello")
    async with bench.running():
        job = await bench.scheduler.submit(request("prompt"))
        events = await events_of(job)
    assert events[0] == Queued(job.id, 0, 6)
    assert text_in(events) == "hello"
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.prompt_tokens, last.completion_tokens) == (FinishReason.STOP, 6, 6)
    assert (last.seed, last.model, last.job_id) == (7, "fake", job.id)


@asynchronous
async def test_a_conversation_goes_through_the_chat_template() -> None:
    bench = Bench()
    async with bench.running():
        job = await bench.scheduler.submit(
            GenerationRequest(messages=(ChatMessage("user", "hi"),), max_tokens=1)
        )
        await events_of(job)
    assert bytes(job.record.prompt_tokens) == b"user:hi|"


@asynchronous
async def test_only_the_engine_thread_enters_the_engine() -> None:
    bench = Bench()
    async with bench.running():
        jobs = [await bench.scheduler.submit(request(max_tokens=3)) for _ in range(6)]
        for job in jobs:
            await events_of(job)
    assert len(bench.engine.threads) == 1
    assert next(iter(bench.engine.threads)).startswith("llamad-engine")


@asynchronous
async def test_jobs_start_in_the_order_of_submission() -> None:
    bench = Bench(n_sequences=2)
    jobs = [await bench.scheduler.submit(request("p" * i, max_tokens=9 - i)) for i in range(1, 8)]
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in jobs))
    prompts = [bytes(sampler.prompt).decode() for sampler in bench.model.samplers]
    assert prompts == ["p" * i for i in range(1, 8)]


@asynchronous
async def test_sequences_decode_together_and_never_more_than_the_slots() -> None:
    bench = Bench(n_sequences=3)
    jobs = [await bench.scheduler.submit(request(max_tokens=5)) for _ in range(3)]
    late = await bench.scheduler.submit(request(max_tokens=1))
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in [*jobs, late]))
    assert bench.engine.steps == [[6, 6, 6], *[[1, 1, 1]] * 4, [6]]


@asynchronous
async def test_several_prompts_share_a_step_up_to_the_batch() -> None:
    bench = Bench(n_batch=10, n_sequences=3)
    jobs = [await bench.scheduler.submit(request("x" * 7, max_tokens=1)) for _ in range(3)]
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in jobs))
    assert bench.engine.steps == [[7, 3], [4, 6], [1]]


@asynchronous
async def test_a_long_prompt_does_not_stop_others_from_decoding() -> None:
    bench = Bench(Limits(step_seconds=0.1), n_batch=32)
    bench.simulate(seconds_per_row=0.01)
    bench.engine.rule = saying("a" * 9)
    first = await bench.scheduler.submit(request("x" * 4))
    long = await bench.scheduler.submit(request("y" * 60, max_tokens=1))
    async with bench.running():
        await asyncio.gather(events_of(first), events_of(long))
    # nothing is known of the cost yet, so the first step is a whole batch; then 10 rows take 0.1 s
    assert bench.engine.steps[0] == [4, 28]
    assert bench.engine.steps[1:5] == [[1, 9], [1, 9], [1, 9], [1, 5]]


@asynchronous
async def test_a_prompt_alone_is_cut_by_the_batch_and_reports_progress() -> None:
    bench = Bench(Limits(step_seconds=1.0), n_batch=20)
    job = await bench.scheduler.submit(request("x" * 50, max_tokens=1))
    bench.engine.before_step = lambda: setattr(bench.clock, "time", bench.clock.time + 0.3)
    seen = []
    async with bench.running():
        async for event in job.stream:
            if isinstance(event, PrefillProgress):
                seen.append(event.processed_tokens)
    assert bench.engine.steps == [[20], [20], [10]]
    assert seen[-1] == 50
    assert seen == sorted(set(seen))


@asynchronous
async def test_progress_is_told_at_most_four_times_a_second() -> None:
    bench = Bench(n_batch=1)
    job = await bench.scheduler.submit(request("x" * 40, max_tokens=1))
    bench.engine.before_step = lambda: setattr(bench.clock, "time", bench.clock.time + 0.1)
    told: list[PrefillProgress] = []
    put = job.stream.put

    def remember(event: Event) -> bool:
        if isinstance(event, PrefillProgress):
            told.append(event)
        return put(event)

    job.stream.put = remember  # type: ignore[method-assign]
    async with bench.running():
        await events_of(job)
    assert len(told) in range(12, 16)  # 4 seconds of prefill: every third step, and the last
    assert told[-1].processed_tokens == 40


@asynchronous
async def test_a_short_prompt_reports_no_progress() -> None:
    bench = Bench()
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(request(max_tokens=1)))
    assert not any(isinstance(event, PrefillProgress) for event in events)


async def _alone(seed: int, prompt: str) -> str:
    bench = Bench()
    async with bench.running():
        return await text_of(
            await bench.scheduler.submit(request(prompt, seed=seed, max_tokens=20))
        )


@asynchronous
async def test_a_seeded_completion_is_the_same_alone_and_in_company() -> None:
    prompts = [f"{'x' * (5 * i)} number {i}" for i in range(9)]
    alone = [await _alone(i, prompt) for i, prompt in enumerate(prompts)]
    bench = Bench(n_batch=16, n_sequences=4)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(prompt, seed=i, max_tokens=20))
            for i, prompt in enumerate(prompts)
        ]
        together = await asyncio.gather(*(text_of(job) for job in jobs))
    assert together == alone
    assert len(set(alone)) == len(alone)


@asynchronous
async def test_a_request_without_a_seed_reports_the_one_it_got() -> None:
    bench = Bench()
    async with bench.running():
        job = await bench.scheduler.submit(GenerationRequest(prompt="p", max_tokens=8))
        events = await events_of(job)
        last = events[-1]
        assert isinstance(last, Finished)
        again = await bench.scheduler.submit(
            GenerationRequest(prompt="p", max_tokens=8, sampling=Sampling(seed=last.seed))
        )
        assert await text_of(again) == text_in(events)


@pytest.mark.parametrize(
    ("repeat_last_n", "penalize_prompt", "window"),
    [
        (4, True, "6789"),
        (0, True, ""),
        (-1, True, "0123456789"),
        (64, True, "0123456789"),
        (64, False, ""),
        (-1, False, ""),
    ],
)
def test_the_end_of_the_prompt_enters_the_penalty_window_if_asked(
    repeat_last_n: int, penalize_prompt: bool, window: str
) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            job = await bench.scheduler.submit(
                GenerationRequest(
                    prompt="0123456789",
                    max_tokens=1,
                    sampling=Sampling(repeat_last_n=repeat_last_n, penalize_prompt=penalize_prompt),
                )
            )
            await events_of(job)
        assert bytes(bench.model.samplers[0].accepted).decode() == window

    check()


@asynchronous
async def test_a_job_starts_when_its_prompt_and_a_block_to_grow_fit_beside_the_others() -> None:
    # 6 blocks of 8 tokens; a prompt of 6 takes one, and each job may need one more to grow into
    bench = Bench(n_sequences=4, kv_blocks_total=6, kv_block_tokens=8, n_ctx=32)
    jobs = [await bench.scheduler.submit(request(max_tokens=10)) for _ in range(4)]
    async with bench.running():
        finished = await asyncio.gather(*(finish_of(job) for job in jobs))
        await bench.scheduler.drain(1.0)
    assert [f.completion_tokens for f in finished] == [10] * 4
    assert [len(rows) for rows in bench.engine.steps] == [3] * 10 + [1] * 10
    assert bench.scheduler.counts().kv_blocks_free == 6


@asynchronous
async def test_requests_that_name_no_length_run_together() -> None:
    # four whole contexts would be 64 blocks
    bench = Bench(n_sequences=4, kv_blocks_total=20, kv_block_tokens=32, n_ctx=512)
    bench.engine.rule = saying("a short answer")
    jobs = [await bench.scheduler.submit(request()) for _ in range(4)]
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in jobs))
    assert [len(rows) for rows in bench.engine.steps] == [4] * 15


@asynchronous
async def test_a_small_job_does_not_overtake_a_large_one() -> None:
    bench = Bench(n_sequences=4, kv_blocks_total=4, kv_block_tokens=8, n_ctx=32)
    first = await bench.scheduler.submit(request(max_tokens=10))
    large = await bench.scheduler.submit(request("l" * 20, max_tokens=4))  # 3 blocks and one
    small = await bench.scheduler.submit(request(max_tokens=2))  # would fit beside the first
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in (first, large, small)))
    assert all(len(rows) == 1 for rows in bench.engine.steps)
    assert [s.id for s, _ in bench.observer.ended] == [first.id, large.id, small.id]


@asynchronous
async def test_sequences_are_freed_at_the_end() -> None:
    bench = Bench()
    async with bench.running():
        jobs = [await bench.scheduler.submit(request(max_tokens=3)) for _ in range(9)]
        await asyncio.gather(*(events_of(job) for job in jobs))
        await bench.scheduler.drain(1.0)
    assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total


@asynchronous
async def test_an_idle_scheduler_sleeps() -> None:
    bench = Bench()
    n_clears = 0
    clear = bench.worker.cancel_clear

    def count() -> None:
        nonlocal n_clears
        n_clears += 1
        clear()

    bench.worker.cancel_clear = count  # type: ignore[method-assign]
    async with bench.running():
        await events_of(await bench.scheduler.submit(request(max_tokens=1)))
        await asyncio.to_thread(lambda: None)
        before = n_clears
        for _ in range(100):
            await asyncio.sleep(0)
        assert n_clears <= before + 1
