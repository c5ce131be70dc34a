"""Write .pth files as torch.save does, without torch: the zip and the pickle, by hand.

Owns the layout of torch's archive (torch/serialization.py, _save: stored members, weights aligned
to 64 bytes by an extra field) and LLaMA checkpoints of tiny models, in one shard or several.
"""

import io
import json
import math
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
ALIGNMENT = 64  # bytes


@dataclass(frozen=True, slots=True)
class PthTensor:
    """A tensor with a storage of its own."""

    type_name: str
    shape: tuple[int, ...]
    data: bytes


def encode(values: NDArray[np.float32], type_name: str) -> bytes:
    """Return float32 values as the bytes of a type; bf16 is cut."""
    if type_name == "BF16":
        return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F32": np.float32, "F16": np.float16}[type_name]).tobytes()


@contextmanager
def _fake_torch() -> Iterator[types.ModuleType]:
    """Register modules that pickle finds torch's names in, for as long as a file is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*arguments: object) -> None:
        raise AssertionError("nothing is rebuilt while a file is written")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    saved = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield torch
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Storage:
    """What stands for a storage in the pickle: a persistent id."""

    def __init__(self, kind: type, key: str, n_items: int) -> None:
        self.pid = ("storage", kind, key, "cpu", n_items)


class _Tensor:
    def __init__(self, torch: types.ModuleType, key: int, tensor: PthTensor) -> None:
        kind = getattr(torch, STORAGES[tensor.type_name])
        n_items = math.prod(tensor.shape)
        strides = tuple(math.prod(tensor.shape[d + 1 :]) for d in range(len(tensor.shape)))
        storage = _Storage(kind, str(key), n_items)
        rebuild = torch._utils._rebuild_tensor_v2
        hooks: OrderedDict[str, object] = OrderedDict()
        self.reduced = (rebuild, (storage, 0, tensor.shape, strides, False, hooks))

    def __reduce__(self) -> Any:
        return self.reduced


class _Pickler(pickle._Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, _Storage) else None


def pickled_state(tensors: Mapping[str, PthTensor]) -> bytes:
    """Return the data.pkl of a state dictionary; storages are numbered in order."""
    out = io.BytesIO()
    with _fake_torch() as torch:
        items = [(name, _Tensor(torch, key, t)) for key, (name, t) in enumerate(tensors.items())]
        _Pickler(out, protocol=2).dump(OrderedDict(items))
    return out.getvalue()


def write_pth(
    path: Path, tensors: Mapping[str, PthTensor], *, pickled: bytes | None = None
) -> Path:
    """Write one file; pickled: another data.pkl than that of the tensors."""
    data = pickled_state(tensors) if pickled is None else pickled
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_aligned(file, "archive/data.pkl"), data)
        archive.writestr(_aligned(file, "archive/byteorder"), b"little")
        for key, tensor in enumerate(tensors.values()):
            archive.writestr(_aligned(file, f"archive/data/{key}"), tensor.data)
        archive.writestr(_aligned(file, "archive/version"), b"3\n")
    return path


def _aligned(file: BinaryIO, name: str) -> zipfile.ZipInfo:
    """Return the entry of a member whose data begins at a multiple of 64: torch's "FB" padding."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    fixed = 30 + len(name) + 4  # the local header, and that of the extra field
    info.extra = b"FB" + struct.pack("<H", n := -(file.tell() + fixed) % ALIGNMENT) + b"Z" * n
    return info


# ---- LLaMA checkpoints ------------------------------------------------------------------------

COLUMN_PARALLEL = ("wq", "wk", "wv", "w1", "w3", "output")
ROW_PARALLEL = ("wo", "w2", "tok_embeddings")


def llama_weights(
    vocab_size: int, dim: int, hidden_dim: int, n_layers: int, kv_dim: int, seed: int = 1
) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a tiny model under Meta's names, whole."""
    rng = np.random.default_rng(seed)

    def matrix(n_rows: int, n_cols: int) -> NDArray[np.float32]:
        return rng.normal(0, n_cols**-0.5, (n_rows, n_cols)).astype(np.float32)

    def norm() -> NDArray[np.float32]:
        return rng.normal(1, 0.2, dim).astype(np.float32)

    result = {"tok_embeddings.weight": matrix(vocab_size, dim), "norm.weight": norm()}
    result["output.weight"] = matrix(vocab_size, dim)
    for layer in range(n_layers):
        block = f"layers.{layer}."
        result[block + "attention.wq.weight"] = matrix(dim, dim)
        result[block + "attention.wk.weight"] = matrix(kv_dim, dim)
        result[block + "attention.wv.weight"] = matrix(kv_dim, dim)
        result[block + "attention.wo.weight"] = matrix(dim, dim)
        result[block + "feed_forward.w1.weight"] = matrix(hidden_dim, dim)
        result[block + "feed_forward.w2.weight"] = matrix(dim, hidden_dim)
        result[block + "feed_forward.w3.weight"] = matrix(hidden_dim, dim)
        result[block + "attention_norm.weight"] = norm()
        result[block + "ffn_norm.weight"] = norm()
    result["rope.freqs"] = np.ones(4, np.float32)
    return result


def shard_of(
    name: str, values: NDArray[np.float32], index: int, n_shards: int
) -> NDArray[np.float32]:
    """Return the part of a weight that shard ``index`` holds."""
    layer = name.split(".")[-2] if "." in name else name
    if layer in COLUMN_PARALLEL:
        return np.split(values, n_shards, axis=0)[index]
    if layer in ROW_PARALLEL:
        return np.split(values, n_shards, axis=1)[index]
    return values


def write_llama_folder(
    folder: Path,
    weights: Mapping[str, NDArray[np.float32]],
    params: Mapping[str, object],
    tokenizer_model: bytes,
    *,
    n_shards: int = 1,
    type_name: str = "F16",
) -> Path:
    """Write shards, params.json and tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_shards):
        tensors = {}
        for name, values in weights.items():
            part = np.ascontiguousarray(shard_of(name, values, index, n_shards))
            tensors[name] = PthTensor(type_name, part.shape, encode(part, type_name))
        write_pth(folder / f"consolidated.{index:02}.pth", tensors)
    (folder / "params.json").write_text(json.dumps(dict(params)))
    (folder / "tokenizer.model").write_bytes(tokenizer_model)
    return folder


def sentencepiece_model(pieces: Sequence[tuple[str, float, int]]) -> bytes:
    """Return the ModelProto of a BPE vocabulary with byte fallback, ids 0 to 2 special."""
    from llamad.text.sentencepiece_model import BPE, Normalization, serialize_model

    return serialize_model(
        BPE, pieces, byte_fallback=True, special_ids=(0, 1, 2), normalization=Normalization()
    )
