"""A job's states, its changes and its times."""

import itertools

import pytest

from llamad.jobs.job import Job
from llamad.jobs.record import TRANSITIONS, IllegalTransition, JobRecord, JobState
from unit.schedule.fakes import asynchronous, request


def _job(n_prompt: int = 3) -> Job:
    record = JobRecord(
        request(), tuple(range(n_prompt)), model="fake", max_tokens=10, seed=1, submitted_at=0.0
    )
    return Job(
        record,
        load_seconds=2.0,
        max_unread_bytes=100,
        on_abandon=lambda job: None,
        on_end=lambda job: None,
    )


def _in_state(state: JobState) -> Job:
    paths = {
        JobState.QUEUED: [],
        JobState.PREFILL: [JobState.PREFILL],
        JobState.DECODE: [JobState.PREFILL, JobState.DECODE],
        JobState.FINISHED: [JobState.PREFILL, JobState.DECODE, JobState.FINISHED],
        JobState.CANCELLED: [JobState.CANCELLED],
        JobState.FAILED: [JobState.FAILED],
    }
    job = _job()
    for step in paths[state]:
        job.move(step)
    return job


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_the_table_decides_every_move(old: JobState, new: JobState) -> None:
    @asynchronous
    async def check() -> None:
        job = _in_state(old)
        if new in TRANSITIONS[old]:
            job.move(new)
            assert job.state is new
        else:
            with pytest.raises(IllegalTransition, match=f"{old.value} to {new.value}"):
                job.move(new)
            assert job.state is old

    check()


def test_an_ended_job_never_moves_again() -> None:
    ended = {state for state in JobState if state.ended}
    assert ended == {JobState.FINISHED, JobState.CANCELLED, JobState.FAILED}


@asynchronous
async def test_ids_are_short_and_unique() -> None:
    ids = {_job().id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(job_id) == 13 and job_id[0] == "j" for job_id in ids)


@asynchronous
async def test_each_change_wakes_those_who_waited_for_it() -> None:
    job = _job()
    first = job.changed
    job.move(JobState.PREFILL)
    assert first.is_set()
    assert not job.changed.is_set()


@asynchronous
async def test_a_job_that_never_started_has_spent_its_life_in_the_queue() -> None:
    job = _job().record
    job.ended_at = 4.0
    timings = job.timings(9.0, load_seconds=2.0)
    assert timings.queue_seconds == 4.0
    assert timings.prefill_seconds == timings.decode_seconds == 0.0
    assert timings.time_to_first_token_seconds == timings.time_per_output_token_seconds == 0.0
    assert job.snapshot(9.0).running_seconds == 0.0
