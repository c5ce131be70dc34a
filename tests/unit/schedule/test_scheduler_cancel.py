"""Ending from outside: cancel, vanished and slow clients, deadlines, drain. Nobody else notices."""

import asyncio

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Delta, Finished, FinishReason
from llamad.jobs.record import JobState
from llamad.schedule.limits import Limits
from unit.schedule.fakes import (
    Bench,
    asynchronous,
    error_of,
    events_of,
    finish_of,
    request,
    saying,
    text_of,
)


async def _alone(prompt: str, max_tokens: int) -> str:
    bench = Bench()
    async with bench.running():
        return await text_of(await bench.scheduler.submit(request(prompt, max_tokens=max_tokens)))


@asynchronous
async def test_cancel_in_the_queue_gives_the_place_back() -> None:
    bench = Bench(Limits(queue_capacity=2))
    first, second = [await bench.scheduler.submit(request(max_tokens=1)) for _ in range(2)]
    snapshot = bench.book.cancel(second.id)
    assert snapshot.state is JobState.CANCELLED
    third = await bench.scheduler.submit(request(max_tokens=1))
    async with bench.running():
        assert (await finish_of(second)).reason is FinishReason.CANCELLED
        assert (await finish_of(first)).reason is FinishReason.LENGTH
        assert (await finish_of(third)).reason is FinishReason.LENGTH
    assert sum(map(sum, bench.engine.steps)) == 12


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_cancel_costs_others_nothing_of_the_step_they_share(step: int) -> None:
    @asynchronous
    async def check() -> None:
        expected = await _alone("bystander", 12)
        bench = Bench(n_batch=40)
        victim = await bench.scheduler.submit(request("v" * 20, max_tokens=12))
        bystander = await bench.scheduler.submit(request("bystander", max_tokens=12))
        bench.at_step(step, lambda: bench.book.cancel(victim.id))
        async with bench.running():
            assert (await finish_of(victim)).reason is FinishReason.CANCELLED
            assert await text_of(bystander) == expected
            await bench.scheduler.drain(1.0)
        assert bench.engine.n_cancelled_steps == 0
        assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total

    check()


@asynchronous
async def test_a_step_that_nobody_waits_for_any_more_is_interrupted() -> None:
    bench = Bench()
    jobs = [await bench.scheduler.submit(request()) for _ in range(2)]
    entered = bench.pause_step(1)
    async with bench.running():
        await entered.wait()
        bench.book.cancel(jobs[0].id)
        assert not bench.engine.cancelled
        bench.book.cancel(jobs[1].id)
        await bench.scheduler.drain(1.0)
    assert bench.engine.n_cancelled_steps == 1


@asynchronous
async def test_cancel_frees_the_sequence_for_the_next_job() -> None:
    bench = Bench(n_sequences=1)
    first = await bench.scheduler.submit(request())
    second = await bench.scheduler.submit(request(max_tokens=3))
    entered = bench.pause_step(2)
    async with bench.running():
        await entered.wait()
        bench.book.cancel(first.id)
        assert (await finish_of(second)).completion_tokens == 3


@asynchronous
async def test_a_job_cancelled_in_a_step_gets_nothing_more_of_it() -> None:
    bench = Bench()
    expected = await _alone("other", 6)
    job = await bench.scheduler.submit(request("victim", max_tokens=6))
    other = await bench.scheduler.submit(request("other", max_tokens=6))
    bench.at_step(2, lambda: bench.book.cancel(job.id))
    async with bench.running():
        events = await events_of(job)
        assert await text_of(other) == expected
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].completion_tokens) == (FinishReason.CANCELLED, 2)


@asynchronous
async def test_cancel_of_an_ended_job_is_no_error_and_of_an_unknown_one_is() -> None:
    bench = Bench()
    async with bench.running():
        job = await bench.scheduler.submit(request(max_tokens=1))
        await events_of(job)
        assert bench.book.cancel(job.id).state is JobState.FINISHED
    with pytest.raises(LlamadError) as error:
        bench.book.cancel("j000000000000")
    assert error.value.reason == "JOB_NOT_FOUND"


@asynchronous
async def test_a_client_that_vanishes_while_reading_cancels_its_job() -> None:
    bench = Bench(n_sequences=1)
    job = await bench.scheduler.submit(request())
    entered = bench.pause_step(3)

    async def read() -> None:
        try:
            await events_of(job)
        finally:
            await job.stream.aclose()

    client = asyncio.create_task(read())
    async with bench.running():
        await entered.wait()
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        assert bench.book.get(job.id).state is JobState.CANCELLED
        await finish_of(await bench.scheduler.submit(request(max_tokens=1)))


@asynchronous
async def test_a_client_that_vanishes_after_the_last_event_changes_nothing() -> None:
    bench = Bench()
    async with bench.running():
        job = await bench.scheduler.submit(request(max_tokens=1))
        await events_of(job)
        await job.stream.aclose()
    assert bench.book.get(job.id).state is JobState.FINISHED


@asynchronous
async def test_a_client_that_never_reads_is_cancelled_with_a_reason() -> None:
    bench = Bench(Limits(stream_buffer_bytes=10))
    async with bench.running():
        job = await bench.scheduler.submit(request(max_tokens=100))
        async for snapshot in bench.book.watch(job.id):
            last = snapshot
        assert (last.state, last.error_reason) == (JobState.CANCELLED, "SLOW_CLIENT")
        seen = [await anext(job.stream), await anext(job.stream)]
        error = await error_of(job)
    assert error.kind is ErrorKind.CANCELLED
    assert isinstance(seen[1], Delta)
    assert len(seen[1].text) == 10


@pytest.mark.parametrize("step", [None, 0, 3], ids=["queued", "prefill", "decode"])
def test_a_deadline_ends_a_job_wherever_it_is(step: int | None) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench()
        job = await bench.scheduler.submit(request(deadline_seconds=2.0))
        other = await bench.scheduler.submit(request("other", max_tokens=6))

        def pass_time() -> None:
            bench.clock.advance(1.9)
            assert not bench.book.get(job.id).state.ended
            bench.clock.advance(0.1)

        if step is None:
            pass_time()
        else:
            bench.at_step(step, pass_time)
        async with bench.running():
            error = await error_of(job)
            assert (await finish_of(other)).completion_tokens == 6
        assert (error.kind, error.reason) == (ErrorKind.DEADLINE, "DEADLINE_EXCEEDED")
        assert bench.book.get(job.id).state is JobState.FAILED

    check()


@asynchronous
async def test_a_job_that_waits_longer_than_its_time_to_live_fails() -> None:
    bench = Bench(n_sequences=1)
    running = await bench.scheduler.submit(request(max_tokens=3, time_to_live_seconds=1.0))
    waiting = await bench.scheduler.submit(request(max_tokens=3, time_to_live_seconds=1.0))
    bench.at_step(1, lambda: bench.clock.advance(1.0))
    async with bench.running():
        error, finished = await asyncio.gather(error_of(waiting), finish_of(running))
    assert (error.kind, error.reason) == (ErrorKind.DEADLINE, "QUEUE_TIMEOUT")
    assert "1 seconds of its time_to_live_seconds" in error.message
    assert finished.completion_tokens == 3
    assert bench.clock.pending() == 0


@asynchronous
async def test_the_configured_deadline_is_for_requests_that_name_none() -> None:
    bench = Bench(Limits(deadline_seconds=3.0))
    default = await bench.scheduler.submit(request())
    longer = await bench.scheduler.submit(request(deadline_seconds=10.0))
    bench.clock.advance(3.0)
    assert default.state is JobState.FAILED
    assert longer.state is JobState.QUEUED


@asynchronous
async def test_a_finished_job_leaves_no_timer_behind() -> None:
    bench = Bench()
    async with bench.running():
        await events_of(await bench.scheduler.submit(request(max_tokens=1, deadline_seconds=60)))
    assert bench.clock.pending() == 0


@asynchronous
async def test_drain_lets_running_jobs_finish_and_refuses_the_rest() -> None:
    bench = Bench(n_sequences=1)
    bench.engine.rule = saying("done")
    running = await bench.scheduler.submit(request())
    queued = await bench.scheduler.submit(request())
    drained: list[asyncio.Task[None]] = []
    bench.at_step(
        1, lambda: drained.append(asyncio.create_task(bench.scheduler.drain(deadline_seconds=20)))
    )
    async with bench.running():
        assert await text_of(running) == "done"
        error = await error_of(queued)
        with pytest.raises(LlamadError) as refused:
            await bench.scheduler.submit(request())
        await drained[0]
    assert error.reason == refused.value.reason == "SHUTTING_DOWN"
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    assert refused.value.retry_after_seconds is not None
    assert bench.clock.pending() == 0


@asynchronous
async def test_drain_cancels_what_still_runs_at_the_deadline() -> None:
    bench = Bench()
    job = await bench.scheduler.submit(request())
    entered = bench.pause_step(2)
    async with bench.running():
        await entered.wait()
        drain = asyncio.create_task(bench.scheduler.drain(deadline_seconds=20))
        await asyncio.sleep(0)
        bench.clock.advance(19.0)
        assert not job.state.ended
        bench.clock.advance(1.0)
        assert (await error_of(job)).reason == "SHUTTING_DOWN"
        await drain
    assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total


@asynchronous
async def test_stopping_the_loop_waits_for_the_step_and_ends_every_stream() -> None:
    bench = Bench(n_sequences=1)
    jobs = [await bench.scheduler.submit(request()) for _ in range(2)]
    entered = bench.pause_step(1)
    async with bench.running():
        await entered.wait()
    assert bench.engine.n_cancelled_steps == 1
    assert [(await error_of(job)).reason for job in jobs] == ["SHUTTING_DOWN"] * 2
