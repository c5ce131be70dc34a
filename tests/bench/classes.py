"""How long an interactive request waits beside eight batch jobs, and what those lose by it.

    python tests/bench/classes.py MODEL [--rounds 3] [--seconds 30] [--sequences 4]

Phases alternate: eight clients with batch jobs alone, then the same with an interactive request
second. Before them the interactive request runs alone. Printed are the times to the first token
alone and beside the batch, the lengths of the batch's steps, and its tokens a second as a share of
what is left beside the interactive requests' own work. Steps are not alike: one that checks guesses
or reads a new job's prompt takes two to three times as long as one of four rows, and an interactive
request waits for the one that runs. Run it on an idle machine.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from clients.daemon_process import daemon
from llamad_client import AsyncClient, Refused, TextDelta
from load.check import percentile, settled

N_BATCH = 8
EVERY_SECONDS = 1.0
QUESTION = "Which lamp is on in the kitchen, and since when? Answer in one sentence."
ANSWER_TOKENS = 16
STORY = "Write a long story about a house by the sea, part {}."


@dataclass(slots=True)
class Phase:
    """What one phase measured. Seconds and tokens."""

    seconds: float = 0.0
    batch_tokens: int = 0
    step_seconds: list[float] = field(default_factory=list)  # between events of one batch job
    first_token: list[float] = field(default_factory=list)  # of interactive requests
    interactive_seconds: list[float] = field(default_factory=list)


async def interactive(client: AsyncClient) -> tuple[float, float]:
    """Ask; return the seconds to the first token and to the end."""
    began, first = time.monotonic(), 0.0
    completion = client.chat(
        [{"role": "user", "content": f"{QUESTION} {time.monotonic_ns()}"}],
        max_tokens=ANSWER_TOKENS,
        temperature=0.0,
        priority="interactive",
    )
    async for event in completion.events():
        if isinstance(event, TextDelta) and not first:
            first = time.monotonic() - began
    return first, time.monotonic() - began


async def batch(client: AsyncClient, number: int, phase: Phase, until: float) -> None:
    """Let one batch job after the other run until the time is over; count what comes until then."""
    while time.monotonic() < until:
        completion = client.generate(
            STORY.format(number), max_tokens=400, seed=number, priority="batch"
        )
        tokens, last = 0, 0.0
        try:
            async with completion:
                async for event in completion.events():
                    now = time.monotonic()
                    if now >= until:
                        break
                    if isinstance(event, TextDelta):
                        phase.batch_tokens += event.tokens - tokens
                        if tokens:
                            phase.step_seconds.append(now - last)
                        tokens, last = event.tokens, now
        except Refused:
            await asyncio.sleep(0.5)


async def run_phase(socket: Path, seconds: float, *, with_interactive: bool) -> Phase:
    """Run eight batch clients, and interactive requests beside them."""
    phase = Phase(seconds)
    until = time.monotonic() + seconds
    async with AsyncClient(socket) as client, asyncio.TaskGroup() as group:
        for number in range(N_BATCH):
            group.create_task(batch(client, number, phase, until))
        while with_interactive and time.monotonic() + EVERY_SECONDS < until:
            await asyncio.sleep(EVERY_SECONDS)
            first, whole = await interactive(client)
            phase.first_token.append(first)
            phase.interactive_seconds.append(whole)
    await settled(socket)
    return phase


async def measure(socket: Path, rounds: int, seconds: float) -> None:
    """Run the phases and print what they measured."""
    async with AsyncClient(socket) as client:
        await interactive(client)  # warm
        solo = [await interactive(client) for _ in range(10)]
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(await run_phase(socket, seconds, with_interactive=False))
        beside.append(await run_phase(socket, seconds, with_interactive=True))
    first = statistics.median(first for first, _ in solo)
    whole = statistics.median(whole for _, whole in solo)
    waits = [value for phase in beside for value in phase.first_token]
    steps = [value for phase in alone for value in phase.step_seconds]
    step, long_step = statistics.median(steps), percentile(steps, 0.95)
    rate = statistics.median(phase.batch_tokens / phase.seconds for phase in alone)
    rate_beside = statistics.median(phase.batch_tokens / phase.seconds for phase in beside)
    work = statistics.median(len(phase.first_token) * whole / phase.seconds for phase in beside)
    p50, p95 = percentile(waits, 0.5), percentile(waits, 0.95)
    print(f"first token alone: median {1000 * first:.0f} ms")
    print(f"beside {N_BATCH} batch jobs: median {1000 * p50:.0f}, p95 {1000 * p95:.0f} ms")
    print(
        f"a step of the batch: median {1000 * step:.1f}, p95 {1000 * long_step:.1f} ms; the wait"
        f" beside it is longer by {(p50 - first) / step:.1f} median steps (median),"
        f" {(p95 - first) / step:.1f} (p95)"
    )
    print(
        f"batch: {rate:.1f} tokens/s alone, {rate_beside:.1f} beside interactive requests,"
        f" which take {100 * work:.0f} % of the time alone:"
        f" {rate_beside / (rate * (1 - work)):.2f} of what is left"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--sequences", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        configuration = Path(name) / "llamad.toml"
        configuration.write_text(
            f"[model]\nn_sequences = {arguments.sequences}\n", encoding="utf-8"
        )
        flags = ["--config", os.fspath(configuration), "--model", os.fspath(arguments.model)]
        with daemon(Path(name), *flags) as service:
            service.wait_until_ready()
            asyncio.run(measure(service.socket, arguments.rounds, arguments.seconds))
            service.stop()


if __name__ == "__main__":
    main()
