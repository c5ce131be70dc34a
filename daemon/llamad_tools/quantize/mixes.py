"""Which tensor gets which type: the named mixes of llama.cpp, for every family the engine runs.

Pure functions of names and shapes. The rules are those of ``llama_tensor_get_type`` in llama.cpp's
``llama-quant.cpp``, so that a mix's name means the same size and quality everywhere: more bits for
the output matrix, for attention's values and for ffn_down, which lose the most. Q2_K and Q3_K rows
of other lengths than multiples of 256 become Q4_0, as in llama.cpp since 2026; before, they became
IQ4_NL, of the same size. Of a mixture all experts of a layer are one tensor, and so of one type.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from llamad.engine.bindings import TENSOR_TYPES, block_size
from llamad.gguf.value import MetadataValue

FILE_TYPE, QUANTIZATION_VERSION = "general.file_type", "general.quantization_version"
GGML_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION, since 2023 that of every block format
_MOST_LAYERS = 1024  # as the engine
_VALUES = ("attn_v", "attn_qkv")
PLAIN_TYPES = frozenset(name for name in TENSOR_TYPES if block_size(name) == 1)

_FALLBACKS: Mapping[str, str] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "IQ4_XS": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


@dataclass(frozen=True, slots=True)
class Mix:
    """A named mix: llama.cpp's number for general.file_type, and the type of most matrices."""

    name: str
    file_type: int
    base: str


MIXES: Mapping[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("F32", 0, "F32"),
        Mix("F16", 1, "F16"),
        Mix("Q4_0", 2, "Q4_0"),
        Mix("Q4_1", 3, "Q4_1"),
        Mix("Q8_0", 7, "Q8_0"),
        Mix("Q5_0", 8, "Q5_0"),
        Mix("Q5_1", 9, "Q5_1"),
        Mix("Q2_K", 10, "Q2_K"),
        Mix("Q3_K_S", 11, "Q3_K"),
        Mix("Q3_K_M", 12, "Q3_K"),
        Mix("Q3_K_L", 13, "Q3_K"),
        Mix("Q4_K_S", 14, "Q4_K"),
        Mix("Q4_K_M", 15, "Q4_K"),
        Mix("Q5_K_S", 16, "Q5_K"),
        Mix("Q5_K_M", 17, "Q5_K"),
        Mix("Q6_K", 18, "Q6_K"),
        Mix("IQ4_NL", 25, "IQ4_NL"),
        Mix("IQ4_XS", 30, "IQ4_XS"),
        Mix("BF16", 32, "BF16"),
    )
}
# Types and mixes of files that are served and cannot be written, and what to write instead.
READ_ONLY: Mapping[str, str] = {
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q1_0", "Q2_0"), "Q2_K"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"), "Q3_K_S"),
    **dict.fromkeys(("MXFP4", "MXFP4_MOE"), "Q4_K_M"),
}
ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


@dataclass(frozen=True, slots=True)
class MixedModel:
    """What the rules ask of a model. gqa: query heads to one key-value head.

    value_layers: layers with values of their own, where not all have them; the rules number these.
    A matrix of queries, keys and values counts as one of values.
    """

    n_layers: int
    value_layers: tuple[int, ...] = ()
    gqa: int = 1
    n_experts: int = 0
    tied_output: bool = False  # no output.weight: the embedding is also the output matrix
    has_importance: bool = False

    @property
    def is_mixtral(self) -> bool:
        """Whether attention is so small beside eight experts that bits there cost little."""
        return self.n_experts == 8

    @property
    def shares_values_widely(self) -> bool:
        """Whether this is a 70B: eight query heads share values, so that bits there cost little."""
        return self.n_layers == 80 and self.gqa > 1


def describe_model(
    metadata: Mapping[str, MetadataValue], tensor_names: Container[str], *, has_importance: bool
) -> MixedModel:
    """Return what the rules ask, from a file's metadata and the names of its tensors."""
    n_heads = hyperparameter(metadata, "attention.head_count", 1)
    n_layers = hyperparameter(metadata, "block_count", 1)
    has_values = tuple(
        layer
        for layer in range(min(n_layers, _MOST_LAYERS))
        if any(f"blk.{layer}.{name}.weight" in tensor_names for name in _VALUES)
    )
    return MixedModel(
        n_layers=n_layers,
        value_layers=has_values,
        n_experts=hyperparameter(metadata, "expert_count", 0),
        gqa=n_heads // hyperparameter(metadata, "attention.head_count_kv", n_heads),
        tied_output="output.weight" not in tensor_names,
        has_importance=has_importance,
    )


def hyperparameter(metadata: Mapping[str, MetadataValue], key: str, default: int) -> int:
    """Return a positive number of the file's architecture, the first layer's if each has one."""
    value = metadata.get(f"{metadata.get('general.architecture', '')}.{key}")
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else default


def find_mix(name: str) -> Mix | None:
    """Return the mix of a name in any case, or None."""
    name = name.upper()
    return MIXES.get(ALIASES.get(name, name))


def refusal(name: str, *others: str) -> str:
    """Return why a name is no mix, and what is one, or is among the others that a caller knows."""
    instead = READ_ONLY.get(name.upper())
    if instead is not None:
        return f"{name} can be served, not written: {instead} is the nearest that can"
    return f"{name} is none of {', '.join((*MIXES, *others))}"


_KEPT = (
    "ffn_gate_inp.weight",
    "per_layer_model_proj",
    "position_embd.weight",
    "shortconv.conv.weight",
    "ssm_conv1d.weight",
    "token_types.weight",
)


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix of weights.

    Norms, biases, routers and the narrow tables of convolutions keep their type.
    """
    n_dims = max((d + 1 for d, n in enumerate(shape) if n > 1), default=1)
    return (
        n_dims >= 2
        and name.endswith("weight")
        and not name.endswith("_norm.weight")
        and not any(part in name for part in _KEPT)
    )


def tensor_type(
    mix: Mix, name: str, shape: Sequence[int], model: MixedModel, *, pure: bool = False
) -> str:
    """Return the type of a quantizable tensor; shape: the row length first.

    pure: the mix's base type for every matrix, but for rows that it cannot hold.
    """
    n_cols = shape[0]
    if mix.base in PLAIN_TYPES:
        return mix.base
    chosen = mix.base if pure else _by_role(mix, name, n_cols, model)
    return chosen if n_cols % block_size(chosen) == 0 else _fallback(chosen, n_cols)


def _fallback(type_name: str, n_cols: int) -> str:
    """Return the type of blocks of 32 that stands in; F16 for rows that no block type can hold."""
    smaller = _FALLBACKS.get(type_name)
    return smaller if smaller is not None and n_cols % block_size(smaller) == 0 else "F16"


_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


def _by_role(mix: Mix, name: str, n_cols: int, model: MixedModel) -> str:
    if name == "output.weight" or (model.tied_output and name in _EMBEDDINGS):
        if n_cols % block_size(mix.base) or mix.base == "Q8_0":
            return "Q8_0"
        return "Q6_K"
    match = re.match(r"blk\.(\d+)\.(\w+)\.weight$", name)
    if match is None:
        return mix.base
    layer = int(match[1])
    match match[2]:
        case "attn_v" | "attn_qkv":
            if layer in model.value_layers:
                rank, n_ranks = model.value_layers.index(layer), len(model.value_layers)
                return _values(mix, rank, n_ranks, model)
            return _values(mix, layer, model.n_layers, model)
        case "ffn_down" | "ffn_down_exps" | "ffn_down_shexp":
            return _ffn_down(mix, layer, model)
        case "attn_k" if model.is_mixtral:
            return "Q8_0"
        case "attn_output" if model.is_mixtral:
            return "Q5_K" if mix.name in _MIXTRAL_OUTPUTS else mix.base
        case "attn_output":
            return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(mix.name, mix.base)
        case _:
            return mix.base


_MIXTRAL_OUTPUTS = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M")


def _has_more_bits(layer: int, n_layers: int) -> bool:
    """Whether an _M mix spends more on a layer: the outer eighths, and every third between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def _values(mix: Mix, layer: int, n_layers: int, model: MixedModel) -> str:
    """Return the type of a layer's values; layer, n_layers: of those that have values."""
    chosen = mix.base
    match mix.name:
        case "Q2_K":
            chosen = "Q4_K" if model.gqa >= 4 else "Q3_K"
        case "Q3_K_M":
            chosen = "Q5_K" if layer < 2 else "Q4_K"
        case "Q3_K_L":
            chosen = "Q5_K"
        case "IQ4_NL" | "IQ4_XS" if model.gqa >= 4:
            chosen = "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _has_more_bits(layer, n_layers):
            chosen = "Q6_K"
        case "Q4_K_S" if layer < 4:
            chosen = "Q5_K"
    if model.is_mixtral:
        return "Q8_0"
    if model.shares_values_widely and chosen in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return chosen


def _ffn_down(mix: Mix, layer: int, model: MixedModel) -> str:
    first_eighth = layer < model.n_layers // 8
    match mix.name:
        case "Q2_K":
            return "Q3_K"
        case "Q3_K_M":
            return "Q5_K" if layer < model.n_layers // 16 else "Q4_K"
        case "Q3_K_L":
            return "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _has_more_bits(layer, model.n_layers):
            return "Q6_K"
        case "Q4_K_S" if first_eighth:
            return "Q5_K"
        case "IQ4_NL" | "IQ4_XS" if first_eighth and not model.has_importance:
            return "Q5_K"
        case "Q4_0" if first_eighth and model.has_importance:
            return "Q4_1"
        case "Q5_0" if first_eighth and model.has_importance:
            return "Q5_1"
        case _:
            return mix.base
