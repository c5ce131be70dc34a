"""What one owner may have: jobs, classes and a part of the queue; and what the refusals say."""

import asyncio
import itertools
import threading

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.request import Priority
from llamad.schedule.admission import OwnerLimits
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, request


async def refused(bench: Bench, owner: str, priority: Priority | None = None) -> LlamadError:
    with pytest.raises(LlamadError) as caught:
        await bench.scheduler.submit(request(on_behalf_of=owner, priority=priority))
    return caught.value


@asynchronous
async def test_a_greedy_owner_leaves_a_quarter_of_the_queue_to_others() -> None:
    bench = Bench(Limits(queue_capacity=64))
    results = await asyncio.gather(
        *(bench.scheduler.submit(request(on_behalf_of="greedy")) for _ in range(200)),
        return_exceptions=True,
    )
    refusals = [result for result in results if isinstance(result, LlamadError)]
    assert len(refusals) == 200 - 48
    assert {error.reason for error in refusals} == {"OWNER_QUEUE_FULL"}
    assert refusals[0].kind is ErrorKind.EXHAUSTED
    assert (refusals[0].retry_after_seconds or 0) >= 1
    assert refusals[0].message == (
        "user greedy has 48 jobs waiting already: the rest of the queue's 64 places is for others"
    )
    for _ in range(16):
        await bench.scheduler.submit(request(on_behalf_of="modest"))
    assert (await refused(bench, "modest")).reason == "QUEUE_FULL"


@asynchronous
async def test_running_jobs_count_and_ended_ones_do_not() -> None:
    limits = {"anna": OwnerLimits(jobs=2, section='[owners."anna"]')}
    bench = Bench(Limits(owners=limits), n_sequences=1)
    jobs = [
        await bench.scheduler.submit(request(on_behalf_of="anna", max_tokens=n)) for n in (1, 9)
    ]
    n_steps = itertools.count()
    may_go_on = threading.Event()

    def hold_the_second() -> None:
        if next(n_steps) == 1:
            may_go_on.wait()

    bench.engine.before_step = hold_the_second
    error = await refused(bench, "anna")
    assert (error.reason, error.message) == (
        "OWNER_QUEUE_FULL",
        'user anna has 2 jobs already: at most 2 are allowed (in [owners."anna"])',
    )
    await bench.scheduler.submit(request(on_behalf_of="berta", max_tokens=1))
    async with bench.running():
        await events_of(jobs[0])
        third = await bench.scheduler.submit(request(on_behalf_of="anna", max_tokens=1))
        assert (await refused(bench, "anna")).reason == "OWNER_QUEUE_FULL"
        may_go_on.set()
        await events_of(third)


@pytest.mark.parametrize(
    ("cap", "asked", "gets"),
    [
        (Priority.NORMAL, Priority.BATCH, Priority.BATCH),
        (Priority.NORMAL, None, Priority.NORMAL),
        (Priority.BATCH, None, Priority.BATCH),
        (Priority.INTERACTIVE, None, Priority.NORMAL),
        (Priority.INTERACTIVE, Priority.INTERACTIVE, Priority.INTERACTIVE),
        (Priority.NORMAL, Priority.INTERACTIVE, None),
        (Priority.BATCH, Priority.NORMAL, None),
    ],
)
def test_a_class_above_the_cap_is_refused_and_no_class_is_at_most_the_cap(
    cap: Priority, asked: Priority | None, gets: Priority | None
) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench(Limits(owner=OwnerLimits(most_urgent=cap)))
        if gets is not None:
            job = await bench.scheduler.submit(request(on_behalf_of="anna", priority=asked))
            assert job.record.priority is gets
            return
        assert asked is not None
        error = await refused(bench, "anna", asked)
        assert (error.kind, error.reason) == (ErrorKind.PERMISSION, "PRIORITY_NOT_ALLOWED")
        assert error.message == (
            f"priority: user anna may not ask for {asked.name.lower()}: the most urgent class"
            f" allowed is {cap.name.lower()} (most_urgent in [queue])"
        )

    check()


@asynchronous
async def test_a_submission_that_fails_gives_its_owner_s_place_back() -> None:
    bench = Bench(Limits(owner=OwnerLimits(jobs=1)), n_ctx=100)
    for _ in range(3):
        with pytest.raises(LlamadError, match="prompt has 101 tokens"):
            await bench.scheduler.submit(request("x" * 101, on_behalf_of="anna"))
    await bench.scheduler.submit(request(on_behalf_of="anna"))
