"""The forward pass equals the numpy oracle: architectures, head layouts, formats, both KV types.

Each comparison is made twice. Long: 40 tokens (more than one KV block), fed whole, in chunks of 7
and token by token, within a bound that allows for a rounding that fell to the other side. Short:
several sequences of 6 tokens, of which most meet few such roundings and must agree much closer.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.feeding import feed, random_tokens
from family_models import FAMILY_MODELS, biased
from llamad.engine.bindings import Engine, EngineModel
from reference import Array, ReferenceModel, engine_rounding, forward, load
from tiny_gguf import FORMATS, TinyModelPath, TinySpec

# Errors are the root mean square over one row of logits, in units of the logits' standard
# deviation.

# float32 sums in another order than the oracle's float64, a few hundred terms over a few layers:
# engine and float32 oracle alike show 2e-7 typically, and 1e-5 where half of the sequences meet a
# rounding of a key or value.
FLOAT_NOISE = 5e-5

# Where activations have a second level, its steps (1/127^2 of a block's largest value) are so fine
# that float noise alone moves a few of them, and those move, now and then, a step of a first level
# further on. Engine and float32 oracle alike show medians up to 5.6e-3 over the formats.
SECOND_LEVEL_NOISE = 0.015

# An activation that lies within float noise of the middle of two int8 values may be rounded to the
# other one: one step of 1/127 of its block's largest value, carried on by later layers and tokens.
# Engine and float32 oracle show up to 0.024; a wrong scale, nibble or pair of
# dimensions shows 0.1 to 1.
INT8_STEP = 0.05

# The same for a key or value in f16: half a unit in the 11th bit. Seen: 1.1e-4.
F16_STEP = 5e-4

UNQUANTIZED = ("F32", "F16", "BF16")
KV_TYPES = ("f16", "q8_0")
N_CTX = 64
LONG, SHORT, N_SHORT = 40, 6, 8  # tokens, tokens, sequences


def row_errors(actual: Array, expected: Array) -> Array:
    """Return the error of each row in units of the logits' standard deviation."""
    assert actual.shape == expected.shape
    errors: Array = np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()
    return errors


def assert_equals_oracle(path: Path, kv_type: str, *, quantized: bool) -> None:
    """Compare the engine with the oracle on one model, as the module says."""
    step_bound = INT8_STEP if quantized or kv_type == "q8_0" else F16_STEP
    typical = SECOND_LEVEL_NOISE if quantized else FLOAT_NOISE
    oracle = load(path)
    with (
        EngineModel(path) as model,
        Engine(model, n_threads=2, n_ctx=N_CTX, n_batch=64, n_logits=64, kv_type=kv_type) as engine,
    ):
        _assert_long(engine, oracle, kv_type, step_bound)
        _assert_short(engine, oracle, kv_type, typical)


def _assert_long(engine: Engine, oracle: ReferenceModel, kv_type: str, bound: float) -> None:
    tokens = random_tokens(7, LONG)
    expected = forward(oracle, tokens, engine_rounding(kv_type), n_ctx=N_CTX)
    for chunk in (LONG, 7, 1):
        actual = feed(engine, tokens, chunk=chunk)
        worst = row_errors(actual, expected).max()
        assert worst <= bound, f"chunks of {chunk}: error {worst:.2e}, bound {bound:.0e}"


def _assert_short(engine: Engine, oracle: ReferenceModel, kv_type: str, bound: float) -> None:
    errors = []
    for seed in range(N_SHORT):
        tokens = random_tokens(100 + seed, SHORT)
        expected = forward(oracle, tokens, engine_rounding(kv_type), n_ctx=N_CTX)
        errors.append(row_errors(feed(engine, tokens, chunk=SHORT), expected).max())
    typical = float(np.median(errors))
    assert typical <= bound, f"typical error {typical:.2e}, bound {bound:.0e}"


ROWS = ("qwen2vl", "qwen3vl", "ernie4_5", "internlm2", "seed_oss")  # old parts in other families
DENSE = ("mistral3", "smollm3", "granite", "minicpm", "hunyuan-dense", "exaone4", "arcee", "phi3")
LAYER_NORM = ("phi2", "stablelm", "starcoder2", "gptneox", "command-r", "cohere2")
FIRST = ("llama", "qwen2", "qwen3", "olmo2")
GEMMA = ("gemma", "gemma2", "gemma3")
HEAD_LAYOUTS = {"MHA": (4, 4), "GQA": (4, 2), "MQA": (4, 1), "GQA of 3": (6, 2)}


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("layout", HEAD_LAYOUTS)
@pytest.mark.parametrize(
    "architecture", ["llama", "qwen2", "qwen3", "olmo2", *GEMMA, *ROWS, *DENSE, *LAYER_NORM]
)
def test_architecture_and_head_layout(
    tiny_model_path: TinyModelPath, architecture: str, layout: str, kv_type: str
) -> None:
    n_heads, n_kv_heads = HEAD_LAYOUTS[layout]
    spec = TinySpec(
        architecture=architecture,
        dim=16 * n_heads,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        n_layers=7 if architecture == "gemma3" else 3,  # every sixth layer sees all
        window=8 if architecture in GEMMA[1:] else None,
    )
    assert_equals_oracle(tiny_model_path(spec), kv_type, quantized=False)


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("weight_type", FORMATS)
def test_block_format(tiny_model_path: TinyModelPath, weight_type: str, kv_type: str) -> None:
    wide = FORMATS[weight_type].block > 32
    spec = TinySpec(
        weight_type=weight_type,
        dim=256 if wide else 96,
        hidden_dim=512 if wide else 160,
    )
    assert_equals_oracle(tiny_model_path(spec), kv_type, quantized=weight_type not in UNQUANTIZED)


EXPERTS = [name for name, spec in FAMILY_MODELS.items() if spec.n_experts]
_EACH = {"gemma3.attention.sliding_window_pattern": [True, False, True]}
# Narrow heads: with wide ones most sequences meet a key that is rounded the other way.
GEMMA4 = replace(FAMILY_MODELS["gemma4"], head_dim=32, local_head_dim=16)
VARIANTS = {
    **{name: FAMILY_MODELS[name] for name in EXPERTS},
    **{f"{name}, quantized": replace(FAMILY_MODELS[name], weight_type="Q4_0") for name in EXPERTS},
    "gpt-oss whose yarn begins and ends between pairs": replace(
        FAMILY_MODELS["gpt-oss"], head_dim=64, rope_original_context=4096
    ),
    "gpt-oss as its files are": replace(
        FAMILY_MODELS["gpt-oss"],
        weight_type="Q8_0",
        hidden_dim=64,
        tensor_types={
            f"blk.{layer}.ffn_{name}_exps.weight": "MXFP4"
            for layer in range(4)
            for name in ("gate", "up", "down")
        },
    ),
    "experts of types mixed": TinySpec(
        architecture="qwen3moe",
        dim=256,
        expert_dim=256,
        n_experts=6,
        weight_type="Q4_K",
        tensor_types={
            "blk.0.ffn_gate_exps.weight": "IQ4_NL",
            "blk.0.ffn_down_exps.weight": "Q6_K",
            "blk.1.ffn_down_exps.weight": "Q8_0",
            "blk.1.ffn_up_exps.weight": "F16",
        },
    ),
    "qwen35": TinySpec(
        architecture="qwen35", n_layers=5, recurrent=(0, 1, 2, 4), conv_width=4, delta_dim=24
    ),
    "qwen35, quantized": TinySpec(
        architecture="qwen35", n_layers=4, recurrent=(0, 2), weight_type="Q4_0", delta_v_heads=2
    ),
    "granitehybrid": TinySpec(
        architecture="granitehybrid", n_layers=3, recurrent=(0, 2), ssm_groups=1, ssm_state=40
    ),
    "granitehybrid, quantized": TinySpec(
        architecture="granitehybrid", n_layers=3, recurrent=(1, 2), weight_type="Q4_0"
    ),
    "falcon-h1": TinySpec(architecture="falcon-h1", n_layers=2, conv_width=4, ssm_head_dim=32),
    "falcon-h1, quantized": TinySpec(architecture="falcon-h1", weight_type="Q4_0"),
    "mamba2": TinySpec(architecture="mamba2", recurrent=(0, 1), ssm_groups=1, ssm_state=40),
    "mamba2, quantized": TinySpec(architecture="mamba2", recurrent=(0, 1), weight_type="Q4_0"),
    "lfm2": TinySpec(architecture="lfm2", n_layers=5, recurrent=(0, 1, 3)),
    "lfm2, quantized": TinySpec(
        architecture="lfm2", n_layers=4, recurrent=(0, 2), weight_type="Q4_0", conv_width=4
    ),
    "gemma 2, quantized": TinySpec(architecture="gemma2", window=8, weight_type="Q4_0"),
    "gemma 2 whose window is wider": TinySpec(architecture="gemma2"),
    "gemma 2 with other caps": TinySpec(
        architecture="gemma2",
        metadata={"gemma2.attn_logit_softcapping": 2.0, "gemma2.final_logit_softcapping": 0.0},
    ),
    "gemma 3 without windows": TinySpec(architecture="gemma3"),
    "gemma 3, an own output, a cap": TinySpec(
        architecture="gemma3", window=1, metadata={"gemma3.final_logit_softcapping": 3.0}
    ),
    "gemma 3, scaled where global": TinySpec(
        architecture="gemma3",
        n_layers=6,
        tied_output=True,
        rope_scaling="linear",
        rope_freq_base=1e6,
        window=20,
    ),
    "gemma 3, another local base": TinySpec(
        architecture="gemma3", window=8, metadata={"gemma3.rope.freq_base_swa": 500.0}
    ),
    "gemma 3, every second layer": TinySpec(
        architecture="gemma3", window=8, metadata={"gemma3.attention.sliding_window_pattern": 2}
    ),
    "gemma 3, each layer": TinySpec(architecture="gemma3", n_layers=3, window=8, metadata=_EACH),
    "ministral 3 behind its first contexts": TinySpec(
        architecture="mistral3",
        rope_scaling="yarn",
        rope_original_context=9,
        metadata={
            "mistral3.rope.scaling.yarn_log_multiplier": 1.0,
            "mistral3.attention.temperature_scale": 0.1,
        },
    ),
    "smollm 3 with a layer without rope": TinySpec(
        architecture="smollm3", n_layers=5, weight_type="Q4_0"
    ),
    "granite with all scales": TinySpec(
        architecture="granite",
        tied_output=True,
        metadata={
            "granite.embedding_scale": 12.0,
            "granite.residual_scale": 0.22,
            "granite.attention.scale": 0.0625,
            "granite.logit_scale": 16.0,
        },
    ),
    "granite 4 that was a hybrid's shell": TinySpec(
        architecture="granite",
        metadata={
            "granite.attention.head_count_kv": [2, 2],
            "granite.rope.scaling.finetuned": True,
            "granite.expert_count": 0,
            "granite.ssm.state_size": 128,
        },
    ),
    "granite without rope": TinySpec(
        architecture="granite", metadata={"granite.rope.scaling.finetuned": False}
    ),
    "quantized granite": TinySpec(
        architecture="granite", weight_type="Q8_0", metadata={"granite.residual_scale": 0.22}
    ),
    "exaone 4 with windows": TinySpec(
        architecture="exaone4", n_layers=5, window=8, rope_freqs=True, rope_scaling_factor=8.0
    ),
    "exaone 4, quantized": TinySpec(
        architecture="exaone4", n_layers=5, window=8, weight_type="Q4_0"
    ),
    "olmo 3": TinySpec(
        architecture="olmo2",
        n_layers=5,
        window=8,
        head_dim=64,
        rope_scaling="yarn",
        rope_original_context=256,
    ),
    "phi 3, quantized, biased": TinySpec(
        architecture="phi3", qkv_bias=True, ffn_bias=True, weight_type="Q4_0"
    ),
    "phi 3 with a window": TinySpec(architecture="phi3", window=9),
    "phi 4 mini in a short context": TinySpec(
        architecture="phi3", rope_dimension_count=12, rope_scaling="longrope", window=0
    ),
    "phi 4 mini in a long context": TinySpec(
        architecture="phi3",
        rope_dimension_count=12,
        rope_scaling="longrope",
        rope_original_context=63,
        metadata={"phi3.rope.scaling.attn_factor": 1.19},
    ),
    "arcee, quantized, biased": TinySpec(
        architecture="arcee", ffn_bias=True, weight_type="Q8_0", rope_scaling="yarn"
    ),
    "gptneox, one half after the other": TinySpec(
        architecture="gptneox", metadata={"gptneox.use_parallel_residual": False}
    ),
    "pythia, quantized": biased(
        TinySpec(architecture="gptneox", rope_dimension_count=4, weight_type="Q8_0")
    ),
    "phi 2 with all of its biases": biased(
        TinySpec(architecture="phi2", logits_bias=True, rope_dimension_count=8)
    ),
    "phi 2, quantized": biased(TinySpec(architecture="phi2", weight_type="Q4_0")),
    "stablelm zephyr": TinySpec(
        architecture="stablelm", rope_dimension_count=4, n_kv_heads=4, weight_type="Q8_0"
    ),
    "starcoder 2": biased(TinySpec(architecture="starcoder2", tied_output=True)),
    "command r, tied": TinySpec(architecture="command-r", tied_output=True, weight_type="Q8_0"),
    "command r7b": TinySpec(architecture="cohere2", tied_output=True, n_layers=5, window=8),
    "tied output": TinySpec(tied_output=True),
    "tied quantized output": TinySpec(tied_output=True, weight_type="Q4_0"),
    "llama with q, k and v biases": TinySpec(qkv_bias=True),
    "bias on the attention output": TinySpec(output_bias=True, qkv_bias=True),
    "biases on the feed-forward": TinySpec(ffn_bias=True),
    "biases on a quantized feed-forward": TinySpec(ffn_bias=True, weight_type="Q4_0"),
    "bias on the output": TinySpec(architecture="qwen2", logits_bias=True),
    "bias on a tied output": TinySpec(tied_output=True, logits_bias=True),
    "heads wider than dim": TinySpec(head_dim=40),
    "heads narrower than dim": TinySpec(architecture="qwen3", dim=96, head_dim=8),
    "quantized, norms after each half": TinySpec(architecture="olmo2", weight_type="Q4_0"),
    "half of each head rotated": TinySpec(rope_dimension_count=8),
    "half of each head rotated, neox": TinySpec(architecture="qwen2", rope_dimension_count=8),
    "rope base of a million": TinySpec(rope_freq_base=1e6),
    "linear rope scaling": TinySpec(rope_scaling="linear"),
    "rope factor without a type": TinySpec(metadata={"llama.rope.scaling.factor": 4.0}),
    "rope factor of an old file": TinySpec(metadata={"llama.rope.scale_linear": 4.0}),
    "no rope scaling in spite of a factor": TinySpec(rope_scaling="none"),
    "attention factor without yarn": TinySpec(
        rope_scaling="linear", metadata={"llama.rope.scaling.attn_factor": 0.7}
    ),
    "yarn that shrinks": TinySpec(rope_scaling="yarn", rope_scaling_factor=0.5),
    "llama3 rope scaling": TinySpec(head_dim=64, rope_scaling="llama3", rope_original_context=256),
    "yarn with an attention factor": TinySpec(
        rope_scaling="yarn", metadata={"llama.rope.scaling.attn_factor": 0.7}
    ),
    "yarn": TinySpec(head_dim=64, rope_scaling="yarn", rope_original_context=256),
    "yarn, neox": TinySpec(
        architecture="qwen3", head_dim=64, rope_scaling="yarn", rope_original_context=256
    ),
    "rope_freqs.weight": TinySpec(rope_freqs=True),
    "one layer": TinySpec(n_layers=1),
    "norm epsilon that matters": TinySpec(norm_eps=0.5),
    "sizes by layer": TinySpec(
        n_layers=4, kv_heads_by_layer=(1, 4, 2, 1), hidden_dim_by_layer=(96, 32, 160, 64)
    ),
    "sizes by layer, quantized": TinySpec(
        n_layers=3,
        kv_heads_by_layer=(2, 1, 4),
        hidden_dim_by_layer=(32, 96, 64),
        weight_type="Q4_0",
    ),
    "gemma 4": GEMMA4,
    "gemma 4, quantized": replace(GEMMA4, weight_type="Q4_0"),
    "gemma 4, values that are keys": FAMILY_MODELS["gemma4-12b"],
    "gemma 4, values that are keys, quantized": replace(
        FAMILY_MODELS["gemma4-12b"], weight_type="Q8_0", kv_heads_by_layer=(4, 4, 4, 1)
    ),
    "types mixed in one layer": TinySpec(
        dim=256,
        hidden_dim=512,
        weight_type="Q4_K",
        tensor_types={
            "token_embd.weight": "Q8_0",
            "output.weight": "Q6_K",
            "blk.0.attn_v.weight": "Q6_K",
            "blk.0.attn_k.weight": "F16",
            "blk.1.ffn_up.weight": "IQ4_NL",
            "blk.1.ffn_down.weight": "Q5_1",
        },
    ),
    "types mixed as in files of two to three bits": TinySpec(
        dim=256,
        hidden_dim=512,
        n_layers=3,
        weight_type="IQ2_XXS",
        tensor_types={
            "token_embd.weight": "IQ3_S",
            "output.weight": "Q5_K",
            "blk.0.attn_v.weight": "IQ3_XXS",
            "blk.0.attn_k.weight": "IQ2_S",
            "blk.1.ffn_up.weight": "IQ2_XS",
            "blk.1.ffn_down.weight": "MXFP4",
            "blk.2.attn_v.weight": "Q4_K",
            "blk.2.ffn_down.weight": "IQ3_S",
        },
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_of_a_family(tiny_model_path: TinyModelPath, name: str) -> None:
    spec = VARIANTS[name]
    quantized = spec.weight_type not in UNQUANTIZED
    assert_equals_oracle(tiny_model_path(spec), "f16", quantized=quantized)


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize(
    "spec",
    [
        TinySpec(n_ctx_train=1024),
        TinySpec(architecture="gemma2", n_ctx_train=1024, window=40),
        TinySpec(architecture="gemma3", n_ctx_train=1024, window=300, rope_freq_base=1e6),
    ],
    ids=["all", "a window within a chunk", "a window over chunks"],
)
def test_attention_over_many_blocks(
    tiny_model_path: TinyModelPath, spec: TinySpec, kv_type: str
) -> None:
    """600 tokens are 19 KV blocks: attention merges the parts it splits a long context into."""
    path = tiny_model_path(spec)
    tokens = random_tokens(11, 600)
    expected = forward(load(path), tokens, engine_rounding(kv_type))
    with (
        EngineModel(path) as model,
        Engine(model, n_threads=2, n_ctx=640, n_batch=128, n_logits=128, kv_type=kv_type) as engine,
    ):
        errors = row_errors(feed(engine, tokens, chunk=128), expected)
    assert errors.max() <= (INT8_STEP if kv_type == "q8_0" else F16_STEP)
    if kv_type == "f16":
        assert np.median(errors) <= FLOAT_NOISE
