"""A job that loses its blocks, or whose steps are stopped, ends with the text it would have had."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from family_models import FAMILY_MODELS
from llamad.config import ModelConfig
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.request import GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.sampling.response_format import FormatKind, ResponseFormat
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.speculation import Speculation
from llamad.schedule.step import Part
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from tiny_gguf import TinySpec
from unit.schedule.fakes import asynchronous, text_of

PREEMPTIONS = 200
STOPS = 20
SAMPLINGS = (
    Sampling(temperature=0.0, repeat_penalty=1.0),
    Sampling(temperature=1.0, repeat_penalty=1.2, repeat_last_n=16),
    Sampling(temperature=1.5, top_k=0, min_p=0.02, frequency_penalty=0.5, repeat_last_n=-1),
    Sampling(temperature=0.8, presence_penalty=1.0, top_p=0.7),
)

FORMAT = ResponseFormat(FormatKind.GRAMMAR, 'root ::= "answer: " [a-z0-9 ]{4,} "." [a-z]*')
SPEC = TinySpec(weight_type="Q8_0")
STATEFUL = [spec for spec in FAMILY_MODELS.values() if spec.has_states]
TinyModelPath = Callable[[TinySpec], Path]


class Preempting(Scheduler):
    """Takes the blocks of jobs at random points between two steps, and stops steps at any layer."""

    chance = random.Random(0)
    share = 0.0
    n_preempted = 0
    n_stopped = 0

    async def _compute(self, step: Sequence[Part]) -> tuple[tuple[int, ...] | LlamadError, ...]:
        timer = None
        can_repeat = all(self._pool.states.can_repeat(g.sequence) for g, _ in step)
        if can_repeat and self.chance.random() < self.share:
            # Half of them before the first layer: on a busy machine the timer may meet none.
            if self.chance.random() < 0.5:
                self._worker.cancel()
            loop, after = asyncio.get_running_loop(), self.chance.uniform(0, 0.001)
            timer = loop.call_later(after, self._worker.cancel)
        try:
            return await super()._compute(step)
        except LlamadError as error:
            self.n_stopped += error.kind is ErrorKind.CANCELLED
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _start_waiting(self, now: float) -> None:
        for generation in list(self._places.running):
            if generation.sequence.blocks and self.chance.random() < self.share:
                self._places.pause([generation], now)
                self.n_preempted += 1
        super()._start_waiting(now)


def _wishes() -> list[GenerationRequest]:
    return [
        GenerationRequest(
            prompt=f"number {i} " + "the quick brown fox " * (3 * i % 7),
            max_tokens=40,
            sampling=replace(SAMPLINGS[i % len(SAMPLINGS)], seed=i),
            speculation=i % 2 == 0,
            response_format=FORMAT if i >= 20 else None,
        )
        for i in range(24)
    ]


async def _texts(model: LoadedModel, share: float) -> tuple[list[str], int, int]:
    worker = EngineWorker(model.engine)
    scheduler = Preempting(model, worker, JobBook(), Limits())
    scheduler.chance = random.Random(5)
    scheduler.share = share
    jobs = [await scheduler.submit(wish) for wish in _wishes()]  # all are there at the first step
    loop = asyncio.create_task(scheduler.run())
    try:
        texts = await asyncio.gather(*(text_of(job) for job in jobs))
        await scheduler.drain(5.0)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
    assert scheduler.counts().kv_blocks_free == model.kv_blocks_total
    draft = scheduler.counts().draft
    # a job that is preempted or stopped loses its guesses: how many depends on where it was met
    at_least = 50 if share == 0.0 else 10
    assert model.draft is None or (draft is not None and draft.accepted > at_least), draft
    assert model.guess_layer is None or (draft is not None and draft.guessed > 100), draft
    assert draft is None or draft.fault == ""
    return texts, scheduler.n_preempted, scheduler.n_stopped


WITH_STATES = [
    replace(spec, weight_type="Q8_0", n_ctx_train=512, tied_output=False) for spec in STATEFUL
]
WITH_GUESS_LAYER = replace(FAMILY_MODELS["qwen35"], weight_type="Q8_0", n_guess_layers=1)


# A window of a block and a part
WITH_WINDOWS = TinySpec(architecture="gemma3", n_layers=7, window=40, weight_type="Q8_0")


@pytest.mark.parametrize(
    ("kv_type", "drafted", "spec"),
    [
        ("f16", False, SPEC),
        ("q8_0", False, SPEC),
        ("q4_0", False, SPEC),
        ("f16", True, SPEC),
        *(("f16", False, spec) for spec in WITH_STATES),
        ("f16", False, WITH_WINDOWS),
        ("q4_0", False, WITH_WINDOWS),
        ("q8_0", False, WITH_GUESS_LAYER),
    ],
)
def test_a_preempted_text_is_the_uninterrupted_one(
    tiny_model_path: TinyModelPath,
    kv_type: str,
    drafted: bool,
    spec: TinySpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a tiny draft costs as much as it saves, and on a busy machine more: let it read and guess
    # all the same, so that nothing here depends on measured seconds
    monkeypatch.setattr("llamad.schedule.draft.Value.least_chance", 0.0)
    monkeypatch.setattr("llamad.schedule.balance.Balance.rests", False)
    monkeypatch.setattr(Speculation, "wants_plain", lambda self, n_decoding: False)
    monkeypatch.setattr("llamad.schedule.draft_model.READ_SHARE", float("inf"))

    @asynchronous
    async def check() -> None:
        path = tiny_model_path(spec)
        same = tiny_model_path(TinySpec(weight_type="Q8_0", n_ctx_train=511))
        config = ModelConfig(
            path=str(path),
            draft=str(same) if drafted else "",
            kv_type=kv_type,
            n_sequences=4,
            ctx_size=512,
        )
        model = load(config, bindings.StopFlag())
        try:
            uninterrupted, *none = await _texts(model, 0.0)
            interrupted, n_preempted, n_stopped = await _texts(model, 0.3)
        finally:
            model.close()
        assert none == [0, 0]
        assert n_preempted >= PREEMPTIONS
        assert n_stopped >= STOPS
        assert interrupted == uninterrupted
        assert len(set(uninterrupted)) > 6

    check()
