"""gpt-oss: experts in blocks of MXFP4, with biases; sinks of attention; every other layer a window.

Their blocks and scales are two tensors, whose bytes become GGUF's: nothing is quantized again. Rows
of gate and up alternate. Sources: ``modeling_gpt_oss.py`` and ``integrations/mxfp4.py`` of
transformers; the format: OCP Microscaling Formats (MX) 1.0, 5.3.1; the order of the codes in GGUF:
``block_mxfp4`` of ggml.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_experts import expert_sizes
from llamad_tools.checkpoints.huggingface_family import Config
from llamad_tools.checkpoints.hyperparameters import Layer, Shape
from llamad_tools.checkpoints.json_file import positive_count
from llamad_tools.checkpoints.source import Metadata, Rows, SourceTensor, corrupt, unsupported
from llamad_tools.checkpoints.tensor_order import pick_columns

_BLOCK = 32  # weights
_BLOCK_BYTES = 16  # of their codes
_ONLY = {"swiglu_limit": 7.0, "swiglu_alpha": 1.702}


def gpt_oss_keys(path: Path, config: Config) -> Metadata:
    """Return the window and the experts' sizes. Raises LlamadError that names the key."""
    for key, expected in _ONLY.items():
        if config.get(key, expected) != expected:
            raise unsupported(path, f"{key} {config[key]!r} is not supported, only {expected!r}")
    window = positive_count(path, "sliding_window", config.get("sliding_window"))
    sizes = expert_sizes(path, config)
    return {"attention.sliding_window": window, **sizes.keys(sizes.hidden)}


def gpt_oss_layers(path: Path, config: Config) -> tuple[Layer, ...]:
    """Return every layer: attention with sinks, and experts with biases."""
    n_layers, n_heads, n_kv, head_dim = (
        positive_count(path, key, config.get(key))
        for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    sizes = expert_sizes(path, config)
    more: dict[str, Shape] = {
        "attn_sinks.weight": (n_heads,),
        **sizes.tensors(),
        "ffn_gate_inp.bias": (sizes.n,),
        "ffn_gate_exps.bias": (sizes.n, sizes.hidden),
        "ffn_up_exps.bias": (sizes.n, sizes.hidden),
        "ffn_down_exps.bias": (sizes.n, sizes.dim),
    }
    return (Layer(0, n_kv, head_dim, more=more),) * n_layers


def arrange_gpt_oss(path: Path, config: Config, tensor: SourceTensor) -> Sequence[SourceTensor]:
    """Return a tensor of experts as a stack of matrices, gate and up apart; others as they are."""
    if tensor.name.endswith(".blocks"):
        tensor = _with_whole_rows(path, tensor)
    if "ffn_gate_up_exps" not in tensor.name:
        return (tensor,)
    if tensor.shape[1] % 2:
        raise corrupt(path, f"{tensor.name} has {tensor.shape[1]} rows, no gate and up")
    return [
        _every_other(tensor, part).renamed(tensor.name.replace("gate_up", name))
        for part, name in enumerate(("gate", "up"))
    ]


def join_mxfp4(path: Path, tensors: Iterable[SourceTensor]) -> list[SourceTensor]:
    """Return the tensors, blocks and scales of the same weights as one of type MXFP4.

    Raises LlamadError for blocks without scales, and for other tensors of bytes.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    for name in [name for name in by_name if name.endswith(".blocks")]:
        stem = name.removesuffix(".blocks")
        scales = by_name.pop(f"{stem}.scales", None)
        if scales is None:
            raise corrupt(path, f"{name} has no scales")
        by_name[f"{stem}.weight"] = _join(path, f"{stem}.weight", by_name.pop(name), scales)
    for tensor in by_name.values():
        if tensor.type_name == "U8":
            raise unsupported(path, f"{tensor.name} is U8, which is no type of weights here")
    return list(by_name.values())


def _join(path: Path, name: str, blocks: SourceTensor, scales: SourceTensor) -> SourceTensor:
    n_blocks = blocks.shape[-1] // _BLOCK_BYTES
    if scales.shape != (*blocks.shape[:-1], n_blocks) or {blocks.type_name, scales.type_name} != {
        "U8"
    }:
        raise corrupt(
            path,
            f"{name}: blocks are {blocks.type_name} {blocks.shape}, scales {scales.type_name} "
            f"{scales.shape}",
        )

    def read_rows(start: int, stop: int) -> Rows:
        pairs = blocks.read_rows(start, stop).reshape(stop - start, n_blocks, _BLOCK_BYTES)
        codes = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(stop - start, n_blocks, _BLOCK)
        halves = codes[..., :_BLOCK_BYTES] | codes[..., _BLOCK_BYTES:] << 4
        exponents = scales.read_rows(start, stop)[..., None]
        return np.concatenate([exponents, halves], axis=-1).reshape(stop - start, -1)

    shape = (*blocks.shape[:-1], n_blocks * _BLOCK)
    return SourceTensor(name, shape, "MXFP4", read_rows)


def _with_whole_rows(path: Path, blocks: SourceTensor) -> SourceTensor:
    """Return blocks of shape (experts, rows, blocks, 16) as (experts, rows, blocks * 16)."""
    match blocks.shape:
        case (n, n_rows, n_blocks, 16):
            pass
        case shape:
            raise corrupt(path, f"{blocks.name} has shape {shape}, must end in blocks of 16 bytes")

    def read_rows(start: int, stop: int) -> Rows:
        return blocks.read_rows(start * n_blocks, stop * n_blocks).reshape(stop - start, -1)

    return replace(blocks, shape=(n, n_rows, n_blocks * 16), read_rows=read_rows)


def _every_other(tensor: SourceTensor, first: int) -> SourceTensor:
    """Return every other row of each expert's matrix, or element of its bias."""
    n, n_rows, *columns = tensor.shape
    if not columns:
        return pick_columns(tensor, np.arange(first, n_rows, 2))

    def read_rows(start: int, stop: int) -> Rows:
        return tensor.read_rows(2 * start, 2 * stop)[first::2]

    return replace(tensor, shape=(n, n_rows // 2, *columns), read_rows=read_rows)
