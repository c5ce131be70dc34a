"""Texts that are read for a vector: which rows count, in steps with others, whole or in pieces."""

import math
import threading
from collections.abc import Sequence

import pytest

from llamad.errors import LlamadError
from llamad.jobs.event import Embedded, Event, Finished, FinishReason
from llamad.jobs.request import Embedding, GenerationRequest, Pooling
from llamad.schedule.pooling import Pool
from unit.schedule.fakes import (
    TIMEOUT_SECONDS,
    Bench,
    asynchronous,
    events_of,
    request,
    text_of,
)

TEXT = "a text of some length, which several steps read"


def to_embed(
    text: str, pooling: Pooling | None = None, *, truncates: bool = False
) -> GenerationRequest:
    return GenerationRequest(prompt=text, embedding=Embedding(pooling, truncates))


def vector_in(events: Sequence[Event]) -> list[float]:
    (found,) = [event for event in events if isinstance(event, Embedded)]
    return list(found.vector)


def of_tokens(tokens: Sequence[int]) -> list[float]:
    """Return the vector of rows (token, 1), as the fake engine has them."""
    mean = sum(tokens) / len(tokens)
    length = math.hypot(mean, 1.0)
    return [mean / length, 1.0 / length]


def hold_steps(bench: Bench) -> threading.Event:
    """Return what lets the first step go on: until then no job gains on those that are to come."""
    go_on = threading.Event()

    def hold() -> None:
        assert go_on.wait(TIMEOUT_SECONDS)

    bench.engine.before_step = hold
    return go_on


@pytest.mark.parametrize(
    ("pooling", "rows"),
    [
        (None, TEXT.encode()),
        (Pooling.MEAN, TEXT.encode()),
        (Pooling.FIRST, TEXT.encode()[:1]),
        (Pooling.LAST, TEXT.encode()[-1:]),
    ],
)
@asynchronous
async def test_a_vector_is_the_mean_of_the_rows_that_count(
    pooling: Pooling | None, rows: bytes
) -> None:
    bench = Bench(n_batch=8)  # so that it takes several steps
    async with bench.running():
        job = await bench.scheduler.submit(to_embed(TEXT, pooling))
        events = await events_of(job)
    assert vector_in(events) == pytest.approx(of_tokens(rows), rel=1e-6)
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.completion_tokens) == (FinishReason.STOP, 0)
    assert last.prompt_tokens == len(TEXT)
    assert len(bench.engine.steps) > 3


@asynchronous
async def test_texts_and_answers_share_steps_and_change_nothing() -> None:
    alone = Bench()
    async with alone.running():
        answer = await text_of(await alone.scheduler.submit(request("an answer", max_tokens=20)))
    bench = Bench(n_batch=16)
    all_wait = hold_steps(bench)
    async with bench.running():
        texts = [TEXT, "x", TEXT + "!", TEXT]
        speaking = await bench.scheduler.submit(request("an answer", max_tokens=20))
        jobs = [await bench.scheduler.submit(to_embed(text)) for text in texts]
        all_wait.set()
        for text, job in zip(texts, jobs, strict=True):
            vector = vector_in(await events_of(job))
            assert vector == pytest.approx(of_tokens(text.encode()), rel=1e-6)
        assert await text_of(speaking) == answer
    assert max(len(step) for step in bench.engine.steps) > 1
    assert bench.book.totals.finished == 5


@asynchronous
async def test_an_encoder_reads_each_text_in_one_step() -> None:
    bench = Bench(n_batch=64, is_encoder=True)
    texts = ["a" * 40, "b" * 60, "c" * 20, "d", "e" * 64]
    all_wait = hold_steps(bench)
    async with bench.running():
        jobs = [await bench.scheduler.submit(to_embed(text)) for text in texts]
        all_wait.set()
        for text, job in zip(texts, jobs, strict=True):
            assert vector_in(await events_of(job)) == pytest.approx(of_tokens(text.encode()))
    assert sorted(n for step in bench.engine.steps for n in step) == [1, 20, 40, 60, 64]
    assert any(len(step) > 1 for step in bench.engine.steps), bench.engine.steps
    assert bench.scheduler.counts().kv_blocks_cached == 0  # keys of a text are no other's


@asynchronous
async def test_a_text_that_lost_its_blocks_is_read_again_from_its_beginning() -> None:
    """Every row counts once, also of a text that gave way to somebody in the middle."""
    bench = Bench(n_batch=8, n_sequences=2, kv_blocks_total=6, kv_block_tokens=8)
    async with bench.running():
        speaking = [
            await bench.scheduler.submit(request("a", max_tokens=30, seed=i)) for i in range(2)
        ]
        text = "b" * 30 + "c"
        job = await bench.scheduler.submit(to_embed(text))
        assert vector_in(await events_of(job)) == pytest.approx(of_tokens(text.encode()))
        for other in speaking:
            await events_of(other)


def test_a_pool_begins_anew() -> None:
    class Rows:
        def add_rows(self, first: int, n: int, sums: list[float]) -> None:
            sums[0] += n

    pool = Pool(Pooling.MEAN, 10, 2)
    pool.read(Rows(), 0, 0, 6)
    pool.clear()
    assert list(pool.vector()) == [0.0, 0.0]
    pool.read(Rows(), 3, 0, 10)
    assert list(pool.vector()) == [1.0, 0.0]


@pytest.mark.parametrize("is_encoder", [True, False])
@asynchronous
async def test_a_text_that_is_too_long_is_refused_or_cut_before_its_last_token(
    is_encoder: bool,
) -> None:
    bench = Bench(n_batch=64, n_ctx=64, is_encoder=is_encoder)
    text = "a" * 69 + "z"
    async with bench.running():
        with pytest.raises(LlamadError, match="has 70 tokens, model 'fake' reads 64") as caught:
            await bench.scheduler.submit(to_embed(text))
        assert caught.value.reason == "PROMPT_TOO_LONG"
        events = await events_of(await bench.scheduler.submit(to_embed(text, truncates=True)))
    assert vector_in(events) == pytest.approx(of_tokens(b"a" * 63 + b"z"))
    (found,) = [event for event in events if isinstance(event, Embedded)]
    assert found.truncated_tokens == 6


@asynchronous
async def test_the_wrong_model_is_named() -> None:
    bench = Bench(is_encoder=True)
    async with bench.running():
        with pytest.raises(LlamadError, match="makes vectors of texts") as caught:
            await bench.scheduler.submit(request("an answer"))
        assert caught.value.reason == "MODEL_MAKES_VECTORS"
    bench = Bench()
    bench.model.pooling = None
    async with bench.running():
        with pytest.raises(LlamadError, match="has no pooling_type") as caught:
            await bench.scheduler.submit(to_embed("a"))
        assert caught.value.reason == "MODEL_MAKES_NO_VECTORS"
        events = await events_of(await bench.scheduler.submit(to_embed("ab", Pooling.LAST)))
    assert vector_in(events) == pytest.approx(of_tokens(b"b"))
