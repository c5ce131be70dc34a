"""Vectors a second: llamad's Embed beside llama.cpp's server, of the same file and the same texts.

    python tests/minilm.py
    PYTHONPATH=tests .venv/bin/python -m bench.embed_peer --peer-python PYTHON [--rounds 7]

all-MiniLM-L6-v2 is converted to each type; PYTHON has the PyPI package ``xllamacpp``. Both services
take the texts of a batch in one request, in turn, and are idle while the other works. A line is one
type and one number of texts a request: texts a second of each, the median over the rounds, their
ratio, and the cosine of both vectors of the first text. Run it on an idle machine.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import minilm
from checkpoints.converting import convert
from clients.daemon_process import daemon
from llamad_client import Client

TYPES = ("F16", "Q8_0", "Q4_0")
BATCHES = (1, 8, 64, 200)  # texts of a request
PEER = Path(__file__).with_name("peer_vectors.py")


class Peer:
    """llama.cpp's server over one model, in a process of its own."""

    def __init__(self, python: str, model: Path, n_threads: int) -> None:
        """Start the process; it is ready when it answers."""
        self._process = subprocess.Popen(
            [python, str(PEER), str(model), str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def embed(self, texts: Sequence[str]) -> tuple[float, list[float]]:
        """Return the seconds that it took, and the first vector."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(list(texts)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"llama.cpp ended with code {self._process.wait()}")
        seconds, vector = json.loads(line)
        return seconds, vector

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(client: Client, texts: Sequence[str]) -> tuple[float, Sequence[float]]:
    """Return the seconds that it took, and the first vector."""
    begin = time.perf_counter()
    vectors = client.embed(texts)
    return time.perf_counter() - begin, vectors[0].values


def batches(size: int) -> Iterator[Sequence[str]]:
    """Yield the 200 sentences, so many at a time."""
    for first in range(0, len(minilm.SENTENCES), size):
        yield minilm.SENTENCES[first : first + size]


def compare(type_name: str, client: Client, peer: Peer, n_rounds: int) -> None:
    """Print a line for each size of a batch."""
    for size in BATCHES:
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(n_rounds + 1):
            spent = [0.0, 0.0]
            for texts in batches(size):
                first, own = ours(client, texts)
                second, theirs = peer.embed(texts)
                spent = [spent[0] + first, spent[1] + second]
            for all_rounds, of_round in zip(seconds, spent, strict=True):
                all_rounds.append(of_round)
        rates = [len(minilm.SENTENCES) / statistics.median(found[1:]) for found in seconds]
        cosine = np.dot(own, theirs) / np.linalg.norm(own) / np.linalg.norm(theirs)
        print(
            f"{type_name:<5} {size:4} texts a request: llamad {rates[0]:7.1f} texts/s, llama.cpp "
            f"{rates[1]:7.1f}, ratio {rates[0] / rates[1]:.2f}, cosine {cosine:.5f}",
            flush=True,
        )


def main() -> None:
    """Convert, serve and compare each type."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", nargs="+", default=TYPES)
    options = parser.parse_args()
    if not minilm.FOLDER.exists():
        parser.error(f"no {minilm.FOLDER}: python tests/minilm.py fetches it")
    for type_name in options.types:
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            with contextlib.redirect_stdout(sys.stderr):
                model = convert(minilm.FOLDER, folder / "minilm.gguf", type_name)
            config = folder / "llamad.toml"
            config.write_text(
                f'[service]\nstate_directory = "{folder}"\n[model]\nthreads = {options.threads}\n'
            )
            flags = ("--config", str(config), "--model", str(model))
            service = stack.enter_context(daemon(folder, *flags))
            service.wait_until_ready()
            client = stack.enter_context(Client(str(service.socket)))
            peer = stack.enter_context(
                contextlib.closing(Peer(options.peer_python, model, options.threads))
            )
            compare(type_name, client, peer, options.rounds)


if __name__ == "__main__":
    main()
