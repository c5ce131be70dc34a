"""Requests that go through adapters, with the real engine: each text is the one it has alone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.plain import from_plain, to_plain
from llamad.jobs.request import AdapterChoice, GenerationRequest
from llamad.memory.replan import whole_budget
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.store.registry import ModelRegistry
from tiny_adapter import TinyAdapter, write_tiny_adapter
from tiny_gguf import TinySpec, write_tiny_model
from unit.schedule.fakes import asynchronous, text_of

SPEC = TinySpec(weight_type="Q8_0")
CONFIG = ModelConfig(threads=2, ctx_size=256, batch=32, lock=False, n_sequences=4)
PROMPT = "the light in the kitchen, and what else there is to be said of it " * 2


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a directory with a model and three adapters, one of which is another model's."""
    write_tiny_model(tmp_path / "base.gguf", SPEC)
    write_tiny_adapter(tmp_path / "a.gguf", SPEC)
    write_tiny_adapter(tmp_path / "b.gguf", SPEC, TinyAdapter(rank=9, seed=2))
    write_tiny_adapter(tmp_path / "c.gguf", replace(SPEC, dim=96))
    return tmp_path


@contextmanager
def loaded(models: Path, **changes: object) -> Iterator[LoadedModel]:
    config = replace(CONFIG, directory=str(models), **changes)  # type: ignore[arg-type]
    model = load(config, StopFlag())
    try:
        yield model
    finally:
        model.close()


def wish(adapter: str = "", scale: float = 1.0, **changes: object) -> GenerationRequest:
    choice = AdapterChoice(adapter, scale) if adapter else None
    sampling = Sampling(temperature=1.0, seed=7)
    return GenerationRequest(
        prompt=PROMPT,
        max_tokens=24,
        sampling=sampling,
        adapter=choice,
        **changes,  # type: ignore[arg-type]
    )


async def texts_of(model: LoadedModel, *wishes: GenerationRequest) -> tuple[list[str], Scheduler]:
    """Return the texts of requests that run together."""
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(), Limits())
    loop = asyncio.create_task(scheduler.run())
    try:
        jobs = [await scheduler.submit(one) for one in wishes]
        texts = list(await asyncio.gather(*(text_of(job) for job in jobs)))
        return texts, scheduler
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()


@asynchronous
async def test_each_text_is_as_alone(models: Path) -> None:
    wishes = [wish(), wish("a"), wish("b"), wish("a", 0.5)]
    with loaded(models) as model:
        alone = [(await texts_of(model, one))[0][0] for one in wishes]
        assert len(set(alone)) == 4
        assert (await texts_of(model, *wishes))[0] == alone
        assert (await texts_of(model, *reversed(wishes)))[0] == alone[::-1]


@asynchronous
async def test_a_cached_prefix_is_that_of_its_adapter_and_scale(models: Path) -> None:
    wishes = [wish(), wish("a"), wish("b"), wish("a", 0.5)]
    with loaded(models, n_sequences=1, kv_tokens=4096) as model:
        alone = [(await texts_of(model, one))[0][0] for one in wishes]
        texts, scheduler = await texts_of(model, *wishes)
        assert (texts, scheduler.counts().prefix.hits) == (alone, 0)
        texts, scheduler = await texts_of(model, *wishes, *wishes)
        assert (texts, scheduler.counts().prefix.hits) == (alone * 2, 4)


@asynchronous
async def test_guesses_change_no_text(models: Path) -> None:
    prompt = "one two three four one two three four one two three four one two"
    with loaded(models) as model:
        plain, guessed = (
            replace(wish("a"), prompt=prompt, sampling=Sampling(temperature=0.0), speculation=on)
            for on in (False, True)
        )
        assert (await texts_of(model, plain))[0] == (await texts_of(model, guessed))[0]


@asynchronous
async def test_an_adapter_that_is_not_loaded_is_refused(models: Path) -> None:
    with loaded(models) as model:
        assert sorted(model.adapters.loaded) == ["a", "b"]
        with pytest.raises(LlamadError) as caught:
            await texts_of(model, wish("none"))
        assert caught.value.reason == "ADAPTER_NOT_FOUND"
        assert caught.value.message == "no adapter 'none' is loaded with 'base'; there are: a, b"
        with pytest.raises(LlamadError) as caught:
            await texts_of(model, wish("c"))
        assert caught.value.reason == "ADAPTER_NOT_LOADED"
        assert (
            "c.gguf: tensor 'blk.0.attn_q.weight.lora_a' has shape (96, 4)" in caught.value.message
        )


@asynchronous
async def test_a_submitted_request_goes_on_with_the_same_file_only(models: Path) -> None:
    with loaded(models) as model:
        choice = AdapterChoice("a", 0.5, model.adapters.digest("a"))
        assert model.adapters.use(choice).scale == 0.5
        with pytest.raises(LlamadError) as caught:
            model.adapters.use(replace(choice, digest="0" * 32))
        assert caught.value.reason == "ADAPTER_CHANGED"


def test_a_stored_request_keeps_its_adapter() -> None:
    request = replace(wish("a", 0.25), adapter=AdapterChoice("a", 0.25, "d" * 32))
    assert from_plain(GenerationRequest, to_plain(request)) == request


def test_adapters_are_counted_and_left_out_where_the_model_would_not_fit(models: Path) -> None:
    little = 180 << 20  # in which callers have their least limits, as below it
    with loaded(models, kv_tokens=1024, memory_budget=little) as model:
        sizes = model.adapters.sizes
        assert sizes.max_rank == 9
        assert model.plan.adapters_bytes > sizes.n_bytes > 0
        whole = whole_budget(model.plan, model.info.file_bytes)
    alone = whole - model.plan.adapters_bytes
    with loaded(models, kv_tokens=1024, memory_budget=alone) as model:
        assert model.plan.model_fits
        assert list(model.adapters.loaded) == []
        assert model.adapters.faults["a"].startswith("no room for its ")
        assert model.plan.adapters_bytes == 0


def test_an_adapter_is_no_model(models: Path) -> None:
    registry = ModelRegistry(models)
    assert [file.name for file in registry.adapters()] == ["a", "b", "c"]
    assert registry.resolve("").name == "base"  # the only model
    with pytest.raises(LlamadError) as caught, loaded(models, path="a"):
        pass
    assert "is an adapter (LoRA) of a model, and no model itself" in caught.value.message
