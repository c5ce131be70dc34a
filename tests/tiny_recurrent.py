"""What tiny models have in place of attention: short convolutions, Gated DeltaNet."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_gguf import TinySpec


def recurrent_matrices(spec: "TinySpec", layer: str) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield name and (rows, columns) of every matrix of a layer that has a state."""
    if spec.architecture == "qwen35":
        n_v, channels = spec.delta_v_heads * spec.delta_dim, spec.delta_channels
        yield f"{layer}attn_qkv.weight", (channels, spec.dim)
        yield f"{layer}attn_gate.weight", (n_v, spec.dim)
        yield f"{layer}ssm_beta.weight", (spec.delta_v_heads, spec.dim)
        yield f"{layer}ssm_alpha.weight", (spec.delta_v_heads, spec.dim)
        yield f"{layer}ssm_conv1d.weight", (channels, spec.conv_width)
        yield f"{layer}ssm_out.weight", (spec.dim, n_v)
        return
    yield f"{layer}shortconv.in_proj.weight", (3 * spec.dim, spec.dim)
    yield f"{layer}shortconv.conv.weight", (spec.dim, spec.conv_width)
    yield f"{layer}shortconv.out_proj.weight", (spec.dim, spec.dim)
