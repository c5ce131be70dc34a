"""LFM2: layers of short convolutions among those with attention (``modeling_lfm2.py``)."""

from collections.abc import Sequence
from pathlib import Path

from llamad_tools.checkpoints.huggingface_family import ATTENTION, LLAMA_FEED, Config
from llamad_tools.checkpoints.hyperparameters import Layer
from llamad_tools.checkpoints.json_file import positive_count, positive_float
from llamad_tools.checkpoints.layer_types import layer_types
from llamad_tools.checkpoints.source import Metadata, SourceTensor, unsupported
from llamad_tools.checkpoints.tensor_order import without_middle

_CONVOLUTION = {
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
}
LFM2_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.embedding_norm": "token_embd_norm",
    "lm_head": "output",
}
LFM2 = {**ATTENTION, "self_attn.out_proj": "attn_output", **LLAMA_FEED, **_CONVOLUTION}
LFM2_NORMS = {"operator_norm": "attn_norm", "ffn_norm": "ffn_norm"}
LFM2_HEAD_NORMS = {
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
}
_KINDS = ("conv", "full_attention")


def lfm2_keys(path: Path, config: Config) -> Metadata:
    """Return LFM2's keys: how many tokens a convolution sees, heads and widths."""
    if config.get("conv_bias"):
        raise unsupported(path, "conv_bias true is not supported, only false")
    layers = lfm2_layers(path, config)
    return {
        "shortconv.l_cache": positive_count(path, "conv_L_cache", config.get("conv_L_cache")),
        "attention.head_count_kv": [layer.n_kv_heads for layer in layers],
        "feed_forward_length": _hidden_dim(path, config),
    }


def lfm2_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: a convolution, or attention. Raises LlamadError that names the key."""
    n_layers = positive_count(path, "num_hidden_layers", config.get("num_hidden_layers"))
    dim = positive_count(path, "hidden_size", config.get("hidden_size"))
    width = positive_count(path, "conv_L_cache", config.get("conv_L_cache"))
    n_kv = positive_count(path, "num_key_value_heads", config.get("num_key_value_heads"))
    n_heads = positive_count(path, "num_attention_heads", config.get("num_attention_heads"))
    head_dim = positive_count(path, "head_dim", config.get("head_dim") or dim // n_heads)
    usual = [_KINDS[1]] * n_layers
    attends = config.get("full_attn_idxs")
    if isinstance(attends, list):
        usual = [_KINDS[i in attends] for i in range(n_layers)]
    mixer = {
        "shortconv.conv.weight": (dim, width),
        "shortconv.in_proj.weight": (3 * dim, dim),
        "shortconv.out_proj.weight": (dim, dim),
    }
    hidden_dim = _hidden_dim(path, config)
    return tuple(
        Layer(hidden_dim, 0, head_dim, mixer)
        if kind == "conv"
        else Layer(hidden_dim, n_kv, head_dim)
        for kind in layer_types(path, config, n_layers, _KINDS, usual)
    )


def arrange_lfm2(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a convolution's table without the dimension that PyTorch's has in the middle."""
    return (without_middle(tensor) if "shortconv.conv" in tensor.name else tensor,)


def _hidden_dim(path: Path, config: Config) -> int:
    """Return the feed-forward's width, two thirds of the one given where it is to be adjusted."""
    key = "intermediate_size" if config.get("block_ff_dim") is None else "block_ff_dim"
    width = positive_count(path, key, config.get(key))
    if config.get("block_auto_adjust_ff_dim") is False:
        return width
    width = 2 * width // 3
    multiplier = config.get("block_ffn_dim_multiplier")
    if multiplier is None:
        return width
    factor = positive_float(path, "block_ffn_dim_multiplier", multiplier)
    multiple = positive_count(path, "block_multiple_of", config.get("block_multiple_of"))
    return positive_count(path, key, multiple * -(-int(factor * width) // multiple))
