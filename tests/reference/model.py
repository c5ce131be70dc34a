"""What a GGUF file says: hyperparameters and dequantized weights.

Does not compute; ``transformer.py`` does. Key names are those of the GGUF specification.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers of a model; see the README of its paper for each."""

    architecture: str
    n_layers: int
    dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    n_rot: int  # dimensions of a head that RoPE turns
    rope_base: float
    rope_scaling: str  # "none", "linear", "yarn" or "llama3"
    rope_factor: float
    rope_original_context: int
    rope_attn_factor: float  # of yarn, times its own magnitude correction
    rope_low_turns: float  # of llama3: turns within the original context
    rope_high_turns: float


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor: its values, (rows, columns) or (n), float32, and the name of its GGML type."""

    values: NDArray[np.float32]
    type_name: str


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """Hyperparameters and weights by tensor name."""

    hyperparameters: Hyperparameters
    weights: Mapping[str, Weight]

    def weight(self, name: str) -> Weight:
        """Return a tensor that must be there."""
        return self.weights[name]

    def find(self, name: str) -> Weight | None:
        """Return a tensor that a family may leave out."""
        return self.weights.get(name)


def _hyperparameters(metadata: Mapping[str, Any]) -> Hyperparameters:
    arch = metadata["general.architecture"]

    def read(key: str, default: Any = None) -> Any:
        return metadata.get(f"{arch}.{key}", default)

    dim, n_heads = read("embedding_length"), read("attention.head_count")
    head_dim = read("attention.key_length", dim // n_heads)
    return Hyperparameters(
        architecture=arch,
        n_layers=read("block_count"),
        dim=dim,
        n_heads=n_heads,
        n_kv_heads=read("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        norm_eps=read("attention.layer_norm_rms_epsilon"),
        n_rot=read("rope.dimension_count", head_dim),
        rope_base=read("rope.freq_base", 10000.0),
        rope_scaling=read("rope.scaling.type", "linear"),
        rope_factor=read("rope.scaling.factor", read("rope.scale_linear", 1.0)),
        rope_original_context=read("rope.scaling.original_context_length", read("context_length")),
        rope_attn_factor=read("rope.scaling.attn_factor", 1.0),
        rope_low_turns=read("rope.scaling.low_freq_factor", 1.0),
        rope_high_turns=read("rope.scaling.high_freq_factor", 4.0),
    )


def load(path: str | Path) -> ReferenceModel:
    """Read and dequantize a whole file."""
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    weights = {
        tensor.name: Weight(
            np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32),
            tensor.tensor_type.name,
        )
        for tensor in reader.tensors
    }
    return ReferenceModel(_hyperparameters(metadata), weights)
