"""What the prefix cache saves: a list of devices before every question, also after a restart.

    python tests/bench/prefix_cache.py [MODEL] [--devices 100] [--questions 20]

A generated system prompt of 100 devices, about 3,000 tokens, goes before 20 different short
questions. Printed are the times to the first token: of the first question, of those after it, and
of the first one after a restart with the saved blocks dropped from the page cache; the bytes on the
disk, and those written to and read from it; and how much of the list is reused when one device in
its middle has changed. Run it on an idle machine.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from clients.daemon_process import daemon
from llamad_client import Client, PrefixCache, Result

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ROOMS = ("kitchen", "hall", "bedroom", "study", "garage", "attic", "garden")
KINDS = ("lamp", "heater", "blind", "socket", "window sensor")
SAVING_SECONDS = 120.0  # until everything is on the disk


@contextlib.contextmanager
def serving(model: Path, folder: Path) -> Iterator[Client]:
    """Run a service whose state is in a folder."""
    config = folder / "llamad.toml"
    state = folder / "state"
    state.mkdir(exist_ok=True)
    config.write_text(f'[service]\nstate_directory = "{state}"\n')
    with daemon(folder, "--config", str(config), "--model", str(model)) as service:
        service.wait_until_ready()
        with Client(service.socket) as client:
            yield client
        service.stop()


def devices(n: int) -> list[str]:
    """Return a line for each device."""
    return [
        f"- device_{i:03d}: the {KINDS[i % 5]} number {i % 4 + 1} in the {ROOMS[i % 7]},"
        f" entity light.{ROOMS[i % 7]}_{i:03d}, state {'on' if i % 3 else 'off'}"
        for i in range(n)
    ]


def ask(client: Client, lines: list[str], question: str) -> Result:
    """Ask something about the devices."""
    system = "You control these devices.\n" + "\n".join(lines)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    answer = client.chat(messages, max_tokens=4, temperature=0.0)
    answer.text()
    assert answer.result is not None
    return answer.result


def cache(client: Client) -> PrefixCache:
    """Return the numbers of the cache."""
    prefix = client.status().prefix
    assert prefix is not None
    return prefix


def drop_page_cache(folder: Path) -> None:
    """Let the next read of every file come from the disk."""
    for path in folder.rglob("*.kv"):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def wait_until_saved(client: Client, n_tokens: int) -> None:
    """Wait until blocks of so many tokens are on the disk."""
    until = time.monotonic() + SAVING_SECONDS
    while time.monotonic() < until:
        if sum(prefix.tokens for prefix in client.prefixes()) >= n_tokens:
            return
        time.sleep(0.5)
    raise SystemExit("nothing was saved: the journal of the service says why")


def told(name: str, result: Result) -> float:
    """Print a question's numbers; return the seconds to its first token."""
    seconds = result.timings.time_to_first_token_seconds
    print(
        f"{name:<28} {seconds:8.3f} s to the first token,"
        f" {result.cached_prompt_tokens} of {result.prompt_tokens} prompt tokens cached"
    )
    return seconds


def main() -> None:
    """Run the service twice and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    lines = devices(options.devices)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, warm = run_first(options.model, folder, lines, options.questions)
        drop_page_cache(folder)
        with serving(options.model, folder) as client:
            again = told("after a restart", ask(client, lines, "Is device 7 on?"))
            prefix = cache(client)
            print(f"read from the disk {prefix.bytes_read}, written {prefix.bytes_written} bytes")
            changed = [*lines]
            changed[len(lines) // 2] = "- device_new: a radio"
            told("one device changed", ask(client, changed, "Is device 8 on?"))
    print(
        f"warm / first: {100 * warm / first:.1f} % (at most 5 wanted);"
        f" after a restart / warm: {again / warm:.2f} (at most 2 wanted)"
    )


def run_first(model: Path, folder: Path, lines: list[str], n: int) -> tuple[float, float]:
    """Ask n questions; return the seconds to the first token of the first, and of the others."""
    with serving(model, folder) as client:
        ask(client, [], "Warm up.")
        first = ask(client, lines, "Which lamps are on?")
        first_seconds = told("first question", first)
        later = [ask(client, lines, f"Is device {i} on?") for i in range(1, n)]
        warm = statistics.median(r.timings.time_to_first_token_seconds for r in later)
        told("last question", later[-1])
        wait_until_saved(client, later[-1].cached_prompt_tokens)
        prefix = cache(client)
        print(f"on the disk {prefix.bytes_on_disk}, written {prefix.bytes_written} bytes")
        return first_seconds, warm


if __name__ == "__main__":
    main()
