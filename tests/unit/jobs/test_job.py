"""A job's states, the queue's order and capacity, the slots' accounting, the rows of a step."""

import itertools

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.record import TRANSITIONS, IllegalTransition, Job, JobState
from llamad.jobs.subscription import JobStream
from llamad.schedule.completion import CompletionText, Running
from llamad.schedule.queue import JobQueue
from llamad.schedule.slots import SequenceSlots, Slot
from llamad.schedule.step import compose
from llamad.text.detokenizer import Detokenizer
from unit.schedule.fakes import FakeSampler, FakeTokenizer, asynchronous, request


def _job(n_prompt: int = 3) -> Job:
    return Job(
        request(),
        tuple(range(n_prompt)),
        model="fake",
        max_tokens=10,
        seed=1,
        submitted_at=0.0,
        stream=JobStream(max_bytes=100, on_abandon=lambda: None),
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
    job = _job()
    job.ended_at = 4.0
    timings = job.timings(9.0, load_seconds=2.0)
    assert timings.queue_seconds == 4.0
    assert timings.prefill_seconds == timings.decode_seconds == 0.0
    assert timings.time_to_first_token_seconds == timings.time_per_output_token_seconds == 0.0
    assert job.snapshot(9.0).running_seconds == 0.0


@asynchronous
async def test_the_queue_is_first_in_first_out_with_removal_anywhere() -> None:
    queue = JobQueue(10)
    jobs = [_job() for _ in range(4)]
    assert [queue.append(job) for job in jobs] == [0, 1, 2, 3]
    assert queue.remove(jobs[0].id) is jobs[0]
    assert queue.remove(jobs[2].id) is jobs[2]
    assert queue.remove(jobs[2].id) is None
    assert queue.head() is jobs[1]
    assert queue.jobs() == [jobs[1], jobs[3]]
    assert len(queue) == 2


@asynchronous
async def test_reserved_places_count_against_the_capacity() -> None:
    queue = JobQueue(2)
    queue.append(_job())
    queue.reserve(3.0)
    with pytest.raises(LlamadError) as error:
        queue.reserve(3.0)
    assert (error.value.kind, error.value.reason) == (ErrorKind.EXHAUSTED, "QUEUE_FULL")
    assert error.value.retry_after_seconds == 3.0
    queue.release()
    queue.reserve(3.0)


def test_slots_reserve_whole_blocks_and_the_lowest_sequence() -> None:
    slots = SequenceSlots(n_sequences=3, n_blocks=10, block_tokens=32)
    first, second = slots.take(32), slots.take(33)
    assert (first, second) == (Slot(0, 1), Slot(1, 2))
    assert slots.free_blocks == 7
    assert slots.take(32 * 7 + 1) is None
    third = slots.take(32 * 7)
    assert third == Slot(2, 7)
    assert slots.take(1) is None
    assert first is not None
    slots.give_back(first)
    assert slots.take(32) == Slot(0, 1)


def _running(sequence: int, n_prompt: int, n_cached: int, last_token: int | None) -> Running:
    text = CompletionText(Detokenizer(FakeTokenizer()), ())  # type: ignore[arg-type]
    return Running(_job(n_prompt), Slot(sequence, 1), FakeSampler(0), text, n_cached, last_token)


@asynchronous
async def test_a_step_has_the_decode_rows_first_and_logits_only_where_a_token_is_drawn() -> None:
    decoding = _running(1, 5, 7, last_token=42)
    reading = _running(0, 20, 8, last_token=None)
    step = compose([reading, decoding], n_batch=100, prefill_chunk=6, guess_rows=8)
    rows = [(c.sequence, c.tokens, c.position, c.sampler is not None) for _, c in step]
    assert rows == [(1, (42,), 7, True), (0, (8, 9, 10, 11, 12, 13), 8, False)]


@asynchronous
async def test_the_last_prompt_row_wants_logits() -> None:
    reading = _running(0, 20, 8, last_token=None)
    ((_, chunk),) = compose([reading], n_batch=100, prefill_chunk=1, guess_rows=8)
    assert (len(chunk.tokens), chunk.sampler) == (12, reading.sampler)


@asynchronous
async def test_a_step_never_exceeds_the_batch() -> None:
    decoding = [_running(i, 2, 3, last_token=1) for i in range(3)]
    reading = [_running(3 + i, 50, 0, last_token=None) for i in range(3)]
    step = compose([*reading, *decoding], n_batch=10, prefill_chunk=128, guess_rows=8)
    assert [len(chunk.tokens) for _, chunk in step] == [1, 1, 1, 7]
    assert compose([], n_batch=10, prefill_chunk=128, guess_rows=8) == []
