"""A tiny model of each family in which everything that sets it apart takes part.

Windows are shorter than the prompts of tests, contexts that RoPE extends as well, and each model
has a layer of every kind that its family has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tiny_gguf import TinySpec

UNNAMED = {"general.name": "tiny"}  # of one called phi3 llama.cpp expects tokens of Phi-3


def biased(spec: TinySpec) -> TinySpec:
    """Return a model with biases on all matrices of its layers."""
    return replace(spec, qkv_bias=True, output_bias=True, ffn_bias=True)


FAMILY_MODELS: Mapping[str, TinySpec] = {
    "llama": TinySpec(rope_freqs=True, rope_freq_base=5e5),
    "qwen2": TinySpec(architecture="qwen2", rope_freq_base=1e6),
    "qwen3": TinySpec(architecture="qwen3", rope_freq_base=1e6),
    "qwen2vl": TinySpec(
        architecture="qwen2vl",
        rope_freq_base=1e6,
        metadata={"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]},
    ),
    "qwen3vl": TinySpec(
        architecture="qwen3vl",
        rope_freq_base=1e6,
        metadata={"qwen3vl.rope.dimension_sections": [3, 3, 2, 0]},
    ),
    "qwen3vlmoe": TinySpec(
        architecture="qwen3vlmoe",
        n_experts=8,
        n_experts_used=3,
        expert_dim=32,
        rope_freq_base=1e6,
        metadata={"qwen3vlmoe.rope.dimension_sections": [3, 3, 2, 0]},
    ),
    "ernie4_5": TinySpec(architecture="ernie4_5", rope_freq_base=5e5),
    "internlm2": TinySpec(architecture="internlm2", rope_freq_base=1e6),
    "mixtral": TinySpec(n_experts=4, n_layers=3),
    "qwen2moe": TinySpec(architecture="qwen2moe", n_experts=6, expert_dim=32, shared_expert_dim=64),
    "qwen3moe": TinySpec(
        architecture="qwen3moe",
        n_experts=8,
        n_experts_used=3,
        expert_dim=32,
        n_layers=3,
        rope_freq_base=1e6,
    ),
    "granitemoe": TinySpec(
        architecture="granitemoe",
        n_experts=5,
        shared_expert_dim=32,
        tied_output=True,
        seed=2,
        metadata={"granitemoe.residual_scale": 0.6, "granitemoe.embedding_scale": 1.5},
    ),
    "olmoe": TinySpec(architecture="olmoe", n_experts=8, n_experts_used=4, n_layers=3),
    # The ramp of its YaRN ends within the first pair, as does llama.cpp's, which is rounded.
    "gpt-oss": TinySpec(
        architecture="gpt-oss",
        n_layers=4,
        n_experts=6,
        n_experts_used=3,
        expert_dim=96,
        window=8,
        output_bias=True,
        rope_freq_base=150000.0,
        rope_scaling="yarn",
        rope_scaling_factor=32.0,
        rope_original_context=9,
    ),
    "gemma": TinySpec(architecture="gemma", tied_output=True),
    "gemma2": TinySpec(architecture="gemma2", tied_output=True, n_layers=4, window=8),
    "gemma3": TinySpec(
        architecture="gemma3", tied_output=True, n_layers=7, window=8, rope_freq_base=1e6
    ),
    "mistral3": TinySpec(
        architecture="mistral3",
        rope_scaling="yarn",
        rope_scaling_factor=16.0,
        rope_original_context=9,
        metadata={
            "mistral3.rope.scaling.yarn_log_multiplier": 1.0,
            "mistral3.rope.scaling.yarn_beta_fast": 16.0,
            "mistral3.attention.temperature_scale": 0.1,
        },
    ),
    "smollm3": TinySpec(architecture="smollm3", n_layers=5, rope_freq_base=5e6),
    "granite": TinySpec(
        architecture="granite",
        tied_output=True,
        metadata={
            "granite.embedding_scale": 1.5,
            "granite.residual_scale": 0.6,
            "granite.attention.scale": 0.4,
            "granite.logit_scale": 8.0,
        },
    ),
    "minicpm": TinySpec(architecture="minicpm", qkv_bias=False),
    "seed_oss": TinySpec(architecture="seed_oss", qkv_bias=True),
    "hunyuan-dense": TinySpec(architecture="hunyuan-dense", rope_freq_base=1e6),
    "exaone4": TinySpec(architecture="exaone4", rope_freqs=True, rope_scaling_factor=16.0),
    "exaone4-local": TinySpec(architecture="exaone4", n_layers=64, window=8, rope_freq_base=1e6),
    "arcee": TinySpec(architecture="arcee", rope_scaling="yarn"),
    "phi3": TinySpec(architecture="phi3", metadata=UNNAMED),
    "phi3-long": TinySpec(
        architecture="phi3",
        rope_dimension_count=12,
        rope_scaling="longrope",
        rope_original_context=80,
        metadata={**UNNAMED, "phi3.rope.scaling.attn_factor": 1.19},
    ),
    "phi3-short": TinySpec(
        architecture="phi3",
        rope_scaling="longrope",
        rope_original_context=512,
        window=0,
        metadata=UNNAMED,
    ),
    "phi2": biased(TinySpec(architecture="phi2", logits_bias=True, rope_dimension_count=8)),
    "stablelm": TinySpec(architecture="stablelm", rope_dimension_count=8),
    "starcoder2": biased(TinySpec(architecture="starcoder2")),
    "gptneox": biased(TinySpec(architecture="gptneox", rope_dimension_count=8)),
    "gptneox-in-turn": biased(
        TinySpec(architecture="gptneox", metadata={"gptneox.use_parallel_residual": False})
    ),
    "command-r": TinySpec(architecture="command-r", tied_output=True),
    "cohere2": TinySpec(architecture="cohere2", tied_output=True, n_layers=5, window=8),
    "qwen35": TinySpec(
        architecture="qwen35",
        n_layers=4,
        recurrent=(0, 1, 2),
        conv_width=4,
        rope_dimension_count=8,
        rope_freq_base=1e7,
    ),
    "qwen35moe": TinySpec(
        architecture="qwen35moe",
        n_layers=4,
        recurrent=(0, 1, 2),
        conv_width=4,
        rope_dimension_count=8,
        rope_freq_base=1e7,
        n_experts=6,
        expert_dim=32,
        shared_expert_dim=32,
        fused_experts=True,
        seed=2,  # with 1 a rounding grows to twice the logits' deviation, in both engines
    ),
    "granitehybrid-moe": TinySpec(
        architecture="granitehybrid",
        n_layers=3,
        recurrent=(0, 2),
        conv_width=4,
        n_experts=5,
        shared_expert_dim=64,
    ),
    "lfm2moe": TinySpec(
        architecture="lfm2moe",
        n_layers=4,
        recurrent=(0, 1, 3),
        tied_output=True,
        rope_freq_base=1e6,
        n_experts=6,
        expert_dim=64,
        n_dense_layers=1,
    ),
    "granitehybrid": TinySpec(
        architecture="granitehybrid",
        n_layers=4,
        recurrent=(0, 1, 3),
        conv_width=4,
        tied_output=True,
        metadata={
            "granitehybrid.rope.scaling.finetuned": False,
            "granitehybrid.embedding_scale": 1.5,
            "granitehybrid.residual_scale": 0.6,
            "granitehybrid.attention.scale": 0.4,
            "granitehybrid.logit_scale": 8.0,
        },
    ),
    "falcon-h1": TinySpec(architecture="falcon-h1", n_layers=3, conv_width=4, rope_freq_base=1e6),
    "mamba2": TinySpec(
        architecture="mamba2", n_layers=3, recurrent=(0, 1, 2), conv_width=4, tied_output=True
    ),
    "lfm2": TinySpec(
        architecture="lfm2", n_layers=4, recurrent=(0, 1, 3), tied_output=True, rope_freq_base=1e6
    ),
    # As E2B: the last two layers read the keys and values of layers 3 and 4, one of each kind.
    "gemma4": TinySpec(
        architecture="gemma4",
        n_layers=7,
        head_dim=64,
        local_head_dim=32,
        is_local=(True, True, False, True, False, True, False),
        n_shared_kv=2,
        layer_input_dim=32,
        window=8,
        rope_freqs=True,
        rope_freq_base=1e6,
        metadata={"gemma4.final_logit_softcapping": 3.0},
    ),
    # As 12B: no inputs of layers; those that see all have wider heads, whose keys are values.
    "gemma4-12b": TinySpec(
        architecture="gemma4",
        n_layers=4,
        head_dim=64,
        local_head_dim=32,
        is_local=(True, True, True, False),
        keyed_values=(3,),
        window=8,
        rope_freqs=True,
        rope_freq_base=1e6,
        tied_output=True,
    ),
    # As 26B-A4B: experts beside a dense feed-forward; values are keys where layers see all.
    "gemma4-moe": TinySpec(
        architecture="gemma4",
        n_layers=3,
        head_dim=64,
        local_head_dim=32,
        is_local=(True, True, False),
        keyed_values=(2,),
        window=8,
        rope_freqs=True,
        rope_freq_base=1e6,
        tied_output=True,
        n_experts=6,
        n_experts_used=3,
        expert_dim=32,
        fused_experts=True,
    ),
    "olmo2": TinySpec(architecture="olmo2"),
    "olmo3": TinySpec(
        architecture="olmo2",
        n_layers=5,
        window=8,
        rope_scaling="yarn",
        rope_scaling_factor=8.0,
        rope_original_context=64,
    ),
}

SHAPES: Mapping[str, Mapping[str, int]] = {
    "64, 4/2": {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 96},
    "96, 3/1": {"dim": 96, "n_heads": 3, "n_kv_heads": 1, "hidden_dim": 160},
    "128, 2/2": {"dim": 128, "n_heads": 2, "n_kv_heads": 2, "hidden_dim": 224},
}
MULTI_HEAD = ("olmoe",)  # llama.cpp knows it with as many heads of keys as of queries only
TYPES = ("F32", "F16", "Q8_0")


def family_specs(name: str) -> Iterator[tuple[str, TinySpec]]:
    """Yield what to call it and the model of a family in each shape and type."""
    for shape, numbers in SHAPES.items():
        for weight_type in TYPES:
            spec = replace(FAMILY_MODELS[name], weight_type=weight_type)
            spec = replace(spec, **numbers)  # type: ignore[arg-type]
            if name in MULTI_HEAD:
                spec = replace(spec, n_kv_heads=spec.n_heads)
            if weight_type != "F32" and spec.n_experts:
                # Rounding may choose another expert, which is no small difference: here all are.
                spec = replace(spec, n_experts_used=spec.n_experts)
            yield f"{shape} {weight_type}", spec
