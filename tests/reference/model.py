"""What a GGUF file says: hyperparameters and dequantized weights.

Does not compute; ``transformer.py`` does. Key names are those of the GGUF specification.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from reference.grid_blocks import DECODERS

Array = NDArray[np.floating[Any]]

# Formats whose weights the `gguf` package cannot compute (0.19 knows the id of Q1_0 only): id,
# weights of a block, bits of a weight; x = d * q, q of the code as ggml-quants.c says.
_BITS: Mapping[str, tuple[int, int, int, tuple[int, ...]]] = {
    "Q1_0": (41, 128, 1, (-1, 1)),
    "Q2_0": (42, 64, 2, (-1, 0, 1, 2)),
}


def _teach_gguf_the_types() -> None:
    """Let its reader pass tensors of the types it does not know."""
    for name, (type_id, block, bits, _) in _BITS.items():
        if type_id not in gguf.GGMLQuantizationType._value2member_map_:
            kind = int.__new__(gguf.GGMLQuantizationType, type_id)
            kind._name_, kind._value_ = name, type_id
            gguf.GGMLQuantizationType._value2member_map_[type_id] = kind
            gguf.GGMLQuantizationType._member_map_[name] = kind
        kind = gguf.GGMLQuantizationType(type_id)
        gguf.GGML_QUANT_SIZES[kind] = (block, 2 + block * bits // 8)


_teach_gguf_the_types()


def block_bytes(type_name: str) -> int:
    """Return the bytes of a block."""
    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]][1])


def dequantize(data: NDArray[np.uint8], type_name: str) -> NDArray[np.float32]:
    """Return float32 weights of rows of blocks: (..., bytes) -> (..., weights)."""
    if type_name in DECODERS:
        rows = DECODERS[type_name](data.reshape(-1, block_bytes(type_name)))
        return rows.reshape(*data.shape[:-1], -1)
    if type_name not in _BITS:
        kind = gguf.GGMLQuantizationType[type_name]
        return np.asarray(gguf.quants.dequantize(data, kind), dtype=np.float32)
    _, block, bits, values = _BITS[type_name]
    blocks = np.ascontiguousarray(data).reshape(-1, 2 + block * bits // 8)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (blocks[:, 2:, None] >> shifts) & np.uint8((1 << bits) - 1)
    q = np.array(values, dtype=np.float32)[codes].reshape(-1, block)
    result: NDArray[np.float32] = (scales * q).reshape(*data.shape[:-1], -1)
    return result


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers of a model; see the README of its paper for each."""

    architecture: str
    n_layers: int
    dim: int
    n_heads: int
    n_kv_heads: int | Sequence[int]  # of all layers, or of each
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
    # Of families that have them; 0: none. A window counts the token itself.
    window: int = 0
    window_pattern: int | Sequence[bool] | None = None  # a period, or whether each layer is local
    local_rope_base: float | None = None
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    rotates: bool = True  # false: the file says that no layer has RoPE
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float | None = None  # 1/sqrt(head_dim)
    logit_scale: float = 1.0  # as the file has it: some families divide by it
    is_parallel: bool = False
    late_query_scale: float = 0.0
    yarn_log_multiplier: float = 0.0
    ssm_groups: int = 0  # of Gated DeltaNet: heads of q and k; of Mamba-2: of B and C
    ssm_heads: int = 0
    ssm_state: int = 0  # numbers of a head's state for each of its elements
    ssm_inner: int = 0  # elements of all heads
    recurrent: Sequence[bool] = ()  # whether each layer has a state in place of attention

    # Of mixtures of experts; 0: there are none.
    n_experts_used: int = 0
    n_experts: int = 0
    expert_gating: int = 1  # 1: softmax, 2: sigmoid
    expert_weights_norm: bool | None = None  # the family says
    expert_weights_scale: float = 1.0

    # Of gemma4.
    local_head_dim: int = 0
    local_n_rot: int = 0  # 0: n_rot
    n_shared_kv: int = 0  # the last layers, which read an earlier layer's keys and values
    layer_input_dim: int = 0

    def kv_heads(self, layer: int) -> int:
        """Heads of keys and values in a layer."""
        return self.n_kv_heads if isinstance(self.n_kv_heads, int) else self.n_kv_heads[layer]


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


def _recurrent(arch: str, read: Callable[..., Any]) -> list[bool]:
    """Which layers of Qwen3.5 have the delta rule."""
    if arch not in ("qwen35", "qwen35moe"):
        return []
    flags = read("attention.recurrent_layers")
    n, every = read("block_count"), read("full_attention_interval", 4)
    return [bool(f) for f in flags] if flags else [(i + 1) % every != 0 for i in range(n)]


def _hyperparameters(metadata: Mapping[str, Any]) -> Hyperparameters:
    arch = metadata["general.architecture"]

    def read(key: str, default: Any = None) -> Any:
        return metadata.get(f"{arch}.{key}", default)

    n_layers = read("block_count") - read("nextn_predict_layers", 0)
    dim = read("embedding_length")
    n_heads = read("attention.head_count")
    n_kv_heads = read("attention.head_count_kv", n_heads)
    by_layer = n_kv_heads if isinstance(n_kv_heads, list) else []
    head_dim = read("attention.key_length", dim // n_heads if n_heads else 0)
    return Hyperparameters(
        architecture=arch,
        n_layers=n_layers,
        dim=dim,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        norm_eps=read("attention.layer_norm_rms_epsilon", read("attention.layer_norm_epsilon")),
        n_rot=read("rope.dimension_count", head_dim),
        rope_base=read("rope.freq_base", 10000.0),
        rope_scaling=read("rope.scaling.type", "linear"),
        rope_factor=read("rope.scaling.factor", read("rope.scale_linear", 1.0)),
        rope_original_context=read("rope.scaling.original_context_length", read("context_length")),
        rope_attn_factor=read("rope.scaling.attn_factor", 1.0),
        rope_low_turns=read("rope.scaling.low_freq_factor", 1.0),
        rope_high_turns=read("rope.scaling.high_freq_factor", 4.0),
        window=read("attention.sliding_window", 4096 if arch == "gemma2" else 0),
        window_pattern=read("attention.sliding_window_pattern"),
        local_rope_base=read("rope.freq_base_swa"),
        attention_softcap=read("attn_logit_softcapping"),
        logits_softcap=read("final_logit_softcapping"),
        rotates=read("rope.scaling.finetuned", True),
        embedding_scale=read("embedding_scale", 1.0),
        residual_scale=read("residual_scale", 1.0),
        attention_scale=read("attention.scale"),
        logit_scale=read("logit_scale", 1.0),
        is_parallel=read("use_parallel_residual", False),
        late_query_scale=read("attention.temperature_scale", 0.0),
        yarn_log_multiplier=read("rope.scaling.yarn_log_multiplier", 0.0),
        recurrent=_recurrent(arch, read) or [n == 0 for n in by_layer or [n_heads] * n_layers],
        ssm_groups=read("ssm.group_count", 0),
        ssm_heads=read("ssm.time_step_rank", 0),
        ssm_state=read("ssm.state_size", 0),
        ssm_inner=read("ssm.inner_size", 0),
        n_experts=read("expert_count", 0),
        n_experts_used=read("expert_used_count", 0),
        expert_gating=read("expert_gating_func", 1),
        expert_weights_norm=read("expert_weights_norm"),
        expert_weights_scale=read("expert_weights_scale", 1.0) or 1.0,
        local_head_dim=read("attention.key_length_swa", 0),
        local_n_rot=read("rope.dimension_count_swa", 0),
        n_shared_kv=read("attention.shared_kv_layers", 0),
        layer_input_dim=read("embedding_length_per_layer_input", 0),
    )


def load(path: str | Path) -> ReferenceModel:
    """Read and dequantize a whole file."""
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    weights = {
        tensor.name: Weight(
            dequantize(tensor.data, tensor.tensor_type.name),
            tensor.tensor_type.name,
        )
        for tensor in reader.tensors
    }
    return ReferenceModel(_hyperparameters(metadata), weights)
