"""What is accepted, what is refused and why, and what is known of jobs afterwards."""

import asyncio
import logging
from types import MappingProxyType
from typing import Any

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Finished, Queued
from llamad.jobs.record import JobState
from llamad.jobs.request import ChatMessage, ContextFull, GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, request, saying


async def _refused(bench: Bench, wish: GenerationRequest) -> LlamadError:
    with pytest.raises(LlamadError) as error:
        await bench.scheduler.submit(wish)
    return error.value


@asynchronous
async def test_another_model_is_not_found_and_the_loaded_one_is_by_its_name() -> None:
    bench = Bench()
    error = await _refused(bench, request(model="llama"))
    assert (error.kind, error.reason) == (ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "'llama'" in error.message
    assert "'fake'" in error.message
    assert (await bench.scheduler.submit(request(model="fake"))).state is JobState.QUEUED


@asynchronous
async def test_a_prompt_without_tokens_is_invalid() -> None:
    error = await _refused(Bench(), request(""))
    assert (error.kind, error.reason) == (ErrorKind.INVALID, "INVALID_PROMPT")


@asynchronous
async def test_a_prompt_longer_than_the_context_names_both_numbers() -> None:
    error = await _refused(Bench(n_ctx=100), request("x" * 101))
    assert (error.kind, error.reason) == (ErrorKind.INVALID, "PROMPT_TOO_LONG")
    assert error.message == (
        "prompt has 101 tokens, context holds 100: shorten it, or raise model.ctx_size"
    )


@asynchronous
async def test_a_prompt_longer_than_the_kv_cache_is_refused_at_once() -> None:
    bench = Bench(n_ctx=512, kv_blocks_total=2, kv_block_tokens=32)
    error = await _refused(bench, request("x" * 65))
    assert error.message.startswith("prompt has 65 tokens, context holds 64: ")
    job = await bench.scheduler.submit(request("x" * 60, max_tokens=400))
    assert job.record.max_tokens == 4


def _chat(*contents: str, **fields: Any) -> GenerationRequest:
    """Return a conversation: a system message, and turns of user and assistant."""
    roles = ["system", *(("user", "assistant")[i % 2] for i in range(len(contents) - 1))]
    messages = tuple(map(ChatMessage, roles, contents))
    return GenerationRequest(messages=messages, **fields)


LONG_CHAT = ("s", *("x" * 20 for _ in range(7)))  # 9 tokens, then 26 or 31 a message


@asynchronous
async def test_a_conversation_that_outgrows_the_context_loses_its_oldest_turns() -> None:
    bench = Bench(n_ctx=128)
    bench.engine.rule = saying("ab")
    async with bench.running():
        events = await events_of(await bench.scheduler.submit(_chat(*LONG_CHAT)))
    queued, finished = events[0], events[-1]
    assert isinstance(queued, Queued)
    assert isinstance(finished, Finished)
    assert (queued.dropped_messages, finished.dropped_messages) == (4, 4)
    expected = f"system:s|user:{'x' * 20}|assistant:{'x' * 20}|user:{'x' * 20}|"
    assert queued.prompt_tokens == finished.prompt_tokens == len(expected)


@asynchronous
async def test_nothing_is_dropped_where_an_answer_has_room() -> None:
    bench = Bench(n_ctx=256)
    job = await bench.scheduler.submit(_chat(*LONG_CHAT))
    assert job.record.dropped_messages == 0


@asynchronous
async def test_a_conversation_may_be_refused_instead_and_hears_what_to_do() -> None:
    wish = _chat(*LONG_CHAT, context_full=ContextFull.REFUSE)
    error = await _refused(Bench(n_ctx=128), wish)
    assert (error.kind, error.reason) == (ErrorKind.INVALID, "PROMPT_TOO_LONG")
    assert error.message == (
        "prompt has 206 tokens, context holds 128: leave out its oldest messages, or allow that"
        " with context_full = drop-oldest"
    )


@asynchronous
async def test_a_newest_message_that_does_not_fit_alone_is_refused_with_what_was_left_out() -> None:
    error = await _refused(Bench(n_ctx=64), _chat("s", "first", "answer", "x" * 60))
    assert error.reason == "PROMPT_TOO_LONG"
    assert error.message == (
        "prompt has 75 tokens without its 2 oldest messages, context holds 64: shorten the newest"
        " message, or raise model.ctx_size"
    )


@pytest.mark.parametrize("token", [-1, 256, 1 << 40])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    @asynchronous
    async def check() -> None:
        wish = GenerationRequest(
            prompt="p", sampling=Sampling(logit_bias=MappingProxyType({token: 1.0}))
        )
        error = await _refused(Bench(), wish)
        assert error.reason == "INVALID_SAMPLING_LOGIT_BIAS"
        assert str(token) in error.message
        error = await _refused(Bench(), GenerationRequest(tokens=(1, token)))
        assert error.reason == "INVALID_PROMPT_TOKENS"
        assert str(token) in error.message

    check()


@asynchronous
async def test_ten_thousand_submissions_fill_the_queue_and_the_rest_is_refused() -> None:
    bench = Bench(Limits(queue_capacity=64))
    results = await asyncio.gather(
        *(bench.scheduler.submit(request(max_tokens=1)) for _ in range(10_000)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, LlamadError)]
    assert len(refused) == 10_000 - 64
    assert {error.reason for error in refused} == {"QUEUE_FULL"}
    assert all(error.kind is ErrorKind.EXHAUSTED for error in refused)
    assert all((error.retry_after_seconds or 0) >= 1 for error in refused)
    async with bench.running():
        accepted = [result for result in results if not isinstance(result, BaseException)]
        for job in accepted:
            await events_of(job)
    assert bench.book.totals.finished == 64


@asynchronous
async def test_a_submission_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    bench = Bench(Limits(queue_capacity=1), n_ctx=100)
    await _refused(bench, request("x" * 101))
    waiting = asyncio.create_task(bench.scheduler.submit(request()))
    await asyncio.sleep(0)
    assert (await _refused(bench, request())).reason == "QUEUE_FULL"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await bench.scheduler.submit(request())).state is JobState.QUEUED


@asynchronous
async def test_the_queue_position_counts_the_jobs_in_front() -> None:
    bench = Bench()
    jobs = [await bench.scheduler.submit(request()) for _ in range(3)]
    first_events = [await anext(job.stream) for job in jobs]
    assert [event.queue_position for event in first_events] == [0, 1, 2]  # type: ignore[union-attr]


@asynchronous
async def test_list_has_the_living_jobs_and_on_request_the_ended_ones() -> None:
    bench = Bench()
    done = await bench.scheduler.submit(request())
    bench.book.cancel(done.id)
    bench.clock.advance(1.0)
    waiting = await bench.scheduler.submit(request())
    bench.clock.advance(2.0)
    assert [job.id for job in bench.book.list()] == [waiting.id]
    both = bench.book.list(include_ended=True)
    assert [job.id for job in both] == [done.id, waiting.id]
    assert [job.age_seconds for job in both] == [3.0, 2.0]


@asynchronous
async def test_history_forgets_the_oldest_jobs() -> None:
    bench = Bench(history=3)
    jobs = [await bench.scheduler.submit(request()) for _ in range(5)]
    for job in jobs:
        bench.book.cancel(job.id)
    remembered = [job.id for job in bench.book.list(include_ended=True)]
    assert remembered == [job.id for job in jobs[2:]]
    with pytest.raises(LlamadError, match="no job"):
        bench.book.get(jobs[0].id)


@asynchronous
async def test_without_a_history_cancel_still_answers() -> None:
    bench = Bench(history=0)
    job = await bench.scheduler.submit(request())
    assert bench.book.cancel(job.id).state is JobState.CANCELLED


@asynchronous
async def test_watch_shows_every_state_and_ends_with_the_job() -> None:
    bench = Bench()
    job = await bench.scheduler.submit(request(max_tokens=5))
    states: list[JobState] = []
    async with bench.running():
        async for snapshot in bench.book.watch(job.id):
            if not states or states[-1] is not snapshot.state:
                states.append(snapshot.state)
    assert states[0] is JobState.QUEUED
    assert states[-1] is JobState.FINISHED
    assert snapshot.completion_tokens == 5
    assert [s.state async for s in bench.book.watch(job.id)] == [JobState.FINISHED]
    with pytest.raises(LlamadError):
        bench.book.watch("j0")


@asynchronous
async def test_a_watcher_that_sleeps_sees_the_latest_state_only() -> None:
    bench = Bench()
    job = await bench.scheduler.submit(request(max_tokens=50))
    watcher = bench.book.watch(job.id)
    assert (await anext(watcher)).state is JobState.QUEUED
    async with bench.running():
        await events_of(job)
    assert (await anext(watcher)).state is JobState.FINISHED
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)


@asynchronous
async def test_counts_tell_queue_slots_blocks_and_totals() -> None:
    bench = Bench(n_sequences=2, kv_blocks_total=16, kv_block_tokens=32)
    jobs = [await bench.scheduler.submit(request("x" * 30, max_tokens=34)) for _ in range(3)]
    entered = bench.pause_step(2)
    async with bench.running():
        await entered.wait()
        counts = bench.scheduler.counts()
        assert (counts.queued, counts.running, counts.kv_blocks_free) == (1, 2, 14)
        for job in jobs:
            bench.book.cancel(job.id)
        await bench.scheduler.drain(1.0)
    counts = bench.scheduler.counts()
    assert (counts.queued, counts.running, counts.kv_blocks_free) == (0, 0, 16)
    assert (counts.queue_capacity, counts.sequence_slots) == (64, 2)
    totals = bench.book.totals
    assert (totals.prompt_tokens, totals.generated_tokens, totals.finished) == (60, 3, 0)


@asynchronous
async def test_nothing_of_a_prompt_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="llamad")
    bench = Bench()
    await _refused(bench, request("secret", model="other"))
    bench.book.cancel((await bench.scheduler.submit(request("secret"))).id)
    assert "secret" not in caplog.text
