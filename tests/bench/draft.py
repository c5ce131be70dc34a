"""How much faster a draft makes answers, on texts that it predicts well and badly.

    PYTHONPATH=tests .venv/bin/python -m bench.draft MODEL [DRAFT] [--memory-budget BYTES]

Without DRAFT it measures the model's own layer that guesses (multi-token prediction).

Loads the model with the draft and without it in turns, as the service does, and lets it answer the
same seeded requests, each for at most --seconds. It fails when a text differs, and reports the
rest; believe the figures of an idle machine only. A pair that is always at hand, of which the large
one streams:

    llamad quantize models/SmolLM2-135M-Instruct.Q4_1.gguf build/smol-f32.gguf F32
    ... -m bench.draft build/smol-f32.gguf models/SmolLM2-135M-Instruct.Q4_1.gguf \\
        --memory-budget 420000000

For each text the tokens a second in each run without and with the draft, the ratio of the medians,
and how many guesses were right. ``random`` is what a draft cannot predict: each token is drawn with
a high temperature.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.engine.worker import EngineWorker
from llamad.jobs.book import JobBook
from llamad.jobs.event import Delta
from llamad.jobs.request import GenerationRequest
from llamad.sampling.parameters import Sampling
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.service.loaded_model import LoadedModel
from llamad.service.loading import load

GREEDY = Sampling(temperature=0.0, seed=1)
TEXTS = {
    "prose": ("The history of the steam engine begins in", GREEDY),
    "list": ("The months of the year are January,", GREEDY),
    "sampled": ("Once upon a time there was a small robot who", Sampling(temperature=0.7, seed=1)),
    "random": ("Words:", Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=1)),
}


@dataclass(slots=True)
class Run:
    """One answer: its text, tokens a second after the first token, and what was guessed."""

    text: str
    tokens_per_second: float
    guessed: int = 0
    accepted: int = 0
    paused: bool = False


async def _answer(
    scheduler: Scheduler,
    prompt: str,
    sampling: Sampling,
    n_tokens: int,
    n_together: int,
    most_seconds: float,
) -> Run:
    before = scheduler.counts().draft
    wish = GenerationRequest(
        prompt=prompt, max_tokens=n_tokens, sampling=sampling, loop_guard=False
    )
    jobs = [await scheduler.submit(wish) for _ in range(n_together)]
    began, n_before, texts = 0.0, 0, [""] * n_together

    async def read(i: int) -> None:
        nonlocal began, n_before
        async for event in jobs[i].stream:
            if isinstance(event, Delta):
                if not began:
                    began = time.monotonic()
                    n_before = sum(job.record.completion_tokens for job in jobs)
                texts[i] += event.text
                if time.monotonic() - began > most_seconds:
                    break
        await jobs[i].stream.aclose()

    await asyncio.gather(*(read(i) for i in range(n_together)))
    seconds = time.monotonic() - began
    n = sum(job.record.completion_tokens for job in jobs) - n_before
    after = scheduler.counts().draft
    run = Run("\0".join(texts), n / seconds if seconds > 0 else 0.0)
    if before is not None and after is not None:
        run.guessed = after.guessed - before.guessed
        run.accepted = after.accepted - before.accepted
        run.paused = after.paused
    return run


async def _runs(
    model: LoadedModel, n_tokens: int, n_together: int, most_seconds: float
) -> dict[str, Run]:
    worker = EngineWorker(model.engine)
    scheduler = Scheduler(model, worker, JobBook(), Limits(speculation=True))
    loop = asyncio.create_task(scheduler.run())
    try:
        await _answer(scheduler, "Warm up:", GREEDY, 4, 1, most_seconds)
        runs = {}
        for name, (prompt, sampling) in TEXTS.items():
            how = sampling, n_tokens, n_together, most_seconds
            runs[name] = await _answer(scheduler, prompt, *how)
            speed = runs[name].tokens_per_second
            kind = "with" if model.draft or model.guess_layer else "without"
            print(f"{name} {kind} the draft: {speed:.2f} tokens/s", file=sys.stderr, flush=True)
        return runs
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        worker.close()


def measure(options: argparse.Namespace, *, helped: bool) -> dict[str, Run]:
    """Load the model, with what guesses or without, and let it answer every text."""
    config = ModelConfig(
        path=str(options.model),
        draft=str(options.draft) if helped and options.draft else "",
        multi_token_prediction=helped,
        threads=options.threads,
        ctx_size=1024,
        n_sequences=4,
        kv_tokens=max(1024, 512 * options.together),
        memory_budget=options.memory_budget,
    )
    model = load(config, StopFlag())
    try:
        guesses = model.guess_layer if options.draft is None else model.draft
        assert (guesses is not None) == helped, model.draft_fault or "no layer guesses"
        return asyncio.run(_runs(model, options.tokens, options.together, options.seconds))
    finally:
        model.close()


def report(alone: Sequence[dict[str, Run]], helped: Sequence[dict[str, Run]]) -> None:
    """Print a line for each text."""
    print(f"{'':8}{'tokens/s without':>26}{'with the draft':>26}{'ratio':>8}{'guesses right':>20}")
    for name in TEXTS:
        without = [run[name].tokens_per_second for run in alone]
        with_draft = [run[name].tokens_per_second for run in helped]
        ratio = statistics.median(with_draft) / statistics.median(without)
        last = helped[-1][name]
        share = 100 * last.accepted / last.guessed if last.guessed else 0
        print(
            f"{name:8}{_row(without):>26}{_row(with_draft):>26}{ratio:>8.2f}"
            f"{f'{last.accepted} of {last.guessed}, {share:.0f} %':>20}"
            + ("  rests" if last.paused else "")
        )


def _check(name: str, helped: str, alone: str) -> None:
    """Compare the texts as far as both came in their time."""
    for one, other in zip(helped.split("\0"), alone.split("\0"), strict=True):
        assert one.startswith(other) or other.startswith(one), f"{name}: another text"


def _row(speeds: Sequence[float]) -> str:
    return " ".join(f"{speed:.2f}" for speed in speeds)


def main() -> None:
    """Measure in turns, compare the texts, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("draft", type=Path, nargs="?")
    parser.add_argument("--memory-budget", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0, help="of an answer at most (20)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--together", type=int, default=1, help="requests at a time (1)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    alone: list[dict[str, Run]] = []
    helped: list[dict[str, Run]] = []
    for _ in range(options.runs):
        alone.append(measure(options, helped=False))
        helped.append(measure(options, helped=True))
        for name in TEXTS:
            _check(name, helped[-1][name].text, alone[0][name].text)
    if options.json:
        for kind, runs in (("without", alone), ("with", helped)):
            for run in runs:
                line = {"draft": kind == "with"} | {name: asdict(one) for name, one in run.items()}
                print(json.dumps(line))
    else:
        report(alone, helped)


if __name__ == "__main__":
    main()
