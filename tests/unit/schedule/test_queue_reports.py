"""What those who wait hear: their place again when it changes, and how long it will take."""

import asyncio
from itertools import pairwise

import pytest

from llamad.jobs.event import Event, PrefillProgress, Queued
from llamad.jobs.job import Job
from llamad.jobs.subscription import Subscription
from unit.schedule.fakes import Bench, asynchronous, events_of, request
from unit.schedule.test_scenarios import simulated


async def heard(bench: Bench, job: Job) -> list[tuple[float, Event]]:
    """Return the job's events, each with the simulated time at which it came."""
    return [(bench.clock.now(), event) async for event in job.stream]


@asynchronous
async def test_who_waits_hears_each_place_gained_and_about_how_long_it_takes() -> None:
    bench = simulated(n_sequences=1)
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        await events_of(await bench.scheduler.submit(request(max_tokens=40)))  # a usual answer
        jobs = [
            await bench.scheduler.submit(request(max_tokens=40, on_behalf_of=f"owner {i}"))
            for i in range(4)
        ]
        reading = [asyncio.create_task(heard(bench, job)) for job in jobs]
        await bench.sleep(2.0)
        snapshot = bench.book.get(jobs[3].id)
        events = [await task for task in reading][3]
    queued = [(at, event) for at, event in events if isinstance(event, Queued)]
    places = [event.queue_position for _, event in queued]
    assert places[-1] == 0
    assert places == sorted(places, reverse=True)
    assert {2, 1, 0} <= set(places)
    assert all(later - at >= 0.99 for (at, _), (later, _) in pairwise(queued))
    started = queued[0][0] + 12.0  # three answers of 4 seconds
    for at, event in queued[1:]:
        assert event.wait_seconds == pytest.approx(started - at, abs=2.5)
    assert snapshot.queue_position == 2
    assert snapshot.wait_seconds is not None
    assert bench.book.get(jobs[3].id).queue_position is None


@asynchronous
async def test_a_long_prompt_tells_about_how_long_the_rest_takes() -> None:
    bench = simulated(n_ctx=2048, n_batch=64)
    bench.simulate(seconds_per_row=0.02, seconds_per_step=0.05)
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("w" * 300, max_tokens=2)))
        events = await heard(bench, await bench.scheduler.submit(request("l" * 900, max_tokens=1)))
    progress = [(at, event) for at, event in events if isinstance(event, PrefillProgress)]
    read_at = progress[-1][0]
    for at, event in progress:
        assert event.seconds_left == pytest.approx(read_at - at, rel=0.15, abs=0.3)


def test_an_unread_place_is_replaced_by_the_newer_one() -> None:
    stream = Subscription(max_bytes=100, on_abandon=lambda: None)
    stream.put(Queued("j", 3, 5))
    stream.put(PrefillProgress(1, 5))
    stream.put(Queued("j", 2, 5))
    stream.put(PrefillProgress(2, 5))
    stream.end()

    async def read() -> list[Event]:
        return [event async for event in stream]

    assert asyncio.run(read()) == [Queued("j", 2, 5), PrefillProgress(2, 5)]
