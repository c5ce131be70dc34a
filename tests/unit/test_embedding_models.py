"""Vectors by the real engine behind the scheduler, alone and in company, against numpy."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Embedded
from llamad.jobs.request import Embedding, GenerationRequest, Pooling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from reference.encoder import encode
from tiny_encoder import TinyEncoder
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import asynchronous, events_of

CONFIG = ModelConfig(threads=2, batch=32, lock=False)
TEXTS = ("hello", "unaffable, hello!", "hello " * 60, "a b able")


def loaded(path: Path) -> LoadedModel:
    return load(replace(CONFIG, path=str(path)), StopFlag())


async def vectors(
    path: Path, texts: Sequence[str], *, together: bool, pooling: Pooling | None = None
) -> list[NDArray[np.float32]]:
    """Return the vectors of texts, submitted one after the other or all at once."""
    model = loaded(path)
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(10), Limits())
    task = asyncio.create_task(scheduler.run())
    try:
        jobs, found = [], []
        for text in texts:
            request = GenerationRequest(prompt=text, embedding=Embedding(pooling))
            jobs.append(await scheduler.submit(request))
            if not together:
                found.append(await events_of(jobs[-1]))
        found = [await events_of(job) for job in jobs] if together else found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        worker.close()
        model.close()
    return [np.array(e.vector) for events in found for e in events if isinstance(e, Embedded)]


@pytest.mark.parametrize("pooling", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["bert", "nomic-bert"])
@asynchronous
async def test_a_vector_is_pooled_as_the_file_says(
    tmp_path: Path, architecture: str, pooling: int
) -> None:
    path = TinyEncoder(architecture, pooling=pooling).write(tmp_path / "encoder.gguf")
    model = loaded(path)
    ids = [model.tokenizer.encode(text) for text in TEXTS]
    model.close()
    for tokens, vector in zip(ids, await vectors(path, TEXTS, together=True), strict=True):
        rows = encode(path, tokens)
        wanted = {1: rows.mean(axis=0), 2: rows[0], 3: rows[-1]}[pooling]
        wanted /= np.linalg.norm(wanted)
        assert float(vector @ wanted) > 0.99999
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)


@asynchronous
async def test_company_changes_no_bit(tmp_path: Path, tiny_model_path: TinyModelPath) -> None:
    encoder = TinyEncoder(weight_type="Q8_0").write(tmp_path / "encoder.gguf")
    for path, pooling in ((encoder, None), (tiny_model_path(TinySpec()), Pooling.MEAN)):
        alone = await vectors(path, TEXTS, together=False, pooling=pooling)
        company = await vectors(path, TEXTS, together=True, pooling=pooling)
        assert [v.tobytes() for v in alone] == [v.tobytes() for v in company]


@asynchronous
async def test_a_model_of_answers_makes_vectors_only_when_it_is_told_how(
    tiny_model_path: TinyModelPath,
) -> None:
    with pytest.raises(LlamadError, match="has no pooling_type"):
        await vectors(tiny_model_path(TinySpec()), ["a"], together=False)


def test_an_encoder_has_room_for_whole_texts_in_a_step(tmp_path: Path) -> None:
    model = loaded(TinyEncoder(n_ctx=300).write(tmp_path / "encoder.gguf"))
    assert (model.n_ctx, model.n_batch) == (300, 300)
    model.close()
