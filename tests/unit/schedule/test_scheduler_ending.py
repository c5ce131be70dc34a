"""How a completion ends by itself: end token, stop string, length, failure; and its text."""

from dataclasses import replace

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Delta, FinishReason
from llamad.jobs.record import JobState
from llamad.sampling.parameters import Sampling
from unit.schedule.fakes import (
    Bench,
    asynchronous,
    error_of,
    events_of,
    finish_of,
    request,
    saying,
    text_in,
)


@asynchronous
async def test_a_stop_string_across_tokens_ends_the_completion_before_it() -> None:
    bench = Bench()
    bench.engine.rule = saying("one two\n\nthree")
    async with bench.running():
        job = await bench.scheduler.submit(request(stop=("###", "\n\n")))
        events = await events_of(job)
    assert text_in(events) == "one two"
    last = events[-1]
    assert (last.reason, last.stop_string) == (FinishReason.STOP_STRING, "\n\n")  # type: ignore[union-attr]
    assert last.completion_tokens == 9  # type: ignore[union-attr]


@asynchronous
async def test_the_beginning_of_a_stop_string_is_text_when_nothing_completes_it() -> None:
    bench = Bench()
    bench.engine.rule = saying("one\n")
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(request(stop=("\n\n",))))
    assert text_in(events) == "one\n"
    assert events[-1].reason is FinishReason.STOP  # type: ignore[union-attr]


@asynchronous
async def test_a_stop_string_in_the_last_permitted_token_wins_over_the_length() -> None:
    bench = Bench()
    bench.engine.rule = saying("abX")
    async with bench.running():
        last = await finish_of(await bench.scheduler.submit(request(max_tokens=3, stop=("X",))))
    assert last.reason is FinishReason.STOP_STRING


@asynchronous
async def test_max_tokens_ends_the_completion() -> None:
    bench = Bench()
    async with bench.running():
        last = await finish_of(await bench.scheduler.submit(request(max_tokens=5)))
    assert (last.reason, last.completion_tokens) == (FinishReason.LENGTH, 5)


@pytest.mark.parametrize(("asked", "given"), [(None, 26), (1000, 26), (26, 26), (3, 3)])
def test_max_tokens_is_at_most_what_the_context_leaves(asked: int | None, given: int) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench(n_ctx=32)
        async with bench.running():
            job = await bench.scheduler.submit(request(max_tokens=asked))
            last = await finish_of(job)
        assert job.record.max_tokens == last.completion_tokens == given

    check()


@asynchronous
async def test_a_prompt_that_fills_the_context_leaves_one_token() -> None:
    bench = Bench(n_ctx=32)
    async with bench.running():
        last = await finish_of(await bench.scheduler.submit(request("x" * 32)))
    assert (last.completion_tokens, last.reason) == (1, FinishReason.LENGTH)


@asynchronous
async def test_characters_are_never_split_and_a_broken_one_is_shown_at_the_end() -> None:
    bench = Bench()
    bench.engine.rule = saying("aä€😀".encode() + b"\xe2\x82")
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(request()))
    assert text_in(events) == "aä€😀\N{REPLACEMENT CHARACTER}"


@asynchronous
async def test_deltas_count_the_completion_so_far() -> None:
    bench = Bench()
    job = await bench.scheduler.submit(request(max_tokens=4))
    counts = []
    async with bench.running():
        async for event in job.stream:
            if isinstance(event, Delta):
                counts.append(event.tokens)
    assert counts == sorted(set(counts))
    assert counts[-1] == 4


@asynchronous
async def test_timings_are_those_of_the_protocol() -> None:
    bench = Bench(n_batch=4)
    job = await bench.scheduler.submit(request("x" * 8, max_tokens=3))  # 2 prefill, 2 decode steps
    bench.clock.advance(5.0)
    bench.engine.before_step = lambda: setattr(bench.clock, "time", bench.clock.time + 2.0)
    async with bench.running():
        timings = (await finish_of(job)).timings
    assert timings.queue_seconds == pytest.approx(5.0)
    assert timings.prefill_seconds == pytest.approx(4.0)
    assert timings.time_to_first_token_seconds == pytest.approx(9.0)
    assert timings.decode_seconds == pytest.approx(4.0)
    assert timings.time_per_output_token_seconds == pytest.approx(2.0)
    assert timings.load_seconds == 1.5


@asynchronous
async def test_the_log_line_has_the_numbers_and_not_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.engine.rule = saying("classified")
    caplog.set_level("INFO")
    async with bench.running():
        job = await bench.scheduler.submit(request("my secret prompt", request_id="r-1"))
        await events_of(job)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.startswith("request finished")]) == 1
    line = lines[0]
    assert f"job={job.id} request=r-1 reason=stop prompt_tokens=16 completion_tokens=11" in line
    assert "secret" not in "".join(lines)
    assert "classified" not in "".join(lines)


@asynchronous
async def test_logits_that_are_not_finite_fail_their_own_job_only() -> None:
    bench = Bench()
    bench.engine.refused = lambda history: history[:3] == tuple(b"bad") and len(history) > 5
    async with bench.running():
        bad = await bench.scheduler.submit(request("bad", max_tokens=10))
        good = await bench.scheduler.submit(request("good", max_tokens=10))
        error = await error_of(bad)
        last = await finish_of(good)
    assert (error.kind, error.reason) == (ErrorKind.CORRUPT, "MODEL_NOT_FINITE")
    assert last.completion_tokens == 10
    assert bench.book.get(bad.id).state is JobState.FAILED


@asynchronous
async def test_a_failed_step_fails_its_jobs_and_the_next_one_runs() -> None:
    bench = Bench(n_sequences=2)
    bench.engine.errors = [None, LlamadError(ErrorKind.EXHAUSTED, "KV_CACHE_FULL", "no block")]
    jobs = [await bench.scheduler.submit(request(max_tokens=4)) for _ in range(3)]
    async with bench.running():
        errors = [await error_of(job) for job in jobs[:2]]
        last = await finish_of(jobs[2])
    assert [error.reason for error in errors] == ["KV_CACHE_FULL"] * 2
    assert last.completion_tokens == 4
    assert bench.scheduler.failure is None


@asynchronous
async def test_a_bug_in_a_step_is_an_internal_error_with_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.engine.errors = [ZeroDivisionError("a bug")]
    async with bench.running():
        error = await error_of(await bench.scheduler.submit(request()))
        await finish_of(await bench.scheduler.submit(request(max_tokens=1)))
    assert error.kind is ErrorKind.INTERNAL
    assert "a bug" not in error.message
    assert any(record.exc_info for record in caplog.records)


@asynchronous
async def test_a_lost_model_file_fails_every_job_and_the_service_lives() -> None:
    bench = Bench(n_sequences=2)
    lost = LlamadError(ErrorKind.CORRUPT, "MODEL_FILE_LOST", "the model file shrank")
    bench.engine.errors = [None, lost]
    jobs = [await bench.scheduler.submit(request()) for _ in range(5)]
    async with bench.running():
        errors = [await error_of(job) for job in jobs]
        with pytest.raises(LlamadError) as refused:
            await bench.scheduler.submit(request())
        await bench.scheduler.drain(1.0)
    assert errors == [lost] * 5
    assert refused.value is lost is bench.scheduler.failure
    assert bench.observer.model_errors == [lost]
    assert bench.scheduler.counts().running == bench.scheduler.counts().queued == 0


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (LlamadError(ErrorKind.INVALID, "INVALID_ARGUMENT", "top_p is 2"), "INVALID_ARGUMENT"),
        (OverflowError("a bug"), "INTERNAL"),
    ],
)
def test_a_job_that_cannot_start_fails_and_frees_its_slot(raised: Exception, reason: str) -> None:
    @asynchronous
    async def check() -> None:
        bench = Bench(n_sequences=1)
        bench.model.sampler_error = raised
        async with bench.running():
            error = await error_of(await bench.scheduler.submit(request()))
            bench.model.sampler_error = None
            await finish_of(await bench.scheduler.submit(request(max_tokens=1)))
        assert error.reason == reason

    check()


@asynchronous
async def test_what_mirostat_learned_outlives_a_sampler() -> None:
    """Two sequences in too few blocks: one is paused, and its sampler is made anew."""
    bench = Bench(n_sequences=2, kv_blocks_total=6, kv_block_tokens=8, n_ctx=48)
    wanted = [
        replace(request(f"prompt {i}", max_tokens=20), sampling=Sampling(seed=i, mirostat=2))
        for i in (1, 2)
    ]
    async with bench.running():
        jobs = [await bench.scheduler.submit(one) for one in wanted]
        for job in jobs:
            await finish_of(job)
    assert len(bench.model.samplers) > 2
    assert [job.record.mirostat_mu for job in jobs] == [10.0 + 0.5 * 20] * 2
