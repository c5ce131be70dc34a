"""Encodings keep their places until their thread is done, and short ones pass long ones."""

import asyncio
import gc
import threading
import weakref

import pytest

from llamad.errors import LlamadError, invalid
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.schedule.encoder import LONG_BYTES, Encoder, Line
from llamad.schedule.intake import MAX_TEXTS
from llamad.schedule.limits import MAX_PROMPTS_BYTES, Limits
from unit.schedule.fakes import TIMEOUT_SECONDS, Bench, asynchronous, events_of, request


class Gate:
    """A tokenizer that holds whoever encodes until it is opened."""

    def __init__(self, bench: Bench) -> None:
        self.open = threading.Event()
        self.running = 0
        self.most = 0
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._encode = bench.model.tokenizer.encode
        bench.model.tokenizer.encode = self  # type: ignore[method-assign, assignment]

    def __call__(self, text: str, **options: object) -> list[int]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.open.wait(TIMEOUT_SECONDS)
        with self._lock:
            self.running -= 1
        return self._encode(text)


@asynchronous
async def test_cancelled_submissions_make_no_room_for_more_encodings() -> None:
    bench = Bench(Limits(queue_capacity=2))
    gate = Gate(bench)
    submissions = [asyncio.create_task(bench.scheduler.submit(request())) for _ in range(2)]
    await gate.entered.wait()
    for submission in submissions:
        submission.cancel()
    await asyncio.gather(*submissions, return_exceptions=True)
    # one runs on, and keeps its place; the other never began
    third = asyncio.create_task(bench.scheduler.submit(request(max_tokens=1)))
    await asyncio.sleep(0)
    with pytest.raises(LlamadError, match="queue is full"):
        await bench.scheduler.submit(request())
    gate.open.set()
    async with bench.running():
        await events_of(await third)
        await events_of(await bench.scheduler.submit(request(max_tokens=1)))
    assert gate.most == 1


@asynchronous
async def test_an_error_whose_caller_has_left_is_not_written_to_the_journal() -> None:
    loop = asyncio.get_running_loop()
    encoder, line = Encoder(), Line()
    entered, release = asyncio.Event(), threading.Event()
    told: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def fail() -> None:
        loop.call_soon_threadsafe(entered.set)
        assert release.wait(TIMEOUT_SECONDS)
        raise ZeroDivisionError

    left = asyncio.create_task(encoder.run(fail, 1, line))
    await entered.wait()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    release.set()
    assert await encoder.run(lambda: "next", 1, line) == "next"  # behind it, on the same thread
    del left  # its traceback has what waited; asyncio tells of an error when that goes
    gc.collect()
    assert told == []
    assert line.pending == 0
    encoder.close()


@asynchronous
async def test_a_short_text_does_not_wait_for_a_long_one() -> None:
    encoder, line = Encoder(), Line()
    release = threading.Event()
    long = asyncio.create_task(
        encoder.run(lambda: release.wait(TIMEOUT_SECONDS), LONG_BYTES + 1, line)
    )
    assert await encoder.run(lambda: "short", LONG_BYTES, line) == "short"
    assert line.pending == 1
    release.set()
    assert await long
    assert line.pending == 0
    encoder.close()


@asynchronous
async def test_what_the_encoding_raises_is_raised_and_gives_the_place_back() -> None:
    encoder, line = Encoder(), Line()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await encoder.run(fail, 1, line)
    assert line.pending == 0
    encoder.close()


@asynchronous
async def test_a_drain_tells_those_whose_encoding_has_not_begun() -> None:
    bench = Bench()
    gate = Gate(bench)
    running = asyncio.create_task(bench.scheduler.submit(request()))
    await gate.entered.wait()
    waiting = asyncio.create_task(bench.scheduler.submit(request()))
    await asyncio.sleep(0)
    async with bench.running():
        await bench.scheduler.drain(1.0)
        with pytest.raises(LlamadError) as refused:
            await waiting
        gate.open.set()
        with pytest.raises(LlamadError) as late:
            await running
    assert refused.value.reason == late.value.reason == "SHUTTING_DOWN"


@asynchronous
async def test_texts_to_tokenize_and_jobs_take_no_place_of_each_other() -> None:
    bench = Bench(Limits(queue_capacity=2))
    gate = Gate(bench)
    texts = [
        asyncio.create_task(bench.scheduler.tokenize(lambda: gate("t"), 1))
        for _ in range(MAX_TEXTS)
    ]
    await gate.entered.wait()
    with pytest.raises(LlamadError, match="queue is full: 16 texts wait for the tokenizer already"):
        await bench.scheduler.tokenize(lambda: gate("t"), 1)
    jobs = [asyncio.create_task(bench.scheduler.submit(request(max_tokens=1))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LlamadError, match="queue is full: 2 jobs wait already"):
        await bench.scheduler.submit(request())
    gate.open.set()
    assert await asyncio.gather(*texts) == [[ord("t")]] * MAX_TEXTS
    submitted = await asyncio.gather(*jobs)
    assert await bench.scheduler.tokenize(lambda: gate("t"), 1) == [ord("t")]  # with a full queue
    async with bench.running():
        for job in submitted:
            await events_of(job)


@asynchronous
async def test_prompts_that_wait_for_the_tokenizer_have_few_bytes_together() -> None:
    bench = Bench()
    gate = Gate(bench)
    half = "x" * (MAX_PROMPTS_BYTES // 2)
    first = [asyncio.create_task(bench.scheduler.submit(request(half))) for _ in range(2)]
    await gate.entered.wait()
    with pytest.raises(LlamadError, match="queue is full: 4194304 bytes of prompts wait already"):
        await bench.scheduler.submit(request("x"))
    gate.open.set()
    results = await asyncio.gather(*first, return_exceptions=True)
    assert [getattr(error, "reason", None) for error in results] == ["PROMPT_TOO_LONG"] * 2
    with pytest.raises(LlamadError, match="context holds"):  # alone, it is read
        await bench.scheduler.submit(request("x" * (MAX_PROMPTS_BYTES + 1)))


@asynchronous
async def test_a_job_that_waits_holds_tokens_and_no_text() -> None:
    bench = Bench()
    message = ChatMessage("user", "text")
    for wish in request("text"), GenerationRequest(messages=(message,)):
        job = await bench.scheduler.submit(wish)
        assert job.record.prompt_tokens
        assert (job.record.request.prompt, job.record.request.messages) == (None, ())


class Tokens(list[int]):
    """A list that a weak reference can follow."""


@asynchronous
async def test_what_a_refused_text_left_is_freed_at_once() -> None:
    left: list[weakref.ref[Tokens]] = []

    def refuse() -> None:
        tokens = Tokens()
        left.append(weakref.ref(tokens))
        raise invalid("prompt", "is too long")

    async def submit(encoder: Encoder) -> None:
        with pytest.raises(LlamadError):
            await encoder.run(refuse, 1, Line())

    gc.disable()
    try:
        encoder = Encoder()
        await asyncio.create_task(submit(encoder))
        await asyncio.to_thread(encoder.close)
        assert left[0]() is None
    finally:
        gc.enable()
