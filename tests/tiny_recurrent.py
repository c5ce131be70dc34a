"""What tiny models have in place of attention: short convolutions, Gated DeltaNet, state spaces."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_gguf import Metadata, TinySpec

STATE_SPACES = ("granitehybrid", "falcon-h1", "mamba2")
DELTA_NETS = ("qwen35", "qwen35moe")
CONVOLVED = ("lfm2", "lfm2moe")
BESIDE_ATTENTION = ("falcon-h1",)  # in every layer


def delta_channels(spec: "TinySpec") -> int:
    """Return what the convolution of Gated DeltaNet runs over."""
    return (2 * spec.delta_k_heads + spec.delta_v_heads) * spec.delta_dim


def ssm_inner(spec: "TinySpec") -> int:
    """Return the elements of all heads of a state space."""
    return 2 * spec.dim


def ssm_channels(spec: "TinySpec") -> int:
    """Return what the convolution of a state space runs over."""
    return ssm_inner(spec) + 2 * spec.ssm_groups * spec.ssm_state


def recurrent_matrices(spec: "TinySpec", layer: str) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield name and (rows, columns) of every matrix of a layer that has a state."""
    if spec.architecture in DELTA_NETS:
        n_v, channels = spec.delta_v_heads * spec.delta_dim, delta_channels(spec)
        yield f"{layer}attn_qkv.weight", (channels, spec.dim)
        yield f"{layer}attn_gate.weight", (n_v, spec.dim)
        yield f"{layer}ssm_beta.weight", (spec.delta_v_heads, spec.dim)
        yield f"{layer}ssm_alpha.weight", (spec.delta_v_heads, spec.dim)
        yield f"{layer}ssm_conv1d.weight", (channels, spec.conv_width)
        yield f"{layer}ssm_out.weight", (spec.dim, n_v)
        return
    if spec.architecture in STATE_SPACES:
        n_heads, channels = ssm_inner(spec) // spec.ssm_head_dim, ssm_channels(spec)
        yield f"{layer}ssm_in.weight", (ssm_inner(spec) + channels + n_heads, spec.dim)
        yield f"{layer}ssm_conv1d.weight", (channels, spec.conv_width)
        yield f"{layer}ssm_out.weight", (spec.dim, ssm_inner(spec))
        return
    yield f"{layer}shortconv.in_proj.weight", (3 * spec.dim, spec.dim)
    yield f"{layer}shortconv.conv.weight", (spec.dim, spec.conv_width)
    yield f"{layer}shortconv.out_proj.weight", (spec.dim, spec.dim)


def recurrent_vectors(spec: "TinySpec", layer: str) -> Iterable[tuple[str, int, float]]:
    """Yield name, length and mean of the vectors of a layer that has a state."""
    if spec.architecture in DELTA_NETS:
        yield f"{layer}ssm_dt.bias", spec.delta_v_heads, 0.0
        yield f"{layer}ssm_a", spec.delta_v_heads, -1.0
        yield f"{layer}ssm_norm.weight", spec.delta_dim, 1.0
    if spec.architecture in STATE_SPACES:
        n_heads = ssm_inner(spec) // spec.ssm_head_dim
        yield f"{layer}ssm_conv1d.bias", ssm_channels(spec), 0.0
        yield f"{layer}ssm_dt.bias", n_heads, -1.0
        yield f"{layer}ssm_a", n_heads, -1.0
        yield f"{layer}ssm_d", n_heads, 1.0
    if spec.architecture in ("granitehybrid", "mamba2"):  # Falcon-H1's small models have none
        yield f"{layer}ssm_norm.weight", ssm_inner(spec), 1.0


def vector_shape(spec: "TinySpec", name: str, length: int) -> tuple[int, ...]:
    """Return the shape, rows first, in which converters write a vector."""
    if spec.architecture in STATE_SPACES and name.endswith((".ssm_a", ".ssm_d")):
        return length, 1
    if spec.architecture in STATE_SPACES and name.endswith("ssm_norm.weight"):
        return spec.ssm_groups, length // spec.ssm_groups
    return (length,)


def recurrent_metadata(spec: "TinySpec") -> "dict[str, Metadata]":
    """Return the keys that say how wide states are, and which layers have them."""
    arch = spec.architecture
    kv_heads = [0 if i in spec.recurrent else spec.n_kv_heads for i in range(spec.n_layers)]
    if arch in DELTA_NETS:
        n_all = spec.n_layers + spec.n_guess_layers
        flags = [int(i in spec.recurrent) for i in range(n_all)]
        result: dict[str, Metadata] = {
            f"{arch}.ssm.conv_kernel": spec.conv_width,
            f"{arch}.ssm.state_size": spec.delta_dim,
            f"{arch}.ssm.group_count": spec.delta_k_heads,
            f"{arch}.ssm.time_step_rank": spec.delta_v_heads,
            f"{arch}.ssm.inner_size": spec.delta_v_heads * spec.delta_dim,
            f"{arch}.rope.dimension_sections": [2, 1, 1, 0],
        }
        if spec.recurrent != tuple(i for i in range(spec.n_layers) if (i + 1) % 4):
            result[f"{arch}.attention.recurrent_layers"] = flags
        return result
    if arch in CONVOLVED:
        return {
            f"{arch}.shortconv.l_cache": spec.conv_width,
            f"{arch}.attention.head_count_kv": kv_heads,
        }
    if arch not in STATE_SPACES:
        return {}
    result = {
        f"{arch}.ssm.conv_kernel": spec.conv_width,
        f"{arch}.ssm.state_size": spec.ssm_state,
        f"{arch}.ssm.group_count": spec.ssm_groups,
        f"{arch}.ssm.time_step_rank": ssm_inner(spec) // spec.ssm_head_dim,
        f"{arch}.ssm.inner_size": ssm_inner(spec),
    }
    if arch == "granitehybrid":
        result["granitehybrid.attention.head_count_kv"] = kv_heads
    if arch == "mamba2":  # in which no layer attends or has a feed-forward
        keys = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
        result |= {f"mamba2.{key}": 0 for key in keys}
    return result
