"""Loading a tiny model, and serving jobs with the real engine behind the scheduler."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamad.config import ModelConfig
from llamad.engine.bindings import EngineModel, Locked, StopFlag
from llamad.engine.single_sequence import SingleSequence
from llamad.engine.worker import EngineWorker
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Delta, Finished, FinishReason
from llamad.jobs.request import ChatMessage, GenerationRequest, Tool, ToolUse
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.prompt import encode_prompt
from llamad.service import loading
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous, events_of, finish_of, text_of

CONFIG = ModelConfig(threads=2, ctx_size=256, batch=32, lock=False)
LITTLE_BYTES = 180 << 20  # in which a service has its least limits, whatever budget is below it


@contextmanager
def _loaded(path: Path, config: ModelConfig = CONFIG) -> Iterator[LoadedModel]:
    model = load(replace(config, path=str(path)), StopFlag())
    try:
        yield model
    finally:
        model.close()


@pytest.fixture
def tiny(tiny_model_path: TinyModelPath) -> Path:
    return tiny_model_path(TinySpec())


def test_a_loaded_model_tells_its_sizes(tiny: Path) -> None:
    with _loaded(tiny) as model:
        assert model.name == tiny.stem
        assert (model.n_ctx, model.n_batch, model.n_sequences) == (256, 32, 4)
        assert model.kv_blocks_total * model.kv_block_tokens == 4 * 256
        assert model.vocab_size == model.tokenizer.vocab_size == 300
        assert model.engine_info.n_threads == 2
        assert model.load_seconds > 0


def test_what_was_recommended_counts_for_a_model_of_the_directory_only(tiny: Path) -> None:
    (tiny.parent / f".{tiny.stem}.recommended").write_text('{"temperature": 0.25, "top_k": 20.0}')
    with _loaded(tiny, replace(CONFIG, directory=str(tiny.parent))) as model:
        assert model.recommended_sampling == {"temperature": 0.25, "top_k": 20}
    with _loaded(tiny, replace(CONFIG, directory=str(tiny.parent / "models"))) as model:
        assert model.recommended_sampling == {}


def test_a_long_reading_says_how_far_it_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading goes on until a line of its progress has come."""
    monkeypatch.setattr(loading, "PROGRESS_SECONDS", 0.001)
    told = threading.Event()

    def tell(line: str) -> None:
        if re.fullmatch(r"reading .+, .+ of .+", line):
            told.set()

    class SlowModel(EngineModel):
        def set_residency(self, *args: Any, **options: Any) -> Locked:
            locked = super().set_residency(*args, **options)
            assert told.wait(TIMEOUT_SECONDS)
            return locked

    monkeypatch.setattr(loading, "EngineModel", SlowModel)
    load(replace(CONFIG, path=str(tiny), huge_pages="off"), StopFlag(), tell).close()


@pytest.mark.parametrize(
    ("huge_pages", "phases"), [("off", ["reading"]), ("on", ["copying", "locking"])]
)
def test_the_phases_are_told_in_order(tiny: Path, huge_pages: str, phases: list[str]) -> None:
    lines: list[str] = []
    config = replace(CONFIG, path=str(tiny), lock=True, huge_pages=huge_pages)
    load(config, StopFlag(), lines.append).close()
    assert [line.split()[0] for line in lines] == ["mapping", *phases]


def test_the_context_is_at_most_what_the_model_was_trained_on(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _loaded(tiny, replace(CONFIG, ctx_size=4096)) as model:
        assert model.n_ctx == 512
    assert "ctx_size=4096 n_ctx_train=512" in caplog.text


def test_without_a_configured_context_it_is_what_the_model_was_trained_on(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _loaded(tiny, replace(CONFIG, ctx_size=None)) as model:
        assert (model.n_ctx, model.plan.n_ctx) == (512, 512)
    assert not caplog.records


def test_a_context_that_memory_shortens_is_told(
    tiny_model_path: TinyModelPath, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_model_path(TinySpec(n_ctx_train=4096))
    config = replace(CONFIG, path=str(path), ctx_size=None)
    with _loaded(path, replace(config, memory_budget=LITTLE_BYTES)) as model:
        spare = replace(config, memory_budget=model.plan.planned_bytes - model.plan.kv_bytes)
    kv_bytes_a_token = model.plan.kv_bytes // model.plan.kv_blocks // model.kv_block_tokens
    spare = replace(spare, memory_budget=(spare.memory_budget or 0) + 2000 * kv_bytes_a_token)
    caplog.clear()
    with _loaded(path, spare) as model:
        assert 1792 <= model.n_ctx < 4096
        assert model.plan.model_fits
    assert "context reduced to what memory allows" in caplog.text
    assert f"n_ctx={model.n_ctx} n_ctx_train=4096" in caplog.text


def test_a_configured_cache_bounds_the_context(tiny: Path) -> None:
    with _loaded(tiny, replace(CONFIG, ctx_size=None, kv_tokens=128)) as model:
        assert (model.n_ctx, model.kv_blocks_total) == (128, 4)


def test_no_threads_configured_means_the_cpus_of_the_process(tiny: Path) -> None:
    with _loaded(tiny, replace(CONFIG, threads=0)) as model:
        assert model.engine_info.n_threads >= 1


def test_a_stop_before_the_weights_are_read_ends_loading(tiny: Path) -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(LlamadError) as error:
        load(replace(CONFIG, path=str(tiny)), stop)
    assert error.value.kind is ErrorKind.CANCELLED


def test_a_budget_too_small_for_the_kv_cache_is_refused_before_anything_is_read(
    tiny: Path,
) -> None:
    lines: list[str] = []
    with pytest.raises(LlamadError) as error:
        load(replace(CONFIG, path=str(tiny), memory_budget=1 << 20), StopFlag(), lines.append)
    assert error.value.reason == "OUT_OF_MEMORY"
    assert len(lines) == 1


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(LlamadError) as error:
        load(replace(CONFIG, path=str(path)), StopFlag())
    assert error.value.kind in (ErrorKind.CORRUPT, ErrorKind.STATE)
    assert "broken.gguf" in error.value.message


# ---- the real engine behind the scheduler -----------------------------------------------------


def _wish(i: int, **fields: object) -> GenerationRequest:
    return GenerationRequest(
        prompt=f"request number {i}: " + "the quick brown fox " * (i % 3),
        max_tokens=12,
        sampling=Sampling(seed=i),
        **fields,  # type: ignore[arg-type]
    )


async def _serve(model: LoadedModel, wishes: list[GenerationRequest]) -> list[str]:
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(), Limits())
    loop = asyncio.create_task(scheduler.run())
    jobs = [await scheduler.submit(wish) for wish in wishes]
    texts = await asyncio.gather(*(text_of(job) for job in jobs))
    await scheduler.drain(5.0)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    worker.close()
    return texts


@asynchronous
async def test_seeded_completions_are_the_same_alone_and_in_company(
    tiny_model_path: TinyModelPath,
) -> None:
    path = tiny_model_path(TinySpec(weight_type="Q8_0"))
    wishes = [_wish(i) for i in range(8)]
    with _loaded(path) as model:
        together = await _serve(model, wishes)
        alone = [(await _serve(model, [wish]))[0] for wish in wishes]
    assert together == alone
    assert len(set(together)) > 1


@asynchronous
async def test_a_job_cancelled_in_a_step_frees_its_blocks_and_the_others_finish(
    tiny: Path,
) -> None:
    with _loaded(tiny) as model:
        expected = await _serve(model, [_wish(1)])
        worker = EngineWorker(model.engine)
        book = JobBook()
        scheduler = Scheduler(model, worker, book, Limits())
        loop = asyncio.create_task(scheduler.run())
        assert model.tokenizer.eos_id is not None
        endless = Sampling(seed=2, logit_bias={model.tokenizer.eos_id: -100.0})
        victim = await scheduler.submit(replace(_wish(2), max_tokens=None, sampling=endless))
        other = await scheduler.submit(_wish(1))
        async for snapshot in book.watch(victim.id):
            if snapshot.completion_tokens >= 2:
                book.cancel(victim.id)
        assert (await events_of(victim))[-1].reason is FinishReason.CANCELLED  # type: ignore[union-attr]
        assert await text_of(other) == expected[0]
        await scheduler.drain(5.0)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
        assert scheduler.counts().kv_blocks_free == model.kv_blocks_total


@asynchronous
async def test_a_conversation_is_answered(tiny: Path) -> None:
    wish = GenerationRequest(
        messages=(ChatMessage("user", "hello"),), max_tokens=4, sampling=Sampling(temperature=0)
    )
    with _loaded(tiny) as model:
        worker = EngineWorker(model.engine)
        book = JobBook()
        scheduler = Scheduler(model, worker, book, Limits())
        loop = asyncio.create_task(scheduler.run())
        finished = await finish_of(await scheduler.submit(wish))
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
    assert finished.completion_tokens <= 4
    assert finished.prompt_tokens > 1


LAMP = Tool("lamp", "A lamp", '{"type": "object", "properties": {"room": {"type": "string"}}}')


@asynchronous
async def test_an_answer_that_must_call_is_a_call(tiny_model_path: TinyModelPath) -> None:
    switch = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tools = (LAMP, Tool("switch", "", json.dumps(switch)))
    ask = GenerationRequest(
        messages=(ChatMessage("user", "hello"),),
        tools=tools,
        tool_use=ToolUse.REQUIRED,
        required_tool="switch",
        parallel_tool_calls=False,
        sampling=Sampling(temperature=1.5, seed=3),
        max_tokens=200,
        loop_guard=False,
    )
    path = tiny_model_path(TinySpec(n_ctx_train=1024))
    with _loaded(path, replace(CONFIG, ctx_size=1024)) as model:
        worker = EngineWorker(model.engine)
        scheduler = Scheduler(model, worker, JobBook(), Limits())
        loop = asyncio.create_task(scheduler.run())
        events = await events_of(await scheduler.submit(ask))
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
    deltas = [event for event in events if isinstance(event, Delta)]
    heads = [delta.call for delta in deltas if delta.call is not None]
    assert [head.name for head in heads if head.name] == ["switch"]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.TOOL_CALLS
    assert list(json.loads("".join(d.text for d in deltas if d.call is not None))) == ["on"]


def test_calls_are_looked_for_where_tools_are_offered(
    tiny_model_path: TinyModelPath,
) -> None:
    ask = GenerationRequest(messages=(ChatMessage("user", "hello"),), tools=(LAMP,))
    path = tiny_model_path(TinySpec(n_ctx_train=1024))
    with _loaded(path, replace(CONFIG, ctx_size=1024)) as model:
        prompt = encode_prompt(model, ask).tokens
        assert model.new_call_splitter(ask, prompt) is not None
        for request in (replace(ask, tools=()), replace(ask, tool_use=ToolUse.NONE)):
            shorter = encode_prompt(model, request).tokens
            assert model.new_call_splitter(request, shorter) is None
            assert len(shorter) < len(prompt)


def test_a_model_that_streams_answers_as_one_in_memory(tiny_model_path: TinyModelPath) -> None:
    path = tiny_model_path(TinySpec(dim=512, hidden_dim=2048, vocab_size=4000, n_ctx_train=256))
    prompt = [1, *range(300, 360)]
    told: list[tuple[float, list[bytes]]] = []
    with _loaded(path, replace(CONFIG, memory_budget=LITTLE_BYTES)) as model:
        budgets = (None, model.plan.planned_bytes - model.plan.resident_bytes * 2 // 3)
    for budget in budgets:
        with _loaded(path, replace(CONFIG, memory_budget=budget)) as model:
            assert (model.plan.streamed_bytes > 0) is (budget is not None)
            sequence, rows = SingleSequence(model.engine), []
            for start in range(0, len(prompt), 20):
                sequence.feed(prompt[start : start + 20], 1)
                rows.append(bytes(model.engine.logits(0)))
            told.append((model.step_read_seconds, rows))
    (resident_seconds, resident_rows), (streamed_seconds, streamed_rows) = told
    assert streamed_rows == resident_rows
    assert resident_seconds == 0.0 < streamed_seconds
