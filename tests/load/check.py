"""What ``make load`` asserts of the whole service under load, and the figures that it prints.

64 clients for two minutes on the demo model: mixed classes and lengths, cancels, disconnects,
deadlines. Every answer equals the one that its request has alone, every error is one that is
documented for what the client did, memory does not grow in the second half, and at the end no job
and no block is held. Times are printed, never asserted.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from clients.daemon_process import daemon
from llamad_client import AsyncClient, Status
from load.client import LoadClient, Seen
from load.workload import CLASSES, Asked, requests

N_CLIENTS = 64
MOST_GROWTH_BYTES = 5 << 20  # of anonymous memory, in the second half
SAMPLE_SECONDS = 1.0
CACHE_TOKENS = 8192  # few enough that all blocks are in use before the second half
CAPACITY = 48  # fewer than the clients, so that some are refused
CONFIGURATION = f"""\
[model]
kv_tokens = {CACHE_TOKENS}
[queue]
capacity = {CAPACITY}
"""


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory of a process that is no file's."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


async def alone(socket: Path) -> dict[Asked, str]:
    """Return the answer of every request, computed with nothing beside it."""
    async with AsyncClient(socket) as client:
        return {asked: await asked.ask(client, "normal").text() for asked in requests()}


async def load(
    socket: Path, pid: int, answers: Mapping[Asked, str], seconds: float, seen: Seen
) -> list[int]:
    """Let the clients ask; return the service's memory, sampled."""
    until = time.monotonic() + seconds
    memory: list[int] = []

    async def sample() -> None:
        while time.monotonic() < until:
            memory.append(anonymous_bytes(pid))
            await asyncio.sleep(SAMPLE_SECONDS)

    async with asyncio.TaskGroup() as group:
        group.create_task(sample())
        for seed in range(N_CLIENTS):
            group.create_task(LoadClient(socket, answers, seen, seed).run(until))
    return memory


async def settled(socket: Path) -> Status:
    """Return the status once no job is left; the service hears of the last end in its own time."""
    async with AsyncClient(socket) as client:
        while True:
            status = await client.status()
            if not status.jobs_queued + status.jobs_running:
                return status
            await asyncio.sleep(0.1)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies; not a number for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def report(seen: Seen, memory: Sequence[int], status: Status) -> list[str]:
    """Print the figures; return what is wrong."""
    print("ended:", ", ".join(f"{n} {how}" for how, n in seen.ended.most_common()))
    for name in CLASSES:
        times = seen.first_token[name]
        shown = " ".join(f"p{int(100 * s)} {percentile(times, s):.2f} s" for s in (0.5, 0.95, 0.99))
        print(f"first token, {name}: {shown} ({len(times)} answers)")
    second_half = memory[len(memory) // 2 :]
    growth = max(second_half) - second_half[0]
    print(
        f"memory: {memory[0] >> 20} MiB at first, {max(memory) >> 20} at most,"
        f" {growth / 2**20:.1f} MiB more in the second half"
    )
    print(f"blocks: {status.kv_blocks_free} of {status.kv_blocks_total} free at the end")
    wrong = list(seen.wrong)
    if growth > MOST_GROWTH_BYTES:
        wrong.append(f"memory grew by {growth} bytes in the second half, {MOST_GROWTH_BYTES} may")
    if status.kv_blocks_free != status.kv_blocks_total:
        wrong.append("blocks are held by nobody")
    if not all(seen.first_token[name] for name in CLASSES):
        wrong.append("a class got no answer")
    return wrong


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="The whole service under load.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configuration = folder / "llamad.toml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        flags = ["--config", os.fspath(configuration), "--model", os.fspath(arguments.model)]
        with daemon(folder, *flags) as service:
            service.wait_until_ready()
            answers = asyncio.run(alone(service.socket))
            seen = Seen()
            memory = asyncio.run(
                load(service.socket, service.process.pid, answers, arguments.seconds, seen)
            )
            status = asyncio.run(settled(service.socket))
            wrong = report(seen, memory, status)
            if code := service.stop():
                wrong.append(f"the service ended with {code}")
            log = service.log.read_text(encoding="utf-8").splitlines()
            wrong += [f"the service logged {line}" for line in log if " ERROR " in line]
    for line in wrong[:20]:
        print(f"load: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
