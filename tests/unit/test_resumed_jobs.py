"""A durable job whose service is killed goes on with the text it would have had, in any KV cache.

The engine, the scheduler and the store are the real ones; what ``kill -9`` leaves is a copy of the
state directory, made while the job is held between two steps. The same with whole processes on the
demo model: ``make crash``.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from family_models import FAMILY_MODELS
from llamad.config import JobsConfig, ModelConfig
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.step import Part
from llamad.service.durable_jobs import DurableJobs
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.service.model_facts import facts_of
from llamad.service.state import ServiceState, Serving
from llamad.service.state_directory import StateDirectory
from tiny_gguf import TinySpec
from unit.schedule.fakes import asynchronous, text_in

N_TOKENS = 40
KILLED_AFTER = (1, 20)  # tokens of the answer that is farthest
UNTIED = {"weight_type": "Q8_0", "n_ctx_train": 512, "tied_output": False}
SPECS = {
    "plain": TinySpec(weight_type="Q8_0"),
    "windowed": TinySpec(architecture="gemma3", n_layers=7, window=40, weight_type="Q8_0"),
    **{
        name: replace(FAMILY_MODELS[family], **UNTIED)  # type: ignore[arg-type]
        for name, family in (("hybrid", "qwen35"), ("hybrid mixture", "lfm2moe"))
    },
}
WISHES = [
    GenerationRequest(
        prompt="the quick brown fox " * 4 * (i + 1),
        max_tokens=N_TOKENS,
        sampling=Sampling(temperature=temperature, repeat_penalty=1.3, seed=i),
    )
    for i, temperature in enumerate((0.0, 1.5))
]


def _answer(job: Job) -> list[int]:
    return job.tokens[len(job.record.prompt_tokens) :]


class Held(Scheduler):
    """Computes until a job has so many tokens, then nothing until it is cancelled."""

    most_tokens = N_TOKENS
    held: asyncio.Event

    async def _compute(self, step: Sequence[Part]) -> tuple[tuple[int, ...] | LlamadError, ...]:
        if max(len(_answer(generation.job)) for generation, _ in step) >= self.most_tokens:
            self.held.set()
            await asyncio.Event().wait()
        return await super()._compute(step)


@asynccontextmanager
async def _living(
    model: LoadedModel, state: Path, most_tokens: int = N_TOKENS
) -> AsyncIterator[tuple[Held, DurableJobs]]:
    """Run the service's part that computes jobs, until one has so many tokens."""
    directory, service, book = StateDirectory(state), ServiceState(), JobBook()
    directory.open()
    worker = EngineWorker(model.engine)
    scheduler = Held(model, worker, book, Limits())
    scheduler.most_tokens, scheduler.held = most_tokens, asyncio.Event()
    serving = Serving(scheduler, model.tokenizer, facts_of(model), cast(Any, None), cast(Any, None))
    service.ready(serving)
    jobs = DurableJobs(directory, service, book, JobsConfig(), service_failed=lambda path: False)
    await jobs.open()
    loop = asyncio.create_task(scheduler.run())
    try:
        yield scheduler, jobs
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await jobs.close()
        directory.close()
        worker.close()


async def _submitted(jobs: DurableJobs) -> list[str]:
    return [(await jobs.submit(wish, key="", request_digest=""))[0].id for wish in WISHES]


async def _texts(jobs: DurableJobs, ids: Sequence[str]) -> list[str]:
    texts = []
    for job_id in ids:
        reader = await jobs.resume(job_id, 0, wait=True, allow=lambda job: None)
        texts.append(text_in([event async for event in reader]))
        await reader.aclose()
    return texts


@pytest.mark.parametrize(
    ("family", "kv_type"),
    [("plain", "f16"), ("windowed", "q8_0"), *((family, "q4_0") for family in SPECS)],
)
def test_a_job_goes_on_behind_a_kill_with_the_text_of_one_that_was_not_killed(
    tiny_model_path: Callable[[TinySpec], Path], tmp_path: Path, family: str, kv_type: str
) -> None:
    path = tiny_model_path(SPECS[family])
    config = ModelConfig(path=str(path), kv_type=kv_type, n_sequences=2, ctx_size=512)

    for name in ("whole", *map(str, KILLED_AFTER)):
        (tmp_path / name).mkdir()

    @asynchronous
    async def check() -> None:
        model = load(config, bindings.StopFlag())
        try:
            async with _living(model, tmp_path / "whole") as (_, jobs):
                expected = await _texts(jobs, await _submitted(jobs))
            assert len(set(expected)) == len(WISHES)
            for n_tokens in KILLED_AFTER:
                ids = await _killed(model, tmp_path / str(n_tokens), n_tokens)
                async with _living(model, tmp_path / f"{n_tokens}-left") as (_, jobs):
                    there = [len(_answer(entry.job)) for entry in jobs._entries.values()]
                    assert 0 < max(there) <= n_tokens
                    assert await _texts(jobs, ids) == expected
        finally:
            model.close()

    check()


async def _killed(model: LoadedModel, state: Path, n_tokens: int) -> list[str]:
    """Compute a part of the jobs; return their ids, and what is stored in a folder ``-left``."""
    async with _living(model, state, n_tokens) as (scheduler, jobs):
        ids = await _submitted(jobs)
        await scheduler.held.wait()
        assert await jobs._save()
        shutil.copytree(state, f"{state}-left")
    return ids
