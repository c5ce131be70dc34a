"""Thirty seeded generations, as they were recorded before the second edition of the house.

Texts, lengths and finish reasons are those of llamad b8a1154; a difference is a change of results,
whatever caused it: tokenizer, template, arithmetic, sampling or the composition of steps.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamad.config import ModelConfig
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.jobs.book import JobBook
from llamad.jobs.event import Finished
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.service.loading import load
from tiny_gguf import TinySpec
from unit.schedule.fakes import asynchronous, events_of, text_in

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
RECORDED = json.loads((Path(__file__).parent / "golden" / "seeded_generations.json").read_text())
GROUPS: dict[str, list[dict[str, Any]]] = {}  # by model and KV type
for _run in RECORDED:
    GROUPS.setdefault(json.dumps([_run["model"], _run["kv_type"]]), []).append(_run)


def _request(run: dict[str, Any]) -> GenerationRequest:
    return GenerationRequest(
        prompt=run["prompt"] if run["raw"] else None,
        messages=() if run["raw"] else (ChatMessage("user", run["prompt"]),),
        max_tokens=run["max_tokens"],
        sampling=Sampling(seed=run["seed"], **run["sampling"]),
    )


@pytest.mark.parametrize("group", GROUPS)
def test_a_seeded_generation_is_the_recorded_one(
    group: str, tiny_model_path: Callable[[TinySpec], Path]
) -> None:
    @asynchronous
    async def check() -> None:
        spec, kv_type = json.loads(group)
        path = DEMO if spec == "demo" else tiny_model_path(TinySpec(**spec))
        config = ModelConfig(path=str(path), kv_type=kv_type, ctx_size=512, threads=2)
        model = load(config, bindings.StopFlag())
        worker = EngineWorker(model.engine)
        scheduler = Scheduler(model, worker, JobBook(), Limits(speculation=True))
        loop = asyncio.create_task(scheduler.run())
        try:
            jobs = [await scheduler.submit(_request(run)) for run in GROUPS[group]]
            for run, job in zip(GROUPS[group], jobs, strict=True):
                events = await events_of(job)
                last = events[-1]
                assert isinstance(last, Finished)
                assert text_in(events) == run["text"]
                assert last.reason.value == run["finish_reason"]
                assert last.completion_tokens == run["completion_tokens"]
                assert last.prompt_tokens == run["prompt_tokens"]
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            worker.close()
            model.close()

    check()
