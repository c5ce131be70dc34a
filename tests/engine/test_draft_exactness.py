"""A draft changes no text: a hundred seeded requests, with drafts that guess well and badly."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from family_models import FAMILY_MODELS
from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.engine.drafting import Guess
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Delta
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.guesser import Guesser
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.speculation import Speculation
from llamad.service.guess_layer import NAME
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load
from tiny_gguf import TinySpec
from unit.schedule.fakes import asynchronous, text_of

N_REQUESTS = 100
SAMPLINGS = (
    Sampling(temperature=0.0, repeat_penalty=1.0),
    Sampling(temperature=0.0, repeat_penalty=1.3, repeat_last_n=16),
    Sampling(temperature=0.3),
    Sampling(temperature=1.0, repeat_penalty=1.2, repeat_last_n=16),
    Sampling(temperature=1.5, top_k=0, min_p=0.02, frequency_penalty=0.5, repeat_last_n=-1),
    Sampling(temperature=0.8, presence_penalty=1.0, top_p=0.7),
)
MODEL = TinySpec(weight_type="Q8_0")
MODELS = {"llama": MODEL} | {  # windows and halves side by side; long RoPE; late queries; no gate
    name: replace(FAMILY_MODELS[name], weight_type="Q8_0", n_ctx_train=512)
    for name in ("cohere2", "phi3-long", "mistral3", "arcee")
}
DRAFTS: Mapping[str, Callable[[TinySpec], TinySpec]] = {  # of a model
    "the model's own weights": lambda model: replace(model, n_ctx_train=511),
    "other weights": lambda model: replace(MODEL, n_layers=1, dim=32, hidden_dim=64, seed=2),
}

TinyModelPath = Callable[[TinySpec], Path]


def _wishes() -> list[GenerationRequest]:
    return [
        GenerationRequest(
            prompt=f"number {i} " + "the quick brown fox " * (3 * i % 7),
            max_tokens=1 + 7 * i % 50,
            stop=("e",) if i % 5 == 4 else (),
            sampling=replace(SAMPLINGS[i % len(SAMPLINGS)], seed=i),
        )
        for i in range(N_REQUESTS)
    ]


async def _texts(model: LoadedModel, cancelled: frozenset[int]) -> tuple[list[str], int, int]:
    """Return the texts, and how many tokens were guessed and accepted.

    Those of ``cancelled`` requests end somewhere: of them only the beginning is looked at.
    """
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(), Limits(queue_capacity=N_REQUESTS))
    jobs = [await scheduler.submit(replace(wish, speculation=True)) for wish in _wishes()]
    loop = asyncio.create_task(scheduler.run())

    async def text(i: int, job: Job) -> str:
        if i not in cancelled:
            return await text_of(job)
        pieces = []
        with suppress(LlamadError):
            async for event in job.stream:
                if isinstance(event, Delta):
                    pieces.append(event.text)
                    if len(pieces) > i % 9:
                        break
            await job.stream.aclose()
        return "".join(pieces)

    try:
        texts = await asyncio.gather(*(text(i, job) for i, job in enumerate(jobs)))
        await scheduler.drain(5.0)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        worker.close()
    counts = scheduler.counts()
    assert counts.kv_blocks_free == model.kv_blocks_total
    if counts.draft is None:
        return texts, 0, 0
    assert counts.draft.fault == ""
    return texts, counts.draft.guessed, counts.draft.accepted


def _load(path: Path, draft: Path | None) -> LoadedModel:
    config = ModelConfig(
        path=str(path), draft="" if draft is None else str(draft), n_sequences=4, ctx_size=512
    )
    return load(config, StopFlag())


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("which", DRAFTS)
def test_a_draft_changes_no_text(
    which: str, family: str, tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a tiny draft costs as much as it saves: let it guess all the same, and always the most
    monkeypatch.setattr("llamad.schedule.draft.Value.least_chance", 0.0)
    monkeypatch.setattr("llamad.schedule.balance.Balance.rests", False)
    monkeypatch.setattr(Speculation, "wants_plain", lambda self, n_decoding: False)
    monkeypatch.setattr("llamad.schedule.draft_model.READ_SHARE", float("inf"))
    spec = MODELS[family]
    cancelled = frozenset(random.Random(7).sample(range(N_REQUESTS), 20))

    async def texts(draft: Path | None) -> tuple[list[str], int, int]:
        model = _load(tiny_model_path(spec), draft)
        try:
            assert (model.draft is None) == (draft is None), model.draft_fault
            return await _texts(model, frozenset() if draft is None else cancelled)
        finally:
            model.close()

    @asynchronous
    async def check() -> None:
        alone, none, _ = await texts(None)
        assert none == 0
        together, guessed, accepted = await texts(tiny_model_path(DRAFTS[which](spec)))
        for i, (text, whole) in enumerate(zip(together, alone, strict=True)):
            assert whole.startswith(text) if i in cancelled else text == whole
        assert len(set(alone)) > N_REQUESTS / 2
        print(f"{which}: {guessed} guesses, {accepted} right")
        assert guessed > 3 * N_REQUESTS  # the texts of some models end early
        assert accepted > 0

    check()


GUESSING = {
    name: replace(FAMILY_MODELS[name], weight_type="Q8_0", n_guess_layers=1)
    for name in ("qwen35", "qwen35moe")
}


class RightGuesses:
    """Makes guesses right, more or less: with the tokens that a run without guesses came to."""

    def __init__(self, patch: pytest.MonkeyPatch, share: float) -> None:
        self._texts: list[list[int]] = []
        self._chance, self._share = random.Random(3), share
        begin, offer = Guesser.__init__, Guesser.offer

        def begun(guesser: Guesser, tokens: Sequence[int]) -> None:
            begin(guesser, tokens)
            self._texts.append(guesser._lookup._tokens)

        def offered(guesser: Guesser, drafted: Guess) -> None:
            offer(guesser, self._righted(guesser._lookup._tokens, drafted))

        patch.setattr(Guesser, "__init__", begun)
        patch.setattr(Guesser, "offer", offered)

    def _righted(self, tokens: Sequence[int], guess: Guess) -> Guess:
        n, known = len(tokens), max(self._texts, key=lambda text: _shared(text, tokens))
        right = known[n : n + len(guess.tokens)]
        if _shared(known, tokens) < n or len(right) < len(guess.tokens):
            return guess
        chosen = [
            mine if self._chance.random() < self._share else theirs
            for mine, theirs in zip(right, guess.tokens, strict=True)
        ]
        return replace(guess, tokens=tuple(chosen))


def _shared(text: Sequence[int], tokens: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, tokens)))


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("family", GUESSING)
def test_the_models_own_layer_changes_no_text(
    family: str, share: float, tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamad.schedule.draft.Value.least_chance", 0.0)
    monkeypatch.setattr("llamad.schedule.balance.Balance.rests", False)
    monkeypatch.setattr(Speculation, "wants_plain", lambda self, n_decoding: False)
    RightGuesses(monkeypatch, share)
    path = tiny_model_path(GUESSING[family])
    cancelled = frozenset(random.Random(7).sample(range(N_REQUESTS), 20))

    async def texts(guesses: bool) -> tuple[list[str], int, int]:
        config = ModelConfig(
            path=str(path), multi_token_prediction=guesses, n_sequences=4, ctx_size=512
        )
        model = load(config, StopFlag())
        try:
            assert (model.guess_layer is not None) == guesses
            assert (model.draft_name, model.draft_fault) == (NAME if guesses else "", "")
            return await _texts(model, cancelled if guesses else frozenset())
        finally:
            model.close()

    @asynchronous
    async def check() -> None:
        alone, none, _ = await texts(False)
        assert none == 0
        together, guessed, accepted = await texts(True)
        for i, (text, whole) in enumerate(zip(together, alone, strict=True)):
            assert whole.startswith(text) if i in cancelled else text == whole
        print(f"{family}, {share}: {guessed} guesses, {accepted} right")
        assert guessed > 3 * N_REQUESTS
        assert accepted >= share**4 * guessed * 0.8

    check()


def test_the_draft_has_local_blocks_for_windows_and_not_for_all_blocks(
    tiny_model_path: TinyModelPath,
) -> None:
    spec = replace(FAMILY_MODELS["gemma3"], n_ctx_train=2048)
    path, draft = (tiny_model_path(replace(spec, n_ctx_train=n)) for n in (2048, 2047))
    config = ModelConfig(path=str(path), draft=str(draft), n_sequences=2, ctx_size=2048)
    model = load(config, StopFlag())
    try:
        assert model.draft is not None, model.draft_fault
        info = model.draft.engine.info
        assert (info.kv_blocks_total, info.kv_local_blocks_total) == (128, 2 * (2 + 1) + 2)
        assert model.plan.draft_local_blocks == info.kv_local_blocks_total
        in_cache = info.kv_bytes + info.scratch_bytes + model.draft.model.info.file_bytes
        assert 0 <= model.plan.draft_bytes - in_cache < 1 << 20  # a sampler
    finally:
        model.close()


def test_a_draft_with_the_same_weights_is_always_right(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamad.schedule.draft.Value.least_chance", 0.0)
    monkeypatch.setattr("llamad.schedule.balance.Balance.rests", False)
    monkeypatch.setattr(Speculation, "wants_plain", lambda self, n_decoding: False)
    monkeypatch.setattr("llamad.schedule.draft_model.READ_SHARE", float("inf"))
    monkeypatch.setattr(f"{__name__}.SAMPLINGS", SAMPLINGS[:1])  # always the likeliest token
    path, draft = tiny_model_path(MODEL), tiny_model_path(replace(MODEL, n_ctx_train=511))
    config = ModelConfig(path=str(path), draft=str(draft), kv_type="q8_0", ctx_size=512)
    model = load(config, StopFlag())

    @asynchronous
    async def check() -> None:
        _, guessed, accepted = await _texts(model, frozenset())
        assert guessed == accepted > 500

    try:
        check()
    finally:
        model.close()
