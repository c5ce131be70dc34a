"""With the cache every text is the one without it, whatever is cancelled, paused or evicted.

On a real engine: prompts that share their beginnings come together and one after the other, lose
their blocks, guess, and are cancelled, with blocks for less than all of them.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.jobs.book import JobBook
from llamad.jobs.event import Finished
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from tiny_gguf import TinySpec
from unit.schedule.fakes import asynchronous, events_of, text_in, text_of
from unit.test_preemption import SAMPLINGS, Preempting

TinyModelPath = Callable[[TinySpec], Path]
BEGINNINGS = (
    "the kitchen light is on and the hall light is off. " * 5,
    "the kitchen light is on and the hall light is dim. " * 5,
    "",
)
ENDINGS = ("", "what is on?", "what is off? " * 4, "the kitchen light is on. " * 3)


def _wishes(n: int, chance: random.Random) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            prompt=chance.choice(BEGINNINGS)[: chance.choice([40, 150, 255])]
            + chance.choice(ENDINGS)
            + ".",
            max_tokens=chance.choice([1, 12, 40]),
            sampling=replace(SAMPLINGS[i % len(SAMPLINGS)], seed=i),
            speculation=chance.random() < 0.5,
            owner_uid=chance.choice([1000, 1001]),
        )
        for i in range(n)
    ]


@asynccontextmanager
async def _scheduling(model: LoadedModel, preempted: float = 0.0) -> AsyncIterator[Preempting]:
    worker = EngineWorker(model.engine)
    scheduler = Preempting(model, worker, JobBook(), Limits(queue_capacity=1000))
    scheduler.chance = random.Random(5)
    scheduler.share = preempted
    loop = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
        await scheduler.drain(5.0)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
    assert scheduler.counts().kv_blocks_free == model.kv_blocks_total


async def _alone(model: LoadedModel, wish: GenerationRequest) -> str:
    """Return the text of a scheduler that has computed nothing before."""
    async with _scheduling(model) as scheduler:
        return await text_of(await scheduler.submit(wish))


async def _together(
    scheduler: Scheduler, wishes: list[GenerationRequest], chance: random.Random
) -> list[str | None]:
    """Return the texts of requests that come in waves; None of those that were cancelled."""

    async def read(job: Job, after: int) -> str | None:
        events = []
        async for event in job.stream:
            events.append(event)
            if len(events) == after:
                await job.stream.aclose()
                return None
        return text_in(events)

    reading = []
    for wish in wishes:
        job = await scheduler.submit(wish)
        after = chance.randrange(1, 20) if chance.random() < 0.2 else 0
        reading.append(asyncio.create_task(read(job, after)))
        if chance.random() < 0.4:
            await asyncio.wait([chance.choice(reading)])
    return await asyncio.gather(*reading)


@pytest.fixture
def tiny_model(tiny_model_path: TinyModelPath) -> Iterator[Callable[..., LoadedModel]]:
    """Return a function that loads a tiny model; what it loaded is closed."""
    models = []

    def loaded(**config: object) -> LoadedModel:
        path = tiny_model_path(TinySpec(weight_type="Q8_0"))
        models.append(
            load(
                ModelConfig(path=str(path), n_sequences=4, ctx_size=512, **config),  # type: ignore[arg-type]
                bindings.StopFlag(),
            )
        )
        return models[-1]

    yield loaded
    for model in models:
        model.close()


@pytest.mark.parametrize(
    ("kv_type", "kv_tokens", "preempted"),
    [
        ("f16", 512, 0.2),
        ("q8_0", 512, 0.0),
        ("q4_0", 512, 0.2),
        ("f16", 2048, 0.0),
        ("q8_0", 2048, 0.2),
    ],
)
def test_texts_with_the_cache_are_those_without(
    tiny_model: Callable[..., LoadedModel], kv_type: str, kv_tokens: int, preempted: float
) -> None:
    @asynchronous
    async def check() -> None:
        model = tiny_model(kv_type=kv_type, kv_tokens=kv_tokens)
        wishes = _wishes(60, random.Random(kv_tokens))
        alone = [await _alone(model, wish) for wish in wishes]
        async with _scheduling(model, preempted) as scheduler:
            texts = await _together(scheduler, wishes, random.Random(3))
            counts = scheduler.counts()
        assert len(set(alone)) > 20
        assert sum(text is not None for text in texts) > 30
        for text, expected in zip(texts, alone, strict=True):
            assert text in (None, expected)
        assert counts.prefix.hits > 20
        assert counts.prefix.tokens_reused > 1000
        assert (scheduler.n_preempted > 50) == (preempted > 0)

    check()


async def _cached_tokens(scheduler: Scheduler, prompt: str, owner_uid: int = 1000) -> int:
    wish = GenerationRequest(
        prompt=prompt, max_tokens=1, sampling=Sampling(seed=1), owner_uid=owner_uid
    )
    last = (await events_of(await scheduler.submit(wish)))[-1]
    assert isinstance(last, Finished)
    return last.cached_prompt_tokens


@asynchronous
async def _one_device_changed(model: LoadedModel) -> None:
    devices = [f"device {i} is a lamp in room {i % 7}\n" for i in range(16)]
    encode = model.tokenizer.encode
    changed = [*devices]
    changed[9] = "device 9 is a radio in room 3\n"
    before, after = encode("".join(devices)), encode("".join(changed))
    same = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    assert same > 100
    async with _scheduling(model) as scheduler:
        assert await _cached_tokens(scheduler, "".join(devices)) == 0
        assert await _cached_tokens(scheduler, "".join(changed)) == same // 32 * 32
        assert await _cached_tokens(scheduler, "".join(devices)) == (len(before) - 1) // 32 * 32
        assert await _cached_tokens(scheduler, "".join(devices), owner_uid=1001) == 0


def test_with_one_device_changed_everything_before_it_is_reused(
    tiny_model: Callable[..., LoadedModel],
) -> None:
    _one_device_changed(tiny_model())
