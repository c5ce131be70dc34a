"""Write seeded adapters (LoRA, as GGUF) for tiny models; merge them into the oracle's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from reference import Array, ReferenceModel
from reference.model import dequantize
from tiny_formats import FORMATS
from tiny_gguf import Metadata, Tensor, TinySpec, encode_gguf, matrices

LAYER_MATRICES = (
    "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "attn_output",
    "ffn_gate", "ffn_up", "ffn_down",
    "shortconv.in_proj", "shortconv.out_proj", "ssm_in", "ssm_out", "ssm_alpha", "ssm_beta",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TinyAdapter:
    """An adapter of some matrices of a tiny model; names as in ``LAYER_MATRICES``, or "output"."""

    rank: int = 4
    alpha: float | None = 8.0
    type_name: str = "F32"
    targets: Sequence[str] = LAYER_MATRICES
    seed: int = 1
    size: float = 1.0  # of what it adds, beside the matrix's own weights
    metadata: Mapping[str, Metadata] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """What a request's own scale is multiplied with."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def reached(spec: TinySpec, adapter: TinyAdapter) -> list[tuple[str, tuple[int, int]]]:
    """Return names and shapes, (rows, columns), of the model's tensors that an adapter changes."""
    found = []
    for name, shape in matrices(spec):
        parts = name.removesuffix(".weight").split(".")
        short = ".".join(parts[2:]) if parts[0] == "blk" else parts[0]
        if short in adapter.targets and len(shape) == 2:
            found.append((name, (shape[0], shape[1])))
    return found


def _rows(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Array:
    rows: Array = rng.normal(scale=size, size=shape).astype(np.float32)
    return rows


def _encoded(values: Array, type_name: str) -> bytes:
    if type_name == "F32":
        return np.asarray(values, dtype="<f4").tobytes()
    if type_name == "F16":
        return np.asarray(values, dtype="<f2").tobytes()
    if type_name == "BF16":
        return (np.asarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    blocks = np.asarray(values, dtype="<f4").reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1) / 127).astype("<f2")
    codes = np.rint(blocks / scales.astype("<f4")[:, None]).clip(-127, 127).astype(np.int8)
    return b"".join(d.tobytes() + q.tobytes() for d, q in zip(scales, codes, strict=True))


def adapter_tensors(spec: TinySpec, adapter: TinyAdapter) -> list[Tensor]:
    """Return A and B of each tensor that the adapter changes."""
    rng = np.random.default_rng(adapter.seed)
    tensors = []
    for name, (n_rows, n_cols) in reached(spec, adapter):
        a = _rows(rng, (adapter.rank, n_cols), n_cols**-0.5)
        b = _rows(rng, (n_rows, adapter.rank), 0.5 * adapter.size / adapter.rank)
        for half, values in (("a", a), ("b", b)):
            # Q8_0 has blocks of 32: rows of B as long as the rank may be shorter
            kind = (
                adapter.type_name
                if values.shape[1] % FORMATS[adapter.type_name].block == 0
                else "F16"
            )
            data = _encoded(values, kind)
            tensors.append(Tensor(f"{name}.lora_{half}", kind, values.shape, data))
    return tensors


def adapter_metadata(spec: TinySpec, adapter: TinyAdapter) -> dict[str, Metadata]:
    """Return the metadata of the file."""
    alpha = {} if adapter.alpha is None else {"adapter.lora.alpha": float(adapter.alpha)}
    return {
        "general.type": "adapter",
        "general.architecture": spec.architecture,
        "general.name": "tiny adapter",
        "adapter.type": "lora",
        **alpha,
        **adapter.metadata,
    }


def write_tiny_adapter(path: Path, spec: TinySpec, adapter: TinyAdapter | None = None) -> Path:
    """Write an adapter for the model of ``spec`` and return the path. Same values, same bytes."""
    adapter = adapter or TinyAdapter()
    tensors = adapter_tensors(spec, adapter)
    path.write_bytes(encode_gguf(adapter_metadata(spec, adapter), tensors))
    return path


def merged(
    model: ReferenceModel, spec: TinySpec, adapter: TinyAdapter, scale: float = 1.0
) -> ReferenceModel:
    """Return the oracle's model with W + scale * B A in place of each W, in float64.

    A and B are the values that the file holds.
    """
    weights = dict(model.weights)
    tensors = {tensor.name: tensor for tensor in adapter_tensors(spec, adapter)}
    for name, _ in reached(spec, adapter):
        a, b = (_values(tensors[f"{name}.lora_{half}"]) for half in "ab")
        weight = weights[name]
        values = weight.values.astype(np.float64) + scale * adapter.scale * (b @ a)
        weights[name] = replace(weight, values=values)  # type: ignore[arg-type]
    return replace(model, weights=weights)


def _values(tensor: Tensor) -> Array:
    raw = np.frombuffer(tensor.data, dtype=np.uint8).reshape(tensor.shape[0], -1)
    return dequantize(raw, tensor.type_name).astype(np.float64)
