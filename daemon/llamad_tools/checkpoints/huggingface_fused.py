"""Families that store queries, keys and values head by head in one matrix: InternLM2, GPT-NeoX.

Sources: ``modeling_internlm2.py`` of InternLM, ``modeling_gpt_neox.py`` of transformers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.source import SourceTensor, corrupt
from llamad_tools.checkpoints.tensor_order import heads_in_order, pick


def split_groups(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return InternLM2's wqkv, which has each key head's queries, its key and value, as three."""
    prefix, found, suffix = tensor.name.partition("attn_qkv")
    if not found:
        return (tensor,)
    n_heads, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    group = n_heads // n_kv + 2
    head_dim = _head_dim(path, tensor, n_kv * group)
    heads = np.arange(n_kv * group).reshape(n_kv, group)
    parts = {"attn_q": heads[:, :-2], "attn_k": heads[:, -2], "attn_v": heads[:, -1]}
    return [
        pick(tensor, heads_in_order(part.reshape(-1), head_dim)).renamed(prefix + name + suffix)
        for name, part in parts.items()
    ]


def order_by_part(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return GPT-NeoX's query_key_value with all queries first, then keys, then values."""
    if "attn_qkv" not in tensor.name:
        return (tensor,)
    n_heads = config["num_attention_heads"]
    head_dim = _head_dim(path, tensor, 3 * n_heads)
    heads = np.arange(3 * n_heads).reshape(n_heads, 3).T.reshape(-1)
    return (pick(tensor, heads_in_order(heads, head_dim)),)


def _head_dim(path: Path, tensor: SourceTensor, n_heads: int) -> int:
    if tensor.shape[0] % n_heads:
        raise corrupt(path, f"{tensor.name} has {tensor.shape[0]} rows, not {n_heads} heads")
    return tensor.shape[0] // n_heads
