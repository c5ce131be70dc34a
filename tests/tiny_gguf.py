"""Write seeded tiny GGUF models: every architecture, head layout and block format in kilobytes.

Owns its own writer of the container (GGUF v3, ggml docs/gguf.md), so that nothing the engine or
the ``gguf`` package does can hide a mistake in the other. Weights are random blocks with scales
chosen so that activations keep a magnitude near 1. The vocabulary can spell any text.

For the C tests and qemu: ``python tests/tiny_gguf.py OUT [--weight-type Q4_K ...]``.
"""

import argparse
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from tiny_experts import (
    BESIDE_DENSE,
    ROUTER_RMS,
    expert_matrices,
    expert_metadata,
    expert_vector_shape,
    expert_vectors,
)
from tiny_formats import FORMATS as FORMATS
from tiny_formats import random_rows as random_rows
from tiny_recurrent import (
    BESIDE_ATTENTION,
    CONVOLVED,
    DELTA_NETS,
    recurrent_matrices,
    recurrent_metadata,
    recurrent_vectors,
    vector_shape,
)
from tiny_vocabulary import vocabulary as vocabulary

Metadata = bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[str]

ALIGNMENT = 32  # bytes; the format's default


@dataclass(frozen=True, slots=True)
class TinySpec:
    """The shape of a tiny model. ``None`` means what the architecture does by itself."""

    architecture: str = "llama"
    dim: int = 64
    hidden_dim: int = 96
    n_layers: int = 2
    n_guess_layers: int = 0  # behind them, of qwen35: they guess tokens (nextn_predict_layers)
    n_heads: int = 4
    n_kv_heads: int = 2
    kv_heads_by_layer: Sequence[int] | None = None  # n_kv_heads everywhere
    hidden_dim_by_layer: Sequence[int] | None = None
    head_dim: int | None = None  # dim / n_heads
    # Of gemma4: heads of layers with a window, which layers have one, the last layers that read an
    # earlier one's keys and are twice as wide, layers whose values are their keys, and inputs.
    local_head_dim: int | None = None
    is_local: Sequence[bool] = ()
    n_shared_kv: int = 0
    keyed_values: Sequence[int] = ()
    layer_input_dim: int = 0
    vocab_size: int = 300  # at least 300: the vocabulary that can spell any text
    n_ctx_train: int = 512
    tied_output: bool = False
    qkv_bias: bool | None = None  # qwen2 has them
    output_bias: bool = False  # attn_output.bias
    ffn_bias: bool = False  # of gate, up and down
    logits_bias: bool = False  # output.bias
    norm_eps: float = 1e-5
    rope_freq_base: float = 10000.0
    rope_dimension_count: int | None = None  # head_dim
    rope_scaling: str | None = None  # "linear", "yarn", "llama3", "longrope"
    rope_scaling_factor: float = 4.0
    rope_original_context: int = 64
    rope_freqs: bool = False  # rope_freqs.weight, as Llama 3.x files carry it
    weight_type: str = "F32"  # of all matrices, a name of FORMATS
    tensor_types: Mapping[str, str] = field(default_factory=dict)  # tensor name -> type, first
    window: int | None = None  # tokens, of the local layers
    recurrent: tuple[int, ...] = ()  # layers that have a state in place of attention
    conv_width: int = 3  # tokens that a convolution of such a layer sees
    delta_k_heads: int = 2  # of Gated DeltaNet
    delta_v_heads: int = 4
    delta_dim: int = 16
    ssm_groups: int = 2  # of state spaces (Mamba-2), whose heads are twice as wide as dim together
    ssm_state: int = 24
    ssm_head_dim: int = 16
    n_experts: int = 0  # of a layer's mixture; 0: feed-forwards are dense
    n_experts_used: int = 2
    expert_dim: int | None = None  # hidden_dim
    shared_expert_dim: int = 0  # 0: no expert is shared
    fused_experts: bool = False  # gate and up are in one tensor
    n_dense_layers: int = 0  # the first layers, which have no experts
    chat_template: str | None = None
    metadata: Mapping[str, Metadata] = field(default_factory=dict)  # added or replaced last
    seed: int = 1

    @property
    def resolved_head_dim(self) -> int:
        """Dimensions of one head."""
        return self.head_dim or self.dim // self.n_heads

    @property
    def has_states(self) -> bool:
        """Whether any layer remembers more of a sequence than keys and values."""
        return bool(self.recurrent) or self.architecture in BESIDE_ATTENTION

    def has_experts(self, layer: int) -> bool:
        """Whether a layer's feed-forward is a mixture of experts."""
        return self.n_experts > 0 and layer >= self.n_dense_layers

    def has_dense(self, layer: int) -> bool:
        """Whether a layer's feed-forward is, or stands beside, one without experts."""
        return not self.has_experts(layer) or self.architecture in BESIDE_DENSE

    def kv_heads(self, layer: int) -> int:
        """Heads of keys and values in a layer."""
        return self.kv_heads_by_layer[layer] if self.kv_heads_by_layer else self.n_kv_heads

    def hidden(self, layer: int) -> int:
        """Width of a layer's feed-forward."""
        if self.hidden_dim_by_layer:
            return self.hidden_dim_by_layer[layer]
        return self.hidden_dim * (1 if self.has_kv(layer) else 2)

    def has_kv(self, layer: int) -> bool:
        """Whether a layer has keys and values of its own."""
        return layer < self.n_layers - self.n_shared_kv or layer >= self.n_layers

    def head(self, layer: int) -> int:
        """Dimensions of a head of a layer."""
        local = self.is_local and self.is_local[layer]
        return (self.local_head_dim if local else None) or self.resolved_head_dim


TinyModelPath = Callable[[TinySpec], Path]  # of the fixture tiny_model_path in conftest.py


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as it stands in a file. shape: row-major, the row length last."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    data: bytes


# ---- container --------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _scalar(value: bool | int | float | str) -> tuple[int, bytes]:
    """Return the GGUF value type and the bytes of a scalar: bool, an integer of 32 bits, float32
    or string.
    """
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _string(value)


def _value(value: Metadata) -> bytes:
    if isinstance(value, bool | int | float | str):
        kind, raw = _scalar(value)
        return struct.pack("<I", kind) + raw
    if value and all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        body = struct.pack(f"<{len(value)}i", *value)
        return struct.pack("<IIQ", 9, 5, len(value)) + body
    items = [_scalar(item) for item in value]
    kind = items[0][0] if items else 4
    return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(raw for _, raw in items)


def encode_gguf(
    metadata: Mapping[str, Metadata], tensors: Sequence[Tensor], offsets: Sequence[int] = ()
) -> bytes:
    """Return a GGUF v3 file: header, metadata, tensor infos, padding, aligned tensor data.

    offsets: where the tensors' data lies, if not behind each other.
    """
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    body: list[bytes] = []
    for index, tensor in enumerate(tensors):
        offset = offsets[index] if offsets else offset
        dims = tuple(reversed(tensor.shape))
        type_id = FORMATS[tensor.type_name].type_id
        head.append(_string(tensor.name))
        head.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id, offset))
        body.append(tensor.data + bytes(-len(tensor.data) % ALIGNMENT))
        offset += len(body[-1])
    start = b"".join(head)
    return start + bytes(-len(start) % ALIGNMENT) + b"".join(body)


# ---- weights ----------------------------------------------------------------------------------

FUSED_QKV = ("phi3", "gptneox")  # q, k and v are rows of one tensor
FUSED_GATE = ("phi3",)  # gate and up are halves of one tensor
UNGATED = ("arcee", "phi2", "starcoder2", "gptneox")


def matrices(spec: TinySpec) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Yield name and (rows, columns) of every weight matrix, in file order.

    Those of experts are (experts, rows, columns).
    """
    yield "token_embd.weight", (spec.vocab_size, spec.dim)
    if not spec.tied_output:
        yield "output.weight", (spec.vocab_size, spec.dim)
    if n_inputs := spec.n_layers * spec.layer_input_dim:
        yield "per_layer_token_embd.weight", (spec.vocab_size, n_inputs)
        yield "per_layer_model_proj.weight", (n_inputs, spec.dim)
    for layer in range(spec.n_layers + spec.n_guess_layers):
        if layer >= spec.n_layers:
            yield f"blk.{layer}.nextn.eh_proj.weight", (spec.dim, 2 * spec.dim)
        q_dim, kv_dim = (n * spec.head(layer) for n in (spec.n_heads, spec.kv_heads(layer)))
        hidden = spec.hidden(layer)
        if layer in spec.recurrent or spec.architecture in BESIDE_ATTENTION:
            yield from recurrent_matrices(spec, f"blk.{layer}.")
        if layer in spec.recurrent:
            pass
        elif spec.architecture in FUSED_QKV:
            yield f"blk.{layer}.attn_qkv.weight", (q_dim + 2 * kv_dim, spec.dim)
        else:
            n_q = 2 * q_dim if spec.architecture in DELTA_NETS else q_dim  # with a gate
            yield f"blk.{layer}.attn_q.weight", (n_q, spec.dim)
            if spec.has_kv(layer):
                yield f"blk.{layer}.attn_k.weight", (kv_dim, spec.dim)
            if spec.has_kv(layer) and layer not in spec.keyed_values:
                yield f"blk.{layer}.attn_v.weight", (kv_dim, spec.dim)
        if layer not in spec.recurrent:
            yield f"blk.{layer}.attn_output.weight", (spec.dim, q_dim)
        if spec.architecture == "mamba2":  # a layer is its mixer alone
            continue
        if spec.has_experts(layer):
            yield from expert_matrices(spec, f"blk.{layer}.")
        if spec.has_dense(layer) and spec.architecture not in (*UNGATED, *FUSED_GATE):
            yield f"blk.{layer}.ffn_gate.weight", (hidden, spec.dim)
        if spec.has_dense(layer):
            n_up = hidden * (2 if spec.architecture in FUSED_GATE else 1)
            yield f"blk.{layer}.ffn_up.weight", (n_up, spec.dim)
            yield f"blk.{layer}.ffn_down.weight", (spec.dim, hidden)
        if spec.layer_input_dim:
            yield f"blk.{layer}.inp_gate.weight", (spec.layer_input_dim, spec.dim)
            yield f"blk.{layer}.proj.weight", (spec.dim, spec.layer_input_dim)


QKV_BIASED = ("qwen2", "qwen2vl", "qwen2moe", "gpt-oss")
BIASED_NORMS = ("phi2", "stablelm", "starcoder2", "gptneox")  # LayerNorm
LAYER_NORMS = (*BIASED_NORMS, "command-r", "cohere2")
ROUTERS = ("ffn_gate_inp.weight",)
PLAIN_MATRICES = (*ROUTERS, "shortconv.conv.weight", "ssm_conv1d.weight")  # always float32
HEAD_NORMS = (
    *("lfm2", "lfm2moe", "qwen35", "qwen35moe", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe"),
    *("gemma3", "gemma4", "exaone4", "hunyuan-dense"),
)
GUESS_NORMS = ("enorm", "hnorm", "shared_head_norm")
ROW_NORMS = ("olmo2", "olmoe")
_FOUR_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
_POST_NORMS = ("post_attention_norm", "post_ffw_norm")
NORMS = {  # of a layer; others: before each half
    "olmo2": _POST_NORMS,
    "exaone4": _POST_NORMS,
    "seed_oss": ("attn_norm", "post_attention_norm"),
    **dict.fromkeys(("qwen35", "qwen35moe", "gpt-oss"), ("attn_norm", "post_attention_norm")),
    **dict.fromkeys(("phi2", "command-r", "cohere2", "mamba2"), ("attn_norm",)),
    "gemma2": _FOUR_NORMS,
    "gemma3": _FOUR_NORMS,
    "gemma4": _FOUR_NORMS,
}


def _norm(spec: TinySpec, name: str) -> Iterator[tuple[str, int, float]]:
    is_bare = spec.architecture == "falcon-h1" and name.endswith("ffn_norm")
    yield name if is_bare else f"{name}.weight", spec.dim, 1.0
    if spec.architecture in BIASED_NORMS:
        yield f"{name}.bias", spec.dim, 0.0


def vectors(spec: TinySpec) -> Iterable[tuple[str, int, float]]:
    """Yield name, length and mean of every norm (mean 1) and bias (mean 0)."""
    head_dim = spec.resolved_head_dim
    biased = spec.architecture in QKV_BIASED if spec.qkv_bias is None else spec.qkv_bias
    yield from _norm(spec, "token_embd_norm" if spec.architecture in CONVOLVED else "output_norm")
    for layer in range(spec.n_layers + spec.n_guess_layers):
        for norm in GUESS_NORMS if layer >= spec.n_layers else ():
            yield from _norm(spec, f"blk.{layer}.nextn.{norm}")
        for norm in NORMS.get(spec.architecture, ("attn_norm", "ffn_norm")):
            yield from _norm(spec, f"blk.{layer}.{norm}")
        if layer in spec.recurrent or spec.architecture in BESIDE_ATTENTION:
            yield from recurrent_vectors(spec, f"blk.{layer}.")
        if spec.has_experts(layer):
            yield from expert_vectors(spec, f"blk.{layer}.")
        if layer in spec.recurrent:
            continue
        if spec.architecture in HEAD_NORMS:
            mean = 0.1 if spec.architecture == "gemma4" else 1.0  # whose scores have no other scale
            yield f"blk.{layer}.attn_q_norm.weight", spec.head(layer), mean
        if spec.architecture in HEAD_NORMS and spec.has_kv(layer):
            yield f"blk.{layer}.attn_k_norm.weight", spec.head(layer), 1.0
        if spec.layer_input_dim:
            yield f"blk.{layer}.post_norm.weight", spec.dim, 0.4
            yield f"blk.{layer}.layer_output_scale.weight", 1, 0.7
        if spec.architecture in ROW_NORMS:
            yield f"blk.{layer}.attn_q_norm.weight", spec.n_heads * head_dim, 1.0
            yield f"blk.{layer}.attn_k_norm.weight", spec.kv_heads(layer) * head_dim, 1.0
        if biased and spec.architecture in FUSED_QKV:
            n_rows = (spec.n_heads + 2 * spec.kv_heads(layer)) * head_dim
            yield f"blk.{layer}.attn_qkv.bias", n_rows, 0.0
        elif biased:
            yield f"blk.{layer}.attn_q.bias", spec.n_heads * head_dim, 0.0
            yield f"blk.{layer}.attn_k.bias", spec.kv_heads(layer) * head_dim, 0.0
            yield f"blk.{layer}.attn_v.bias", spec.kv_heads(layer) * head_dim, 0.0
        if spec.output_bias:
            yield f"blk.{layer}.attn_output.bias", spec.dim, 0.0
        if spec.architecture == "gpt-oss":
            yield f"blk.{layer}.attn_sinks.weight", spec.n_heads, 1.0
        if spec.ffn_bias:
            if spec.architecture not in (*UNGATED, *FUSED_GATE):
                yield f"blk.{layer}.ffn_gate.bias", spec.hidden(layer), 0.0
            n_up = spec.hidden(layer) * (2 if spec.architecture in FUSED_GATE else 1)
            yield f"blk.{layer}.ffn_up.bias", n_up, 0.0
            yield f"blk.{layer}.ffn_down.bias", spec.dim, 0.0
    if spec.layer_input_dim:
        yield "per_layer_proj_norm.weight", spec.layer_input_dim, 1.0
    if spec.logits_bias:
        yield "output.bias", spec.vocab_size, 0.0


def _tensors(spec: TinySpec) -> list[Tensor]:
    rng = np.random.default_rng(spec.seed)
    result: list[Tensor] = []
    for name, shape in matrices(spec):
        default = "F32" if name.endswith(PLAIN_MATRICES) else spec.weight_type
        type_name = spec.tensor_types.get(name, default)
        rms = 1.0 if name.endswith("token_embd.weight") else 1.0 / math.sqrt(shape[-1])
        rms *= ROUTER_RMS if name.endswith(ROUTERS) else 1.0
        rows = (math.prod(shape[:-1]), shape[-1])
        result.append(Tensor(name, type_name, shape, random_rows(rng, type_name, rows, rms)))
    for name, length, mean in vectors(spec):
        values = rng.normal(mean, 0.2, length).astype(np.float32)
        shaped = vector_shape(spec, name, length)
        if "_exps.bias" in name:
            shaped = expert_vector_shape(spec, length)
        result.append(Tensor(name, "F32", shaped, values.tobytes()))
    for name, largest in rope_factors(spec).items():
        n = (spec.rope_dimension_count or spec.resolved_head_dim) // 2
        factors = np.linspace(1.0, largest, n, dtype=np.float32)
        if spec.architecture == "gemma4":  # only the first pairs turn
            factors[n // 4 :] = 1e30
        result.append(Tensor(name, "F32", (n,), factors.tobytes()))
    return result


def rope_factors(spec: TinySpec) -> Mapping[str, float]:
    """Return the names of tensors of RoPE factors, and the largest factor in each."""
    if spec.rope_scaling == "longrope":
        factor = spec.rope_scaling_factor
        return {"rope_factors_long.weight": factor, "rope_factors_short.weight": factor / 2}
    return {"rope_freqs.weight": spec.rope_scaling_factor} if spec.rope_freqs else {}


# ---- metadata ---------------------------------------------------------------------------------

KEYS: Mapping[str, Mapping[str, Metadata]] = {  # that a family needs, beside what all have
    "granite": {"logit_scale": 6.0},
    "command-r": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.25},
    "gptneox": {"use_parallel_residual": True},
    "stablelm": {"use_parallel_residual": True},  # as converters write it, without a meaning
    "granitehybrid": {"logit_scale": 6.0},
    "granitemoe": {"logit_scale": 6.0},
    "minicpm": {"embedding_scale": 1.5, "residual_scale": 0.7, "logit_scale": 3.0},
}


def metadata_of(spec: TinySpec) -> dict[str, Metadata]:
    """Return the keys of a file and their values."""
    arch, head_dim = spec.architecture, spec.resolved_head_dim
    pieces, scores, types = vocabulary(spec.vocab_size)
    epsilon = "layer_norm_epsilon" if arch in LAYER_NORMS else "layer_norm_rms_epsilon"
    result: dict[str, Metadata] = {
        "general.architecture": arch,
        "general.name": f"tiny {arch} {spec.weight_type}",
        "general.alignment": ALIGNMENT,
        f"{arch}.context_length": spec.n_ctx_train,
        f"{arch}.embedding_length": spec.dim,
        f"{arch}.block_count": spec.n_layers + spec.n_guess_layers,
        f"{arch}.feed_forward_length": spec.hidden_dim_by_layer or spec.hidden_dim,
        f"{arch}.attention.head_count": spec.n_heads,
        f"{arch}.attention.head_count_kv": spec.kv_heads_by_layer or spec.n_kv_heads,
        f"{arch}.attention.{epsilon}": spec.norm_eps,
        f"{arch}.rope.freq_base": spec.rope_freq_base,
        f"{arch}.rope.dimension_count": spec.rope_dimension_count or head_dim,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }
    result |= recurrent_metadata(spec) | expert_metadata(spec)
    if arch == "gemma4":
        local_head_dim = spec.local_head_dim or head_dim
        result[f"{arch}.attention.sliding_window_pattern"] = spec.is_local
        result[f"{arch}.attention.shared_kv_layers"] = spec.n_shared_kv
        result[f"{arch}.embedding_length_per_layer_input"] = spec.layer_input_dim
        result[f"{arch}.rope.freq_base_swa"] = 10000.0
        for key in ("attention.key_length_swa", "attention.value_length_swa"):
            result[f"{arch}.{key}"] = local_head_dim
        result[f"{arch}.rope.dimension_count_swa"] = local_head_dim
    if spec.n_shared_kv:
        widths = [spec.hidden(layer) for layer in range(spec.n_layers)]
        result[f"{arch}.feed_forward_length"] = widths
    if spec.head_dim is not None:
        result[f"{arch}.attention.key_length"] = head_dim
        result[f"{arch}.attention.value_length"] = head_dim
    if spec.rope_scaling is not None:
        result[f"{arch}.rope.scaling.type"] = spec.rope_scaling
        if spec.rope_scaling != "longrope":
            result[f"{arch}.rope.scaling.factor"] = spec.rope_scaling_factor
        result[f"{arch}.rope.scaling.original_context_length"] = spec.rope_original_context
    if spec.n_guess_layers:
        result[f"{arch}.nextn_predict_layers"] = spec.n_guess_layers
    if spec.window is not None:
        result[f"{arch}.attention.sliding_window"] = spec.window
    for key, value in KEYS.get(arch, {}).items():
        result[f"{arch}.{key}"] = value
    if spec.chat_template is not None:
        result["tokenizer.chat_template"] = spec.chat_template
    return result | dict(spec.metadata)


def write_tiny_model(path: str | Path, spec: TinySpec | None = None) -> Path:
    """Write the model of ``spec`` to ``path`` and return the path. Same spec, same bytes."""
    spec = spec or TinySpec()
    path = Path(path)
    path.write_bytes(encode_gguf(metadata_of(spec), _tensors(spec)))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one model; every scalar field of TinySpec is an option."""
    parser = argparse.ArgumentParser(description="Write a tiny seeded GGUF model.")
    parser.add_argument("out", type=Path)
    scalars: dict[str, type[int] | type[float] | type[str]] = {
        "int": int,
        "float": float,
        "str": str,
    }
    for item in fields(TinySpec):
        kind = str(item.type).split(" |")[0].removeprefix("<class '").removesuffix("'>")
        flag = "--" + item.name.replace("_", "-")
        if kind == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        elif kind in scalars:
            parser.add_argument(flag, type=scalars[kind])
    chosen = vars(parser.parse_args(arguments))
    out = chosen.pop("out")
    changes = {name: value for name, value in chosen.items() if value is not None}
    write_tiny_model(out, replace(TinySpec(), **changes))


if __name__ == "__main__":
    main()
