"""What the HTTP gateway costs: memory under streaming clients and idle connections, and latency.

    PYTHONPATH=tests .venv/bin/python -m bench.gateway_load MODEL --minutes 2

Three parts, each with what is wanted of it; run it on an idle machine.
1. Pairs of one greedy answer by gRPC and the same by HTTP, in turn: the median time a token of
   each, and the difference of a pair's medians (1 ms at most at the median of all pairs).
2. 1,000 connections that are kept alive and do nothing: what they add (30 MB at most).
3. 64 clients stream chats from the whole service for so many minutes: the gateway's resident
   memory (80 MB at most), and its growth over the second half (none: 1 MB is the noise allowed).
"""

import argparse
import asyncio
import http.client
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clients.daemon_process import Daemon, daemon
from gateway.gateway_process import GatewayProcess, gateway_process
from llamad_client import Client, TextDelta
from llamad_http.authorization import add_key

CONFIG = "[limits]\nmax_connections = 2048\nmax_connections_per_address = 2048\n"
MOST_MB, MOST_GROWTH_MB, MOST_ADDED_MS, MOST_IDLE_MB = 80.0, 1.0, 1.0, 30.0
IDLE_CONNECTIONS = 1000
OWNERS = 8  # of the clients: one may have no more than its share of the queue
QUESTION = "Write a long story about a lighthouse and the sea."


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"process {pid} has no memory")


def body_of(number: int, max_tokens: int, **options: Any) -> bytes:
    """Return a streamed chat."""
    messages = [{"role": "user", "content": f"{number}. {QUESTION}"}]
    asked = {"messages": messages, "stream": True, "max_tokens": max_tokens, **options}
    return json.dumps(asked).encode()


async def client(port: int, number: int, key: str, end: float) -> tuple[int, int]:
    """Stream chats until the end; return the answers and the bytes that came."""
    answers = n_bytes = 0
    while time.monotonic() < end:
        body = body_of(number, 48, seed=number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            "POST /v1/chat/completions HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            f"Authorization: Bearer {key}",
            f"Content-Length: {len(body)}",
        )
        writer.write("\r\n".join((*head, "", "")).encode() + body)
        answer = await reader.read(-1)
        writer.close()
        if b"data: [DONE]" not in answer:
            raise RuntimeError(f"client {number} got {answer[-300:]!r}")
        answers += 1
        n_bytes += len(answer)
    return answers, n_bytes


async def under_clients(
    gateway: GatewayProcess, keys: Sequence[str], n_clients: int, seconds: float
) -> bool:
    """Run the clients; return whether it holds."""
    end = time.monotonic() + seconds
    samples: list[float] = []
    tasks = [
        asyncio.create_task(client(gateway.port, n, keys[n % len(keys)], end))
        for n in range(n_clients)
    ]
    while time.monotonic() < end:
        samples.append(resident_mb(gateway.process.pid))
        await asyncio.sleep(1)
    done = await asyncio.gather(*tasks)
    second_half = samples[len(samples) // 2 :]
    growth = second_half[-1] - second_half[0]
    print(
        f"{n_clients} clients, {seconds:g} s: {sum(a for a, _ in done)} answers,"
        f" {sum(b for _, b in done) / 1e6:.1f} MB; resident {samples[0]:.1f} at first,"
        f" {max(samples):.1f} MB at most (wanted {MOST_MB:g}),"
        f" {growth:+.1f} MB over the second half (wanted {MOST_GROWTH_MB:g})"
    )
    return max(samples) <= MOST_MB and growth <= MOST_GROWTH_MB


def by_grpc(service: Daemon, max_tokens: int) -> Iterator[float]:
    """Yield when each piece of an answer came, in seconds."""
    with Client(service.socket) as direct:
        messages = [{"role": "user", "content": QUESTION}]
        completion = direct.chat(messages, temperature=0, max_tokens=max_tokens, ignore_eos=True)
        for event in completion.events():
            if isinstance(event, TextDelta):
                yield time.monotonic()


def by_http(gateway: GatewayProcess, max_tokens: int) -> Iterator[float]:
    """Yield when each piece of an answer came, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"messages": messages, "stream": True, "max_tokens": max_tokens, "temperature": 0}
    body = json.dumps({**asked, "ignore_eos": True}).encode()
    connection.request("POST", "/v1/chat/completions", body)
    for line in connection.getresponse():
        if b'"content":"' in line:
            yield time.monotonic()
    connection.close()


def token_ms(times: Iterator[float]) -> float:
    """Return the median time between two pieces in milliseconds."""
    came = list(times)
    return 1e3 * statistics.median(b - a for a, b in itertools.pairwise(came))


def latency(service: Daemon, gateway: GatewayProcess, pairs: int, max_tokens: int) -> bool:
    """Run the latencies; return whether it holds."""
    token_ms(by_grpc(service, max_tokens))  # reads the prompt into the cache
    grpc, added = [], []
    for number in range(pairs):
        ways = [lambda: by_grpc(service, max_tokens), lambda: by_http(gateway, max_tokens)]
        first = number % 2
        took = {way: token_ms(ways[way]()) for way in (first, 1 - first)}
        grpc.append(took[0])
        added.append(took[1] - took[0])
    median = statistics.median(added)
    print(
        f"{pairs} pairs of {max_tokens} tokens: {statistics.median(grpc):.2f} ms a token by gRPC,"
        f" {median:+.3f} ms by HTTP ({min(added):+.3f} to {max(added):+.3f};"
        f" wanted {MOST_ADDED_MS:g})"
    )
    return median <= MOST_ADDED_MS


async def idle_connections(gateway: GatewayProcess) -> bool:
    """Run the idle connections; return whether it holds."""
    before = resident_mb(gateway.process.pid)
    streams = [
        await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(IDLE_CONNECTIONS)
    ]
    for _, writer in streams:
        writer.write(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for reader, _ in streams:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"an idle connection got {head!r}")
    added = resident_mb(gateway.process.pid) - before
    for _, writer in streams:
        writer.close()
    print(f"{IDLE_CONNECTIONS} idle connections: {added:+.1f} MB (wanted {MOST_IDLE_MB:g})")
    return added <= MOST_IDLE_MB


def main() -> int:
    """Run the parts; return 0 when all hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer of the pairs")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        daemon(Path(name), "--model", str(given.model.absolute()), "--ctx-size", "512") as service,
    ):
        service.wait_until_ready()
        with gateway_process(Path(name), service.socket, CONFIG) as gateway:
            print(f"resident at the start: {resident_mb(gateway.process.pid):.1f} MB", flush=True)
            held = [
                latency(service, gateway, given.pairs, given.tokens),
                asyncio.run(idle_connections(gateway)),
            ]
            keys = [add_key(Path(name) / "keys", f"u{n}", "normal", False) for n in range(OWNERS)]
            held.append(
                asyncio.run(under_clients(gateway, keys, given.clients, 60 * given.minutes))
            )
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
