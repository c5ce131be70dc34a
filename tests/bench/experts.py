"""Figures of a mixture of experts larger than its memory, beside llama.cpp. Root; asserts nothing.

    PYTHONPATH=tests .venv/bin/python -m bench.experts MODEL --peer PYTHON --peer-bench FILE

MODEL: a qwen3moe file, such as ``bench.shapes qwen3-30b-a3b`` writes; PYTHON: one that has
``xllamacpp``; FILE: ``shared/tools/peer_bench.py``. Works on a copy of the file in which a token's
experts depend on the token. Both engines decode in turn, from a cold file: with enough memory, for
the ratio of decoding; in a control group with 40 % of the file's size, with routing as it is, which
is uniform for random weights; and with a skewed one. One line a figure: medians. Run it alone: it
times. Takes about ten minutes for 3 GB, and as much room on the disk.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gguf
import numpy as np

from memory.limited import Limited, limited, make_cold, read_bytes, run

SHARE = 0.4  # of the file's size, as memory
ROUNDS = 3
TOKENS, PROMPT = 48, 16
PEER_TOKENS = 16  # of llama.cpp in the group: seconds each
LOOK_SECONDS = 0.02  # between two looks at what a process has read


@dataclass(frozen=True, slots=True)
class Decoding:
    """What one run of one engine did."""

    tokens_per_second: float
    bytes_per_token: float
    hit_rate: float = 0.0  # of experts that were in memory, only where ours tells it


@dataclass(frozen=True, slots=True)
class Peer:
    """Where llama.cpp is."""

    python: Path
    script: Path

    def decode(self, model: Path, group: Limited | None) -> Decoding:
        """Decode, and look at what the process reads meanwhile: decoding comes last."""
        make_cold(model)
        tokens = TOKENS if group is None else PEER_TOKENS
        command = [str(self.python), str(self.script), str(model)]
        command += ["-t", str(len(os.sched_getaffinity(0))), "-p", str(PROMPT), "-n", str(tokens)]
        command += ["--load-mode", "mmap"]
        if group is not None:  # a copy in another layout is killed there
            command += ["--no-repack"]
        prefix = [] if group is None else group.prefix()
        looks = [(time.monotonic(), 0)]
        with subprocess.Popen(
            [*prefix, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            while process.poll() is None:
                try:
                    looks.append((time.monotonic(), read_bytes(process.pid)))
                except (OSError, StopIteration):
                    break
                time.sleep(LOOK_SECONDS)
            assert process.stdout is not None
            told = process.stdout.read().splitlines()
        speed = float(json.loads(told[-1])["decode_tokens_per_second"])
        end, total = looks[-1]
        before = max((n for at, n in looks if at <= end - tokens / speed), default=0)
        return Decoding(speed, (total - before) / tokens)


def decode(model: Path, group: Limited | None) -> Decoding:
    """Decode with ``llamad bench``."""
    make_cold(model)
    command = [sys.executable, "-m", "llamad", "bench", str(model), "--json"]
    command += ["-p", str(PROMPT), "-n", str(TOKENS)]
    if group is not None:
        command += ["--huge-pages", "off"]
    result: dict[str, Any] = json.loads(run(command, group))
    return Decoding(
        float(result["decode_tokens_per_second"]),
        float(result["bytes_read_per_token"]),
        float(result["expert_hit_rate"] or 0.0),
    )


@contextmanager
def routed_copy(model: Path) -> Iterator[Path]:
    """Write a copy beside the model in which tokens choose experts, for the time of the block."""
    path = model.with_name(f"{model.stem}-routed-{os.getpid()}.gguf")
    try:
        shutil.copyfile(model, path)
        let_tokens_choose(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def let_tokens_choose(path: Path) -> None:
    """Take from the routers what is the same for all tokens.

    Attention over random weights adds about the same to every row; here it adds nothing, and takes
    as long. Random Q4_0 weights have a mean, so rows have one that grows from layer to layer: the
    routers do not see it.
    """
    norms = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors if "norm" in t.name}

    def without_mean(tensor: gguf.ReaderTensor) -> bytes:
        gain = norms[tensor.name.replace("ffn_gate_inp", "ffn_norm")].astype(np.float64)
        rows = tensor.data - np.outer(tensor.data @ gain, gain) / (gain @ gain)
        return bytes(rows.astype(np.float32).tobytes())

    change(path, "attn_output.weight", lambda tensor: bytes(int(tensor.n_bytes)))
    change(path, "ffn_gate_inp.weight", without_mean)


def skew(path: Path) -> None:
    """Let the routers prefer some experts: those of long rows have the extreme logits."""
    source = np.random.default_rng(1)

    def scaled(tensor: gguf.ReaderTensor) -> bytes:
        scale = 1.0 / np.sqrt(1.0 + source.permutation(int(tensor.shape[1])))
        return bytes((tensor.data * scale[:, None]).astype(np.float32).tobytes())

    change(path, "ffn_gate_inp.weight", scaled)


def change(path: Path, suffix: str, data: Callable[[gguf.ReaderTensor], bytes]) -> None:
    """Write other bytes over the tensors whose names end so."""
    with path.open("r+b") as file:
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.name.endswith(suffix):
                file.seek(int(tensor.data_offset))
                file.write(data(tensor))
        file.flush()
        os.fsync(file.fileno())


def compare(name: str, model: Path, peer: Peer, memory: int | None) -> None:
    """Print the medians of both engines in turn; memory: bytes, None: enough."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        if memory is None:
            ours.append(decode(model, None))
            theirs.append(peer.decode(model, None))
            continue
        with limited(memory, model) as group:
            ours.append(decode(model, group))
        with limited(memory, model) as group:
            theirs.append(peer.decode(model, group))
    speeds = [median(d.tokens_per_second for d in runs) for runs in (ours, theirs)]
    read = [median(d.bytes_per_token for d in runs) / 1e6 for runs in (ours, theirs)]
    print(f"{name}: tokens/s, llamad: {speeds[0]:.2f}")
    print(f"{name}: tokens/s, llama.cpp: {speeds[1]:.2f}")
    print(f"{name}: times llama.cpp: {speeds[0] / speeds[1]:.2f}")
    if memory is not None:
        print(f"{name}: MB read a token, llamad: {read[0]:.1f}")
        print(f"{name}: MB read a token, llama.cpp: {read[1]:.1f}")
        hits = median(d.hit_rate for d in ours)
        print(f"{name}: experts found in memory, llamad: {100 * hits:.0f} %", flush=True)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="a Python that has xllamacpp")
    parser.add_argument("--peer-bench", type=Path, required=True, help="shared/tools/peer_bench.py")
    args = parser.parse_args()
    peer = Peer(args.peer, args.peer_bench)
    memory = int(SHARE * args.model.stat().st_size)
    with routed_copy(args.model) as model:
        compare("100 %, uniform", model, peer, None)
        compare("40 %, uniform", model, peer, memory)
        skew(model)
        compare("40 %, skewed", model, peer, memory)


if __name__ == "__main__":
    main()
