"""Every key that the engine reads, in every family, with every absurd value.

    PYTHONPATH=tests .venv/bin/python -m engine.hostile_keys [FAMILY...]

A tiny file in which one key is changed is refused by that key's name, or that of the key or tensor
that it contradicts, or computes: plan, engine and a step whose results are finite. Nothing crashes,
and nothing takes more memory than ``ROOM``. ``test_hostile_families.py`` tries a part of this,
``make hostile`` all: 170,000 files, tens of minutes.
"""

import argparse
import re
import resource
import sys
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from family_models import FAMILY_MODELS
from llamad.config import ModelConfig
from llamad.engine.bindings import Engine, EngineModel, Run
from llamad.errors import LlamadError
from llamad.memory.demand import plan_of
from project_files import ROOT
from tiny_encoder import ENCODERS, TinyEncoder
from tiny_gguf import Metadata, Tensor, _tensors, encode_gguf, metadata_of

FAMILIES = (*FAMILY_MODELS, *ENCODERS)
MOST_LAYERS = 8  # of the tiny files: layers of every kind
ROOM = 256 << 20  # bytes of addresses that a tiny file may take, beside what the process has
NAN, INF = float("nan"), float("inf")
NUMBERS: tuple[Metadata, ...] = (
    *(0, 1, 2, 3, 5, 7, 2**15, 2**20, 2**31 - 1, 2**31, 2**32 - 1, -1, -(2**31)),
    *(0.0, 0.5, -1.0, 1e-30, 1e30, NAN, INF, -INF, True, False, "x", "", [], [0], [1] * 2000),
)


def keys_of_the_engine() -> list[str]:
    """Return the suffixes of the keys that are read or refused, out of the engine's sources."""
    sources = ROOT / "native" / "src" / "model"
    files = [*sources.glob("config*.c"), sources / "unsupported.c"]
    texts = [path.read_text(encoding="utf-8") for path in files]
    literals = {word for text in texts for word in re.findall(r'"([a-z0-9_.]+)"', text)}
    return sorted(word for word in literals if "_" in word or "." in word)


@dataclass(frozen=True, slots=True)
class TinyFile:
    """A good file of a family, in parts of which some can be changed."""

    family: str  # general.architecture
    metadata: Mapping[str, Metadata]
    tensors: Sequence[Tensor]

    @property
    def n_layers(self) -> int:
        """Layers, those that guess included."""
        n = self.metadata[f"{self.family}.block_count"]
        assert isinstance(n, int)
        return n

    def all_keys(self) -> list[str]:
        """Return all keys that the engine may read of it: its own, and those of other families."""
        own = {key for key in self.metadata if key.startswith(f"{self.family}.")}
        return sorted(own | {f"{self.family}.{suffix}" for suffix in keys_of_the_engine()})

    def values(self, key: str) -> list[Metadata]:
        """Return what a key may be given that it is not: absurd, and nearly right."""
        n, old = self.n_layers, self.metadata.get(key)
        each: tuple[Any, ...] = (0, 1, 2**31 - 1, -1, 0.5, NAN, "a", True, False)
        values: list[Any] = [*NUMBERS, *([item] * n for item in each), [1] * (n - 1), [1] * (n + 1)]
        if isinstance(old, int) and not isinstance(old, bool):
            values += [old - 1, old + 1, old // 2, 2 * old, float(old), [old] * n]
            values += [[old] * (n - 1), [old] * (n + 1), [0] + [old] * (n - 1)]
            values += [[old] * (n - 1) + [2 * old], [old] * (n - 1) + [max(1, old // 2)]]
        elif isinstance(old, float):
            values += [-old, 1e6 * old, 1e-6 * old, [old], str(old)]
        elif isinstance(old, str):
            values += [old.upper(), old + "x", [old], 64 * old]
        elif isinstance(old, Sequence):
            values += [old[:-1], [*old, old[-1]], old[::-1], old[0], [old[0]] * n]
        return values

    def with_key(self, key: str, value: Metadata) -> bytes:
        """Return the file with another value."""
        return encode_gguf({**self.metadata, key: value}, self.tensors)


def tiny_file(name: str) -> TinyFile:
    """Return the file of a row of ``FAMILIES``."""
    if name in ENCODERS:
        return _tiny_encoder(name)
    spec = FAMILY_MODELS[name]
    if spec.n_layers > MOST_LAYERS:
        spec = replace(spec, n_layers=MOST_LAYERS)
    return TinyFile(spec.architecture, metadata_of(spec), _tensors(spec))


def _tiny_encoder(name: str) -> TinyFile:
    with tempfile.TemporaryDirectory() as folder:
        reader = gguf.GGUFReader(TinyEncoder(name).write(Path(folder) / "encoder.gguf"))
        fields = reader.fields.items()
        metadata = {key: field.contents() for key, field in fields if not key.startswith("GGUF.")}
        tensors = [
            Tensor(t.name, t.tensor_type.name, tuple(map(int, t.shape[::-1])), t.data.tobytes())
            for t in reader.tensors
        ]
    return TinyFile(name, metadata, tensors)


def use(path: Path) -> NDArray[np.floating[Any]]:
    """Plan, create and run: whatever opens can be used. Return logits, or rows of an encoder.

    Raises LlamadError where it does not open.
    """
    with EngineModel(path) as model:
        plan_of(model, model.metadata(), ModelConfig(memory_budget=1 << 30, n_sequences=2))
        n_ctx = min(64, model.info.n_ctx_train)
        n_tokens, n_out = min(10, n_ctx), 0 if model.info.is_encoder else 1
        with Engine(model, n_threads=1, n_ctx=n_ctx) as engine:
            engine.forward([Run([1, *[5] * (n_tokens - 1)], 0, (0, 1), n_out)])
            if n_out:
                return np.array(engine.logits(0))
            sums = array("d", bytes(8 * model.info.dim))
            engine.add_rows(0, n_tokens, sums)
            return np.array(sums)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let the process take no more than ``ROOM`` beside what it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refusal_of(path: Path, content: bytes) -> str:
    """Return why a changed file is refused; empty where it computes numbers.

    Raises AssertionError where it is refused without a name, or does not compute numbers.
    """
    path.write_bytes(content)
    try:
        results, refusal = use(path), ""
    except LlamadError as error:
        results, refusal = np.zeros(1), error.message
    assert not refusal or re.search(r"key '|tensor '", refusal), f"names nothing: {refusal}"
    assert np.isfinite(results).all(), "computes no numbers"
    return refusal


def main() -> int:
    """Try everything; return how many faults there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", metavar="FAMILY", nargs="*", default=list(FAMILIES))
    n_faults = 0
    with tempfile.TemporaryDirectory() as folder, bounded_memory():
        for name in parser.parse_args().families:
            file, n_tried, n_before = tiny_file(name), 0, n_faults
            for key in file.all_keys():
                for value in file.values(key):
                    n_tried += 1
                    try:
                        refusal_of(Path(folder) / "model.gguf", file.with_key(key, value))
                    except (AssertionError, MemoryError, OverflowError) as error:
                        n_faults += 1
                        print(f"{name}: {key} = {str(value)[:40]}: {error}", flush=True)
            print(f"{name}: {n_tried} files, {n_faults - n_before} faults", flush=True)
    return n_faults


if __name__ == "__main__":
    sys.exit(min(main(), 1))
