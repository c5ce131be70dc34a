"""A draft at work: fewer steps, the same text, and rest where it loses. Fake engines."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from llamad.engine.drafting import DraftChunk, Drafter, DraftRound
from llamad.errors import ErrorKind, LlamadError
from llamad.schedule.balance import FIRST_REST
from llamad.schedule.draft import DraftCounts
from llamad.schedule.draft_model import BEHIND_ROWS, DraftModel
from llamad.schedule.limits import Limits
from unit.schedule.fakes import (
    Bench,
    FakeClock,
    FakeEngine,
    FakeSampler,
    History,
    Rule,
    asynchronous,
    events_of,
    letters,
    request,
    text_of,
)

T = TypeVar("T")

LIMITS = Limits(speculation=True)


def right(history: History, seed: int, draw: int) -> int:
    """Return what follows: it depends on all tokens before it, and on nothing else."""
    return letters(history, 0, 0)


def wrong(history: History, seed: int, draw: int) -> int:
    return 65 + letters(history, 0, 0) % 26


class FakeDraft:
    """A draft over a fake engine, whose steps take simulated time."""

    def __init__(
        self,
        rule: Rule = right,
        *,
        n_ctx: int = 512,
        n_batch: int = 64,
        n_blocks: int = 64,
        block_tokens: int = 32,
        vocab_size: int = 256,
        kv_local_blocks: int = 0,
        kv_window: int = 0,
    ) -> None:
        self.name = "small"
        self.vocab_size = vocab_size
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.kv_block_tokens = block_tokens
        self.kv_blocks_total = n_blocks
        self.kv_local_blocks = kv_local_blocks
        self.kv_window = kv_window
        self.engine = FakeEngine(
            n_batch=n_batch,
            n_blocks=n_blocks,
            block_tokens=block_tokens,
            n_local=kv_local_blocks,
            window=kv_window,
        )
        self.engine.rule = rule
        self.chunks: list[DraftChunk] = []
        self.clock: FakeClock | None = None
        self.step_seconds = self.row_seconds = 0.0
        sampler: Any = FakeSampler(0)
        self._drafter = Drafter(self.engine, sampler, vocab_size=256, now=lambda: 0.0)

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        assert all(c.position + len(c.tokens) + max(0, c.most - 1) <= self.n_ctx for c in chunks)
        self.chunks += chunks
        result = self._drafter.run(chunks)
        steps = tuple(
            (rows, self.step_seconds + rows * self.row_seconds) for rows, _ in result.steps
        )
        if self.clock is not None:
            self.clock.advance(sum(seconds for _, seconds in steps))
        return DraftRound(result.guesses, steps)


def with_draft(draft: FakeDraft | None, limits: Limits = LIMITS, **sizes: Any) -> Bench:
    bench = Bench(limits, draft=draft, **sizes)
    bench.engine.rule = right
    return bench


def simulate(bench: Bench, *, step: float, row: float, draft_step: float = 0.0) -> None:
    """Let the steps of model and draft take simulated time, all on the event loop."""
    bench.simulate(seconds_per_step=step, seconds_per_row=row, tick_seconds=step + row)

    async def call(function: Callable[[], T]) -> T:
        return function()

    bench.worker.call = call  # type: ignore[method-assign]
    if bench.model.draft is not None:
        bench.model.draft.clock = bench.clock
        bench.model.draft.step_seconds = draft_step


def counts_of(bench: Bench) -> DraftCounts:
    counts = bench.scheduler.counts().draft
    assert counts is not None
    return counts


def planner(bench: Bench) -> DraftModel:
    found = bench.scheduler._drafts._planner
    assert isinstance(found, DraftModel)
    return found


def free_blocks(bench: Bench) -> int:
    return planner(bench)._pool.n_free


async def _texts(bench: Bench, n_jobs: int, max_tokens: int) -> list[str]:
    chance = random.Random(n_jobs)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(
                request(f"{i}" * chance.randrange(1, 60), seed=i, max_tokens=max_tokens)
            )
            for i in range(n_jobs)
        ]
        texts = await asyncio.gather(*(text_of(job) for job in jobs))
        await bench.scheduler.drain(1.0)
    return list(texts)


@asynchronous
async def test_good_guesses_save_steps_and_change_no_text() -> None:
    alone, helped = with_draft(None), with_draft(FakeDraft())
    assert await _texts(helped, 1, 100) == await _texts(alone, 1, 100)
    assert len(helped.engine.steps) < len(alone.engine.steps) / 4
    counts = counts_of(helped)
    assert counts.guessed == counts.accepted > 70
    assert free_blocks(helped) == 64
    assert alone.scheduler.counts().draft is None


@asynchronous
async def test_a_wrong_guess_is_forgotten_by_the_draft_too() -> None:
    def often_right(history: History, seed: int, draw: int) -> int:
        return right(history, 0, 0) if len(history) % 5 else 64

    draft = FakeDraft()
    bench, alone = with_draft(draft), with_draft(None)
    bench.engine.rule = alone.engine.rule = often_right
    assert await _texts(bench, 1, 100) == await _texts(alone, 1, 100)
    counts = counts_of(bench)
    assert counts.accepted > 50


@asynchronous
async def test_several_sequences_share_the_rows_for_guesses() -> None:
    draft = FakeDraft()
    bench = with_draft(draft)
    async with bench.running():
        jobs = [await bench.scheduler.submit(request("x", max_tokens=80)) for _ in range(4)]
        texts = [await text_of(job) for job in jobs]
    assert len(set(texts)) == 1
    assert len(texts[0]) == 80
    assert all(sum(rows) <= 8 for rows in bench.engine.steps)
    assert [2, 2, 2, 2] in bench.engine.steps
    assert free_blocks(bench) == 64


@asynchronous
async def test_jobs_that_give_their_blocks_back_go_on_with_the_same_text() -> None:
    sizes: dict[str, Any] = {"n_sequences": 8, "kv_blocks_total": 20, "n_ctx": 160}
    roomy = with_draft(None, n_sequences=8)
    tight = with_draft(FakeDraft(n_blocks=20, block_tokens=8), kv_block_tokens=8, **sizes)
    assert await _texts(tight, 12, 60) == await _texts(roomy, 12, 60)
    assert tight.scheduler.counts().kv_blocks_free == 20
    assert free_blocks(tight) == 20


@asynchronous
async def test_a_draft_with_a_shorter_context_guesses_as_far_as_that() -> None:
    draft = FakeDraft(n_ctx=64)
    bench, alone = with_draft(draft), with_draft(None)
    assert await _texts(bench, 1, 200) == await _texts(alone, 1, 200)
    assert 0 < counts_of(bench).accepted < 64


@asynchronous
async def test_tokens_that_only_one_of_the_two_has_are_left_alone() -> None:
    narrow = FakeDraft(vocab_size=110)  # n and what follows is beyond
    bench, alone = with_draft(narrow), with_draft(None)
    assert await _texts(bench, 3, 60) == await _texts(alone, 3, 60)
    assert all(max(chunk.tokens) < 110 for chunk in narrow.chunks)
    wide = FakeDraft(lambda history, seed, draw: 256 + 4)
    assert await _texts(with_draft(wide), 3, 60) == await _texts(with_draft(None), 3, 60)
    assert narrow.chunks
    assert wide.chunks


@asynchronous
async def test_n_grams_guess_first() -> None:
    draft = FakeDraft()
    bench = with_draft(draft)
    bench.engine.rule = draft.engine.rule = lambda history, seed, draw: 97 + len(history) % 5
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("x", max_tokens=200)))
    assert counts_of(bench).guessed < 40


@asynchronous
async def test_a_request_without_speculation_is_left_alone() -> None:
    draft = FakeDraft()
    bench = with_draft(draft)
    async with bench.running():
        await events_of(
            await bench.scheduler.submit(request("x", max_tokens=50, speculation=False))
        )
    assert draft.chunks == []


@asynchronous
async def test_a_long_prompt_is_read_in_pieces_that_fit_a_step() -> None:
    draft = FakeDraft(n_batch=256)
    bench = with_draft(draft, n_ctx=2048, n_batch=256, kv_blocks_total=128)
    simulate(bench, step=0.1, row=0.01, draft_step=0.01)
    draft.kv_blocks_total = 128
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("p" * 400, max_tokens=100)))
    reading = [chunk for chunk in draft.chunks if chunk.most == 0]
    assert len(reading) > 2
    assert len(reading[0].tokens) <= BEHIND_ROWS
    assert counts_of(bench).accepted > 30


@asynchronous
async def test_a_prompt_is_not_read_for_a_short_answer() -> None:
    draft = FakeDraft()
    bench = with_draft(draft)
    simulate(bench, step=0.1, row=0.01, draft_step=0.05)
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("p" * 20, max_tokens=40)))
        n_chunks = len(draft.chunks)
        await events_of(await bench.scheduler.submit(request("q" * 400, max_tokens=3)))
    assert 0 < n_chunks == len(draft.chunks)


async def _seconds(draft: FakeDraft | None, *, draft_step: float, **cost: float) -> float:
    bench = with_draft(draft, n_ctx=2048, kv_blocks_total=128)
    simulate(bench, draft_step=draft_step, **cost)
    began = bench.clock.now()
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("p", max_tokens=1000)))
    return bench.clock.now() - began


@asynchronous
async def test_where_a_pass_is_dear_a_good_draft_makes_it_several_times_faster() -> None:
    cost = {"step": 4.0, "row": 0.05}
    alone = await _seconds(None, draft_step=0.1, **cost)
    assert await _seconds(FakeDraft(n_ctx=2048), draft_step=0.1, **cost) < alone / 4


@pytest.mark.parametrize("draft_step", [0.001, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("row", [0.001, 0.05])
def test_a_draft_that_guesses_badly_costs_little(draft_step: float, row: float) -> None:
    @asynchronous
    async def check() -> None:
        alone = await _seconds(None, draft_step=0.0, step=0.1, row=row)
        helped = await _seconds(
            FakeDraft(wrong, n_ctx=2048), draft_step=draft_step, step=0.1, row=row
        )
        assert helped < 1.1 * alone

    check()


@asynchronous
async def test_a_draft_that_costs_more_than_it_saves_rests_however_well_it_guesses() -> None:
    alone = await _seconds(None, draft_step=0.0, step=0.1, row=0.001)
    draft = FakeDraft(n_ctx=2048)
    assert await _seconds(draft, draft_step=0.3, step=0.1, row=0.001) < 1.1 * alone


@asynchronous
async def test_after_a_rest_it_is_tried_again() -> None:
    good_from = 300
    draft = FakeDraft(
        lambda history, seed, draw: (right if len(history) >= good_from else wrong)(
            history, seed, draw
        ),
        n_ctx=2048,
    )
    bench = with_draft(draft, n_ctx=2048, kv_blocks_total=128)
    simulate(bench, step=0.1, row=0.001, draft_step=0.02)
    paused: set[bool] = set()
    async with bench.running():
        job = await bench.scheduler.submit(request("p", max_tokens=1500))
        async for _ in job.stream:
            paused.add(counts_of(bench).paused)
    counts = counts_of(bench)
    assert paused == {False, True}
    assert not counts.paused
    assert counts.accepted > 500
    assert len(bench.engine.steps) > FIRST_REST


@asynchronous
async def test_a_draft_that_fails_is_left_out_and_the_answer_goes_on() -> None:
    draft = FakeDraft()
    bench, alone = with_draft(draft), with_draft(None)
    lost = LlamadError(ErrorKind.STATE, "MODEL_FILE_LOST", "small.gguf lost pages")
    draft.engine.errors = [None, None, None, lost]
    assert await _texts(bench, 2, 60) == await _texts(alone, 2, 60)
    assert counts_of(bench).fault == "small.gguf lost pages"
    assert free_blocks(bench) == 64
    assert bench.scheduler.failure is None


@asynchronous
async def test_logits_that_are_not_finite_only_end_the_guess() -> None:
    draft = FakeDraft()
    draft.engine.refused = lambda history: len(history) % 3 == 0
    bench, alone = with_draft(draft), with_draft(None)
    assert await _texts(bench, 2, 60) == await _texts(alone, 2, 60)
    assert counts_of(bench).fault == ""
    assert counts_of(bench).accepted > 10


@pytest.mark.parametrize("seed", range(10))
def test_whatever_ends_in_the_middle_every_block_of_the_draft_returns(seed: int) -> None:
    @asynchronous
    async def check() -> None:
        chance = random.Random(seed)
        draft = FakeDraft(
            lambda history, seed, draw: right(history, 0, 0) if len(history) % 7 else 64,
            n_blocks=chance.randrange(6, 30),
            block_tokens=8,
            n_ctx=chance.choice([40, 200]),
            n_batch=chance.choice([8, 64]),
            kv_local_blocks=(n_local := chance.choice([0, 4, 9])),
            kv_window=chance.choice([1, 9, 16]) if n_local else 0,
        )
        bench = with_draft(
            draft,
            Limits(queue_capacity=40, speculation=True),
            n_sequences=chance.randrange(1, 6),
            kv_blocks_total=chance.randrange(6, 30),
            kv_block_tokens=8,
            n_ctx=chance.choice([40, 200]),
        )
        async with bench.running():
            jobs = [
                await bench.scheduler.submit(
                    request(
                        "x" * chance.randrange(1, 35), seed=i, max_tokens=chance.choice([1, 5, 40])
                    )
                )
                for i in range(20)
            ]

            async def read(i: int) -> None:
                with suppress(LlamadError):
                    async for _ in jobs[i].stream:
                        if chance.random() < 0.05:
                            break
                await jobs[i].stream.aclose()

            await asyncio.gather(*(read(i) for i in range(20)))
            await bench.scheduler.drain(60.0)
        assert free_blocks(bench) == draft.kv_blocks_total
        assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total
        assert not list(planner(bench).guessers)

    check()
