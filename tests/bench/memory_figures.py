"""Figures of a large model in little memory, for documentation. Root; asserts nothing.

    PYTHONPATH=tests python tests/bench/memory_figures.py MODEL [--memory 3.2e9] [--enough 5e9]

Loads where everything fits, in turn with plain reads of the same file past the page cache. Decodes
with the disk as it is and as slow as a card and a USB disk, in a control group, each time from a
cold file. "limit" is max(bytes / speed of the disk, seconds of the same token in enough memory):
what perfect overlapping would reach. Run it alone: it times.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from memory.limited import limited, make_cold, run
from memory.serving import served

DISKS = {"as it is": 0, "350 MB/s": 350_000_000, "40 MB/s": 40_000_000}
ROUNDS = 5  # of a plain read and a load, which are compared by their medians
TOKENS = {"as it is": 8, "350 MB/s": 6, "40 MB/s": 3}


def bench(model: Path, memory: int, disk: int, tokens: int, prompt: int) -> dict[str, Any]:
    """Return what ``llamad bench`` measured in a control group."""
    make_cold(model)
    with limited(memory, model, disk) as group:
        command = [sys.executable, "-m", "llamad", "bench", str(model), "--json"]
        command += ["-p", str(prompt), "-n", str(tokens), "--huge-pages", "off"]
        result = dict(json.loads(run(command, group, seconds=3600)))
        result["peak_bytes"] = group.peak_bytes()
        return result


def sequential_speed(model: Path) -> float:
    """Return the bytes per second of reading the whole file in order, past the page cache."""
    make_cold(model)
    start = time.perf_counter()
    run(["dd", f"if={model}", "of=/dev/null", "bs=4M", "iflag=direct"])
    return model.stat().st_size / (time.perf_counter() - start)


def print_enough(model: Path, memory: int) -> float:
    """Print what it does where everything fits; return the seconds of a token."""
    speeds, results = [], []
    for _ in range(ROUNDS):
        speeds.append(sequential_speed(model))
        results.append(bench(model, memory, 0, 8, 256))
    rates = [result["model_bytes"] / result["load_seconds"] for result in results]
    speed, rate = median(speeds), median(rates)
    seconds = median(1 / float(result["decode_tokens_per_second"]) for result in results)
    read = max(float(result["bytes_read_per_token"]) for result in results)
    print(f"in {memory / 1e9:.1f} GB: {seconds:.2f} s a token, {read:.0f} bytes read for each")
    print(f"the disk reads in order   {_rates(speeds)}")
    print(
        f"loading reads and locks   {_rates(rates)}, {100 * rate / speed:.0f} % of it", flush=True
    )
    return seconds


def _rates(rates: list[float]) -> str:
    low, middle, high = (f"{value / 1e6:.0f}" for value in (min(rates), median(rates), max(rates)))
    return f"{middle} MB/s (of {len(rates)}: {low} to {high})"


def print_streaming(model: Path, memory: int, compute_seconds: float) -> None:
    """Print a row for each disk."""
    print(f"\nin {memory / 1e9:.1f} GB of {model.stat().st_size / 1e9:.2f}:")
    print(f"{'disk':10}{'locked':>9}{'streamed':>10}{'read/token':>12}{'s/token':>9}", end="")
    print(f"{'limit':>8}{'times':>7}{'hidden':>8}{'peak':>8}")
    for name, disk in DISKS.items():
        result = bench(model, memory, disk, TOKENS[name], 256 if disk == 0 else 32)
        read = float(result["bytes_read_per_token"])
        seconds = 1 / float(result["decode_tokens_per_second"])
        speed = disk or float(result["disk_read_bytes_per_second"])
        limit = max(read / speed, compute_seconds)
        print(
            f"{name:10}{result['locked_bytes'] / 1e9:9.3f}{result['streamed_bytes'] / 1e9:10.3f}",
            end="",
        )
        print(f"{read / 1e9:12.3f}{seconds:9.2f}{limit:8.2f}{seconds / limit:7.2f}", end="")
        print(
            f"{100 * result['share_of_disk_time_hidden']:7.0f}%{result['peak_bytes'] / 1e9:8.2f}",
            flush=True,
        )


def print_service(model: Path, memory: int, folder: Path) -> None:
    """Print the same of a service, for decoding and for a prompt of 256 tokens."""
    make_cold(model)
    with limited(memory, model) as group:
        flags = ["--model", str(model), "--huge-pages", "off"]
        with served(folder, flags, group) as service:
            service.ask("-n", "1", "a")
            status = service.model()
            before = service.read_bytes()
            service.ask("-n", "9", "a")
            per_token = (service.read_bytes() - before) / 10
            words = " ".join(["a"] * 254)
            before = service.read_bytes()
            service.ask("-n", "1", words)
            prompt = service.read_bytes() - before
        print(f"\nllamad serve in {memory / 1e9:.1f} GB: {status}")
        most = model.stat().st_size - status["locked_bytes"]
        print(
            f"read for a token {per_token / 1e9:.3f} GB, file - locked {most / 1e9:.3f} GB;",
            end=" ",
        )
        print(
            f"a prompt of 256 tokens reads {prompt / status['streamed_bytes']:.2f} times the",
            end=" ",
        )
        print(f"streamed part; killed {group.kills()}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--memory", type=float, default=3.2e9, help="bytes")
    parser.add_argument("--enough", type=float, default=5e9, help="bytes in which all of it fits")
    arguments = parser.parse_args()
    model = arguments.model.resolve()
    compute_seconds = print_enough(model, int(arguments.enough))
    print_streaming(model, int(arguments.memory), compute_seconds)
    print_service(model, int(arguments.memory), Path("build") / "memory-figures")


if __name__ == "__main__":
    main()
