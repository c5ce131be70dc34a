"""What the peer proxy costs: calls through the public socket beside calls to gRPC's private one.

    PYTHONPATH=daemon:clients:protos:tests .venv/bin/python -m bench.peer_proxy_cost [--rounds 10]

A client in a process of its own alternates between the two sockets of one service over a fake
engine. Reported are medians over the rounds: the time of a unary call, the time between two
messages of a stream that an engine makes as fast as it can, and the processor time of the service.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

import grpc

from llamad.door.caller import Caller
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from rpc.serving import Service, serving
from unit.schedule.fakes import saying

CALLS = 500  # unary calls of a round
STREAMS = 4  # of a round, one after the other
TOKENS = 400  # of a stream


# ---- the client's process ------------------------------------------------------------------------


def unary(stub: Any) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        stub.GetVersion(pb.GetVersionRequest())
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def streamed(stub: Any) -> float:
    """Return the mean seconds of a message."""
    request = pb.GenerateRequest(prompt="p", options=pb.Options(max_tokens=TOKENS))
    begin = time.perf_counter()
    messages = sum(1 for _ in range(STREAMS) for _ in stub.Generate(request))
    return (time.perf_counter() - begin) / messages


def client(addresses: list[str]) -> None:
    """Measure what stdin asks for, an address's index and a kind a line; print seconds."""
    channels = [grpc.insecure_channel(f"unix:{address}") for address in addresses]
    stubs = [llamad_pb2_grpc.LlamadStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    for line in sys.stdin:
        index, kind = json.loads(line)
        print((unary if kind == "unary" else streamed)(stubs[index]), flush=True)


# ---- the service's process -----------------------------------------------------------------------


class Bench:
    """The client's process, and what it measured: [kind][index] of (seconds, processor seconds)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.measured: dict[str, list[list[tuple[float, float]]]] = {
            "unary": [[], []],
            "streamed": [[], []],
        }

    async def measure(self, index: int, kind: str) -> None:
        """Let the client measure once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begin = time.process_time()
        self._process.stdin.write(json.dumps([index, kind]).encode() + b"\n")
        seconds = float(await self._process.stdout.readline())
        n = CALLS if kind == "unary" else STREAMS * TOKENS
        self.measured[kind][index].append((seconds, (time.process_time() - begin) / n))


def without_callers(service: Service) -> str:
    """Let every connection be ours, so that gRPC's socket can be used directly; return its path."""
    proxy, private = service.server._peer_proxy, service.server._private
    assert proxy is not None
    assert private is not None
    proxy.caller = lambda peer: Caller(uid=0, is_admin=True)  # type: ignore[method-assign]
    # seen from the other process
    return private.address.replace("self", str(os.getpid()))


async def run(rounds: int) -> None:
    """Measure and print."""
    async with serving(n_ctx=1024) as service:
        service.bench.engine.rule = saying("x" * TOKENS)
        addresses = [without_callers(service), str(service.path)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--client",
            *addresses,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        bench = Bench(process)
        for number in range(rounds + 1):
            for kind in bench.measured:
                for index in (0, 1) if number % 2 else (1, 0):
                    await bench.measure(index, kind)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    print(f"{'':10}{'direct':>10}{'proxied':>10}{'more':>10}   us; the service below")
    for kind, sides in bench.measured.items():
        for what in (0, 1):
            direct, proxied = (statistics.median(m[what] for m in side[1:]) * 1e6 for side in sides)
            title = kind if what == 0 else "  service"
            print(f"{title:10}{direct:10.1f}{proxied:10.1f}{proxied - direct:10.1f}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client(arguments.client)
    else:
        asyncio.run(run(arguments.rounds))


if __name__ == "__main__":
    main()
