"""What is saved is used after a restart, with the same text; what is damaged is computed again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from family_models import FAMILY_MODELS
from llamad.config import Config, ModelConfig, PrefixCacheConfig
from llamad.engine import bindings
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Finished
from llamad.jobs.request import ChatMessage, GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.prompt import system_tokens
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from llamad.service.prefix_setup import prefixes_of
from llamad.service.prefixes import KeptPrefix, Prefixes
from llamad.service.state_directory import StateDirectory
from tiny_gguf import TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous, events_of, text_in

PROMPT = "the list of all devices: " + "a lamp in a room, " * 8


FOUR_BITS = "a window and a 4-bit cache"
SPECS = {
    "without windows": TinySpec(),
    FOUR_BITS: TinySpec(architecture="gemma3", n_layers=7, window=40),
    "a window of a block and a part": TinySpec(architecture="gemma3", n_layers=7, window=40),
    "states smaller than a block": FAMILY_MODELS["lfm2"],
    "states larger than a block": FAMILY_MODELS["granitehybrid"],
    "states and empty blocks": FAMILY_MODELS["mamba2"],
}


@pytest.fixture(params=SPECS)
def model(
    tiny_model_path: Callable[[TinySpec], Path], request: pytest.FixtureRequest
) -> Iterator[LoadedModel]:
    """A tiny model; each scheduler over it has blocks that hold nothing of the one before."""
    path = tiny_model_path(SPECS[request.param])
    kv_type = "q4_0" if request.param == FOUR_BITS else "f16"
    config = ModelConfig(path=str(path), n_sequences=2, ctx_size=512, kv_type=kv_type)
    loaded = load(config, bindings.StopFlag())
    yield loaded
    loaded.close()


class Run:
    """The service's part that answers, from a start to a stop."""

    def __init__(self, scheduler: Scheduler, prefixes: Prefixes) -> None:
        self.scheduler = scheduler
        self.prefixes = prefixes

    async def ask(self, prompt: str, **fields: object) -> tuple[str, int]:
        """Return the answer, and how many tokens of the prompt were cached."""
        wish = GenerationRequest(
            prompt=prompt,
            max_tokens=12,
            sampling=Sampling(seed=3),
            owner_uid=0,
            **fields,  # type: ignore[arg-type]
        )
        events = await events_of(await self.scheduler.submit(wish))
        assert isinstance(events[-1], Finished)
        return text_in(events), events[-1].cached_prompt_tokens

    async def saved(self, name: str) -> None:
        """Wait until something of a prefix is on the disk."""
        while True:
            kept = (await self.listed()).get(name)
            if kept is not None and kept.bytes_on_disk:
                return
            await asyncio.sleep(0.01)

    async def listed(self) -> dict[str, KeptPrefix]:
        return {kept.name: kept for kept in await self.prefixes.list("root")}


def _opened(state: Path) -> StateDirectory:
    state.mkdir(exist_ok=True)
    directory = StateDirectory(state)
    directory.open()
    return directory


@asynccontextmanager
async def _running(
    model: LoadedModel, state: Path, config: Config | None = None
) -> AsyncIterator[Run]:
    directory = _opened(state)
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(), Limits())
    prefixes = prefixes_of(model, scheduler, worker, directory, config or Config())
    await prefixes.open()
    tasks = [asyncio.create_task(scheduler.run()), asyncio.create_task(prefixes.run())]
    try:
        yield Run(scheduler, prefixes)
        await scheduler.drain(TIMEOUT_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        worker.close()
        directory.close()
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    counts = scheduler.counts()
    assert counts.kv_blocks_free == counts.kv_blocks_total


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the disk tells of nothing
        await asyncio.sleep(0.01)


def _pins(state: Path) -> list[Path]:
    return sorted(state.glob("prefixes/*/*.pin"))


def _files(state: Path) -> list[Path]:
    return sorted(state.glob("prefixes/*/*.kv"))


@asynchronous
async def _twice_then_again(model: LoadedModel, state: Path) -> None:
    async with _running(model, state) as run:
        first = await run.ask(PROMPT)
        assert (await run.listed(), _files(state)) == ({}, [])  # once is not enough
        again = await run.ask(PROMPT)
        n_shared = again[1] // 32
        assert (first[0], first[1]) == (again[0], 0)
        assert n_shared > 2
        await _until(lambda: len(_files(state)) >= n_shared)
    async with _running(model, state) as run:
        assert await run.ask(PROMPT) == again
        disk = run.prefixes.disk_bytes()
        assert disk["bytes_read"] >= n_shared * 1000
        assert disk["bytes_written"] == 0
        kept = (await run.listed())[""]
        assert (kept.tokens, kept.for_everybody) == (again[1], False)
    # every file damaged in another way
    files = _files(state)
    for i, path in enumerate(files):
        data = bytearray(path.read_bytes())
        if i % 3 == 0:
            data[(997 * i) % len(data)] ^= 1
        elif i % 3 == 1:
            data = data[:-1]
        else:
            data = bytearray()
        path.write_bytes(data)
    async with _running(model, state) as run:
        assert await run.ask(PROMPT) == (first[0], 0)
        assert files[0] not in _files(state) or len(_files(state)) < len(files)


def test_a_prefix_that_was_used_twice_is_there_after_a_restart(
    model: LoadedModel, tmp_path: Path
) -> None:
    _twice_then_again(model, tmp_path / "state")


@asynchronous
async def _pinned(model: LoadedModel, state: Path) -> None:
    system = "You are the house. " * 8
    chat = (ChatMessage("system", system), ChatMessage("user", "what is on?"))
    tokens = system_tokens(model, [{"role": "system", "content": system}], {})
    wish = GenerationRequest(
        messages=chat, max_tokens=4, sampling=Sampling(seed=1), owner_uid=12345
    )

    async def cached(run: Run) -> int:
        last = (await events_of(await run.scheduler.submit(wish)))[-1]
        assert isinstance(last, Finished)
        return last.cached_prompt_tokens

    async with _running(model, state) as run:
        pin = run.prefixes.new_pin("house", tokens)
        async for _ in run.prefixes.compute(pin, owner_uid=0):
            pass
        assert await run.prefixes.keep(pin) > 0
        assert await cached(run) == len(pin.tokens) == len(tokens) // 32 * 32
        with pytest.raises(LlamadError, match="at least 32"):
            run.prefixes.new_pin("short", tokens[:31])
    async with _running(model, state) as run:
        assert await cached(run) == len(pin.tokens)
        kept = (await run.listed())["house"]
        assert (kept.uses, kept.for_everybody, kept.in_memory) == (1, True, True)
        assert await run.prefixes.remove("house") == kept.bytes_on_disk
        assert await run.listed() == {}
        with pytest.raises(LlamadError, match="no prefix 'house'"):
            await run.prefixes.remove("house")
    assert _files(state) == _pins(state) == []


def test_a_pinned_prefix_is_for_everybody_until_it_is_removed(
    model: LoadedModel, tmp_path: Path
) -> None:
    _pinned(model, tmp_path / "state")


@asynchronous
async def _pin_of_a_request(model: LoadedModel, state: Path) -> None:
    async with _running(model, state) as run:
        await run.ask(PROMPT, pin="mine")
        await run.saved("mine")
    async with _running(model, state) as run:
        assert (await run.ask(PROMPT))[1] == (await run.listed())["mine"].tokens
        assert await run.prefixes.list("somebody") == []


def test_a_request_pins_its_prompt_for_its_owner(model: LoadedModel, tmp_path: Path) -> None:
    _pin_of_a_request(model, tmp_path / "state")


@asynchronous
async def _configured(model: LoadedModel, state: Path) -> None:
    config = Config(prefixes={"house": {"prompt": PROMPT}})
    async with _running(model, state, config) as run:
        await run.saved("house")
        assert (await run.ask(PROMPT))[1] > 0
        with pytest.raises(LlamadError, match="is configured"):
            await run.prefixes.remove("house")
    async with _running(model, state, config) as run:
        assert (await run.ask(PROMPT))[1] > 0
        assert run.prefixes.disk_bytes()["bytes_written"] == 0
    async with _running(model, state) as run:
        await _until(lambda: not _files(state))
        assert await run.listed() == {}


def test_a_configured_prefix_is_kept_as_long_as_it_is_configured(
    model: LoadedModel, tmp_path: Path
) -> None:
    _configured(model, tmp_path / "state")


@asynchronous
async def _without_a_disk(model: LoadedModel, state: Path, config: Config) -> None:
    async with _running(model, state, config) as run:
        first, again = await run.ask(PROMPT), await run.ask(PROMPT)
        assert (first[0], first[1]) == (again[0], 0)
        assert again[1] > 0
        pin = run.prefixes.new_pin("house", model.tokenizer.encode(PROMPT))
        async for _ in run.prefixes.compute(pin, owner_uid=0):
            pass
        assert await run.prefixes.keep(pin) == 0
        assert "house" in await run.listed()
    assert _files(state) == []


@pytest.mark.parametrize("bound", ["max_bytes", "write_bytes_per_day"])
def test_without_room_on_the_disk_everything_but_saving_goes_on(
    model: LoadedModel, tmp_path: Path, bound: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(prefix_cache=PrefixCacheConfig(**{bound: 100}))  # less than an empty block
    _without_a_disk(model, tmp_path / "state", config)
    assert f"prefix_cache.{bound}" in caplog.text


def test_a_state_directory_of_somebody_else_costs_saving_only(
    model: LoadedModel, tmp_path: Path
) -> None:
    first = StateDirectory(tmp_path)
    first.open()
    try:
        _without_a_disk(model, tmp_path, Config())
    finally:
        first.close()
