"""Write a synthetic LLaMA checkpoint of full size: 13.5 GB for 7B, with random f16 weights.

For measuring ``llamad convert`` by hand. Rows are cut from a few megabytes of random numbers, so
that writing takes as long as the disk. A seed is a model, in however many shards it is written.
Holds one piece in memory at a time.

    python tests/synth_pth.py OUT --size 7B --shards 2
"""

import argparse
import json
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

if __name__ == "__main__":  # the packages of the checkout, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "daemon"))

from pth_file import (
    ALIGNMENT,
    COLUMN_PARALLEL,
    ROW_PARALLEL,
    PthTensor,
    pickled_state,
    sentencepiece_model,
)
from tiny_gguf import vocabulary

PIECE_WEIGHTS = 1 << 22
VOCAB_SIZE = 32000


@dataclass(frozen=True, slots=True)
class Size:
    """A model of the LLaMA paper (arXiv:2302.13971, table 2), but for the last."""

    dim: int
    hidden_dim: int
    n_heads: int
    n_layers: int
    n_kv_heads: int | None = None  # None: as many as heads


SIZES = {
    "tiny": Size(256, 768, 8, 2),
    "7B": Size(4096, 11008, 32, 32),
    "13B": Size(5120, 13824, 40, 40),
    "30B": Size(6656, 17920, 52, 60),
    "65B": Size(8192, 22016, 64, 80),
    "70B": Size(8192, 28672, 64, 80, 8),  # Llama 2 (arXiv:2307.09288)
}


def shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and whole shapes in the order of Meta's files."""
    yield "tok_embeddings.weight", (VOCAB_SIZE, size.dim)
    yield "norm.weight", (size.dim,)
    yield "output.weight", (VOCAB_SIZE, size.dim)
    kv_dim = size.dim // size.n_heads * (size.n_kv_heads or size.n_heads)
    for layer in range(size.n_layers):
        block = f"layers.{layer}."
        for name, n_rows in (("wq", size.dim), ("wk", kv_dim), ("wv", kv_dim), ("wo", size.dim)):
            yield f"{block}attention.{name}.weight", (n_rows, size.dim)
        yield block + "feed_forward.w1.weight", (size.hidden_dim, size.dim)
        yield block + "feed_forward.w2.weight", (size.dim, size.hidden_dim)
        yield block + "feed_forward.w3.weight", (size.hidden_dim, size.dim)
        yield block + "attention_norm.weight", (size.dim,)
        yield block + "ffn_norm.weight", (size.dim,)


@dataclass(frozen=True, slots=True)
class Part:
    """What one shard has of a tensor: some of its rows and columns."""

    index: int  # of the tensor in the model
    shape: tuple[int, ...]  # of the whole
    rows: range
    columns: range

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The shape of the part."""
        lengths = (len(self.rows), len(self.columns))
        return lengths[-len(self.shape) :]


def part_of(index: int, name: str, shape: tuple[int, ...], shard: int, n_shards: int) -> Part:
    """Return the part of a tensor that a shard holds."""
    n_rows, n_cols = shape if len(shape) == 2 else (1, *shape)
    rows, columns = range(n_rows), range(n_cols)
    layer = name.split(".")[-2]
    if layer in COLUMN_PARALLEL:
        rows = rows[n_rows // n_shards * shard :][: n_rows // n_shards]
    elif layer in ROW_PARALLEL:
        columns = columns[n_cols // n_shards * shard :][: n_cols // n_shards]
    return Part(index, shape, rows, columns)


def pieces(part: Part, noise: NDArray[np.float16], seed: int) -> Iterator[bytes]:
    """Yield the weights of a part; each row of the whole tensor is a run of the noise."""
    if len(part.shape) == 1:
        yield np.ones(part.shape, np.float16).tobytes()
        return
    n_rows, n_cols = part.shape
    starts = np.random.default_rng((seed, part.index)).integers(len(noise) - n_cols, size=n_rows)
    runs = sliding_window_view(noise, len(part.columns))
    step = max(PIECE_WEIGHTS // len(part.columns), 1)
    for first in range(part.rows.start, part.rows.stop, step):
        last = min(first + step, part.rows.stop)
        yield runs[starts[first:last] + part.columns.start].tobytes()


class StoredZip:
    """A zip of stored members that are written in pieces, with zip64 records throughout."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._directory: list[bytes] = []

    def add(self, name: str, pieces: Iterator[bytes], n_bytes: int) -> None:
        """Add one member; its checksum goes into the local header when it is known."""
        encoded = name.encode()
        start = self._file.tell()
        zip64 = struct.pack("<HHQQ", 1, 16, n_bytes, n_bytes)
        fixed = 30 + len(encoded) + len(zip64) + 4
        n = -(start + fixed) % ALIGNMENT
        extra = zip64 + b"FB" + struct.pack("<H", n) + b"Z" * n
        self._file.write(_local_header(encoded, 0, extra) + encoded + extra)
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self._file.write(piece)
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_local_header(encoded, crc, extra))
        self._file.seek(end)
        sizes = struct.pack("<HHQQQ", 1, 24, n_bytes, n_bytes, start)
        numbers = (45, 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1)
        self._directory.append(
            struct.pack("<4sHHHHHHIII", b"PK\x01\x02", *numbers)
            + struct.pack("<HHHHHII", len(encoded), len(sizes), 0, 0, 0, 0, 2**32 - 1)
            + encoded
            + sizes
        )

    def close(self) -> None:
        """Write the directory."""
        start, n = self._file.tell(), len(self._directory)
        directory = b"".join(self._directory)
        end = start + len(directory)
        record = struct.pack(
            "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, n, n, len(directory), start
        )
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        last = struct.pack(
            "<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0
        )
        self._file.write(directory + record + locator + last)
        self._file.close()


def _local_header(name: bytes, crc: int, extra: bytes) -> bytes:
    numbers = (45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name), len(extra))
    return struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *numbers)


def write_shard(path: Path, size: Size, shard: int, n_shards: int, seed: int) -> None:
    """Write one shard of a checkpoint."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.02, 2 * PIECE_WEIGHTS).astype(np.float16)
    parts = {
        name: part_of(index, name, shape, shard, n_shards)
        for index, (name, shape) in enumerate(shapes(size))
    }
    pickled = pickled_state({n: PthTensor("F16", p.part_shape, b"") for n, p in parts.items()})
    archive = StoredZip(path)
    archive.add("consolidated/data.pkl", iter([pickled]), len(pickled))
    for key, part in enumerate(parts.values()):
        n_bytes = 2 * len(part.rows) * len(part.columns)
        archive.add(f"consolidated/data/{key}", pieces(part, noise, seed), n_bytes)
    archive.add("consolidated/version", iter([b"3\n"]), 2)
    archive.close()


def write_checkpoint(folder: Path, size: Size, n_shards: int = 1, seed: int = 1) -> Path:
    """Write a whole folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_shards):
        write_shard(folder / f"consolidated.{index:02}.pth", size, index, n_shards, seed)
    params = {"dim": size.dim, "multiple_of": 256, "n_heads": size.n_heads}
    params |= {"n_layers": size.n_layers, "vocab_size": -1}
    if size.n_kv_heads is not None:
        params["n_kv_heads"] = size.n_kv_heads
    (folder / "params.json").write_text(json.dumps({**params, "norm_eps": 1e-6}))
    pieces = zip(*vocabulary(VOCAB_SIZE), strict=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(list(pieces)))
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one checkpoint."""
    parser = argparse.ArgumentParser(description="Write a synthetic LLaMA checkpoint.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="7B")
    parser.add_argument("--layers", type=int, metavar="N", help="fewer than the size has")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    size = SIZES[chosen.size]
    size = replace(size, n_layers=chosen.layers or size.n_layers)
    write_checkpoint(chosen.out, size, chosen.shards, chosen.seed)


if __name__ == "__main__":
    main()
