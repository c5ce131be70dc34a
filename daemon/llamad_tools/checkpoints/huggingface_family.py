"""What sets a family of Hugging Face folders apart: the facts of a row in ``huggingface_families``.

Owns the names that most families give their tensors. Sources: transformers' ``modeling_*.py`` and
``configuration_*.py`` of that name, and llama.cpp's converters for the names of keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.source import Metadata, SourceTensor

Config = Mapping[str, Any]
Keys = Callable[[Path, Config], Metadata]
Arrange = Callable[[Path, Config, SourceTensor], Sequence[SourceTensor]]
Layers = Callable[[Path, Config], tuple[Layer, ...]]

PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
FOUR_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
LATE_FEED_NORM = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
}
ONE_NORM = {"input_layernorm": "attn_norm"}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}

ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
FEED = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
LLAMA_FEED = {
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
}
FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}

SILU = frozenset({"silu", "swish"})  # names of one function
GELU = frozenset({"gelu", "gelu_pytorch_tanh"})  # Gemma's is by tanh, also where it says gelu
GELU_TANH = frozenset({"gelu_new", "gelu_pytorch_tanh", "gelu_fast"})
GELU_ERF = frozenset({"gelu"})


def _as_it_is(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    return (tensor,)


@dataclass(frozen=True, slots=True)
class Family:
    """What sets a family apart. architecture: GGUF's name.

    A bias is there or not, or as a key of config.json says.
    """

    architecture: str
    interleaves: bool = False  # GGUF rotates neighbours where Hugging Face rotates halves
    head_dim: int | None = None  # where config.json says none; else hidden_size / heads
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)  # theirs: ours
    output_norm: str = "output_norm"
    unties: bool = False  # a file has an output of its own where the model's is the embedding
    layer_prefix: str = "model.layers"
    matrices: Mapping[str, str] = field(default_factory=lambda: {**ATTENTION, **FEED})
    norms: Mapping[str, str] = field(default_factory=lambda: PRE_NORMS)
    qk_norms: Mapping[str, str] = field(default_factory=dict)
    experts: str | None = None  # the module of a layer that has experts, one by one
    whole_names: Mapping[str, str] = field(default_factory=dict)  # of a layer, suffix included
    row_norm: bool = False  # qk_norms are of all heads together
    norms_without_one: bool = False  # a stored norm weight is one less than what it multiplies by
    eps_keys: Sequence[str] = ("rms_norm_eps",)
    makes_vectors: bool = False  # and has no output
    layer_norm: bool = False  # in place of RMSNorm
    norm_bias: bool = False
    activations: frozenset[str] = SILU
    gated: bool = True
    fused_qkv: bool = False  # q, k and v in one matrix
    fused_gate: bool = False  # gate and up in one
    gates_attention: bool = False  # q_proj has a gate behind each head's query
    qkv_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = "mlp_bias"
    logits_bias: bool = False
    window_period: int = 0  # every n-th layer sees everything, the others a window; 0: no windows
    window_optional: bool = False  # without sliding_window all layers see everything
    own_windows: bool = False  # ``keys`` says which layers have a window, or none has
    always_slides: bool = False  # every layer, by sliding_window, which cuts the context here
    partial_rope: bool = False  # RoPE may turn a part of each head
    partial: float | None = None  # how much of it, where config.json says nothing; None: all
    theta: float = 10000.0  # of RoPE, where config.json says none
    truncates_yarn: bool = True  # its ramp begins and ends at whole pairs
    stored_as: str | None = None  # the quant_method of published folders, whose blocks are read
    divides_magnitude: bool = False  # YaRN's factor of the attention, by that of mscale_all_dim
    defaults: Config = field(default_factory=dict)  # what transformers takes for absent keys
    keys: Keys = lambda path, config: {}  # below the architecture's; refuses what it cannot say
    arrange: Arrange = _as_it_is  # one of their tensors, renamed, to GGUF's
    layers: Layers = lambda path, config: ()  # where they differ
    outer_shapes: Callable[[Config], Mapping[str, Shape]] = lambda config: {}  # further tensors

    def inner_names(self) -> dict[str, str]:
        """Return the names of a layer's tensors, without weight or bias: theirs to GGUF's."""
        return {**self.matrices, **self.norms, **self.qk_norms}
