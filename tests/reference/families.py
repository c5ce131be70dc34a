"""What each family does differently from LLaMA, and where that is written.

Qwen2 (arXiv 2407.10671): biases on q, k and v; Qwen3 (arXiv 2505.09388): RMSNorm of every query
and key head before RoPE. OLMo 2 (arXiv 2501.00656, section 3.2): norms after attention and feed-
forward, none before, and RMSNorm of all queries, and all keys, of a token; OLMo 3: three of four
layers have a window, and only the fourth has YaRN. EXAONE 4.0 (arXiv 2507.11407, section 2.1):
norms after each half, RMSNorm of heads, three of four layers with a window and no RoPE in the
fourth. SmolLM3 (its report of July 2025; NoPE: arXiv 2501.18795): no RoPE in every fourth layer.
Granite 3 (IBM's report, ``modeling_granite.py``) and MiniCPM (arXiv 2404.06395, appendix A):
scales. Hunyuan: RMSNorm of heads behind RoPE (``modeling_hunyuan_v1_dense.py``). Phi-3 (arXiv
2404.14219): one matrix for q, k, v and one for gate and up; LongRoPE (arXiv 2402.13753). Arcee's
AFM: squared ReLU (arXiv 2109.08668), no gate. GPT-NeoX (arXiv 2204.06745, section 2.1), Phi-2,
Command R and R7B: both halves read the same x, LayerNorm (arXiv 1607.06450); StableLM 2 (arXiv
2402.17834), StarCoder2 (arXiv 2402.19173): LayerNorm. Ministral 3: YaRN whose magnitude is
cancelled, and queries that grow as Llama 4's (``modeling_ministral3.py``). LFM2
(arXiv 2511.23404): layers without attention, which mix by a short convolution (``recurrent.py``).
Granite 4.0 (IBM's report, ``modeling_granitemoehybrid.py``): Granite's scales, and Mamba-2 in most
layers; Falcon-H1 (arXiv 2507.22448): attention and Mamba-2 side by side in each. Mamba-2 (arXiv
2405.21060, ``modeling_mamba2.py``): no attention and no feed-forward.
Mixtures of experts: Mixtral (arXiv 2401.04088) weights by a softmax over the chosen; Qwen2 MoE
(arXiv 2407.10671) and OLMoE (arXiv 2409.02060) by one over all; Qwen3 MoE, Granite MoE as Mixtral;
LFM2 MoE by a sigmoid, with a bias for the choice alone (``modeling_lfm2_moe.py``). gpt-oss (arXiv
2508.10925, OpenAI's ``gpt_oss/torch/model.py``): sinks in the softmax, biases everywhere, a softmax
over the chosen, SwiGLU of bounded values, YaRN whose ramp may begin and end between pairs.
The files named are of Hugging Face's transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

EVERY_LAYER = 1 << 20  # a window_period


@dataclass(frozen=True, slots=True)
class Family:
    """What a family does differently; biases are where the file has them."""

    neox: bool  # RoPE turns the halves of a head instead of neighbours
    head_norm: bool = False  # RMSNorm of each query and key head
    row_norm: bool = False  # RMSNorm of all queries, and all keys, of a token together
    # Norms before and after the mixer, before and after the feed-forward; None: there is none.
    norms: tuple[str | None, str | None, str | None, str | None] = (
        *("attn_norm", None),
        *("ffn_norm", None),
    )

    # Gemma (Google DeepMind, arXiv 2403.08295, 2408.00118, 2503.19786; gemma_pytorch model.py):
    gemma: bool = False  # the embedding times sqrt(dim)
    layer_norm: bool = False  # with a bias where the file has one, in place of RMSNorm
    parallel: bool | None = False  # both halves read x as it was; None: the file says whether
    logits_scaled: bool = False  # times logit_scale, without the other scales
    gelu: bool = False  # by tanh
    gelu_erf: bool = False  # as it is defined
    relu_squared: bool = False  # for the gate
    gated: bool = True  # else the activation alone stands before ffn_down
    window_period: int = 0  # layer N is local unless N % period == period - 1; 0: no windows
    local_rope_base: float | None = None  # of local layers, where the file does not say
    leaves_local_unscaled: bool = False  # local layers have RoPE as it was before its extension
    rotates_local_only: bool = False  # the others have no RoPE, in a model that has both
    unrotated_period: int = 0  # every such layer has no RoPE
    rotates_before_norm: bool = False
    late_queries: bool = False  # grow with the logarithm of their position
    scales: bool = False  # of embedding, halves, scores and logits, out of the file
    # Gemma 4 (transformers' modeling_gemma4.py): value heads normed without weights, scores without
    # a scale, values that are keys where there is no matrix for them, inputs of each layer.
    gemma4: bool = False
    attention_softcap: float = 0.0  # s = c tanh(s / c) before the mask; 0: none
    logits_softcap: float = 0.0
    output_norm: str = "output_norm"
    gates_attention: bool = False  # attn_q has a gate behind each head's query
    state_space: bool = False  # layers that have a state mix by Mamba-2
    mixes_twice: bool = False  # all have one, beside attention, and both results are added
    feeds: bool = True  # else a layer is its mixer alone
    norms_experts: bool = True  # the weights of the chosen experts sum to 1
    softmax_of_chosen: bool = False  # experts are chosen by logits, and weighted by their softmax
    clamped: bool = False  # SwiGLU of bounded values
    splits_yarn_pairs: bool = False


_ONE_NORM = ("attn_norm", None, "attn_norm", None)  # which both halves read
_POST_NORMS = (None, "post_attention_norm", None, "post_ffw_norm")
_FOUR_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")

FAMILIES: Mapping[str, Family] = {
    "llama": Family(neox=False),
    "qwen2": Family(neox=True),
    "qwen3": Family(neox=True, head_norm=True),
    "qwen2moe": Family(neox=True, norms_experts=False),
    "qwen3moe": Family(neox=True, head_norm=True),
    # M-RoPE (arXiv 2409.12191) of text, whose positions are all the same, is RoPE.
    "qwen2vl": Family(neox=True),
    "qwen3vl": Family(neox=True, head_norm=True),
    "qwen3vlmoe": Family(neox=True, head_norm=True),
    "ernie4_5": Family(neox=False),
    "internlm2": Family(neox=False),
    "mistral3": Family(neox=False, late_queries=True),
    "smollm3": Family(neox=False, unrotated_period=4),
    "granite": Family(neox=False, scales=True),
    "granitemoe": Family(neox=False, scales=True),
    "minicpm": Family(neox=False, scales=True),
    "seed_oss": Family(neox=True, norms=("attn_norm", None, "post_attention_norm", None)),
    "hunyuan-dense": Family(neox=True, head_norm=True, rotates_before_norm=True),
    "exaone4": Family(
        neox=True, head_norm=True, norms=_POST_NORMS, window_period=4, rotates_local_only=True
    ),
    "arcee": Family(neox=False, relu_squared=True, gated=False),
    "phi3": Family(neox=True, window_period=EVERY_LAYER),
    "phi2": Family(
        neox=True, norms=_ONE_NORM, layer_norm=True, parallel=True, gelu=True, gated=False
    ),
    "stablelm": Family(neox=True, layer_norm=True),
    "starcoder2": Family(neox=True, layer_norm=True, gelu=True, gated=False),
    "gptneox": Family(neox=True, layer_norm=True, parallel=None, gelu_erf=True, gated=False),
    "command-r": Family(
        neox=False, norms=_ONE_NORM, layer_norm=True, parallel=True, logits_scaled=True
    ),
    "cohere2": Family(
        neox=False,
        norms=_ONE_NORM,
        layer_norm=True,
        parallel=True,
        logits_scaled=True,
        window_period=4,
        rotates_local_only=True,
    ),
    "olmo2": Family(
        neox=True, row_norm=True, norms=_POST_NORMS, window_period=4, leaves_local_unscaled=True
    ),
    "gpt-oss": Family(
        neox=True,
        norms=("attn_norm", None, "post_attention_norm", None),
        window_period=2,
        norms_experts=False,
        softmax_of_chosen=True,
        clamped=True,
        splits_yarn_pairs=True,
    ),
    "qwen35": Family(
        neox=True,
        head_norm=True,
        norms=("attn_norm", None, "post_attention_norm", None),
        gates_attention=True,
    ),
    "qwen35moe": Family(
        neox=True,
        head_norm=True,
        norms=("attn_norm", None, "post_attention_norm", None),
        gates_attention=True,
    ),
    "olmoe": Family(neox=True, row_norm=True, norms_experts=False),
    "lfm2moe": Family(neox=True, head_norm=True, output_norm="token_embd_norm"),
    "granitehybrid": Family(neox=False, scales=True, state_space=True),
    "falcon-h1": Family(neox=True, state_space=True, mixes_twice=True),
    "mamba2": Family(neox=False, norms=_ONE_NORM, state_space=True, feeds=False),
    "lfm2": Family(neox=True, head_norm=True, output_norm="token_embd_norm"),
    "gemma": Family(neox=True, gemma=True, gelu=True),
    "gemma2": Family(
        neox=True,
        norms=_FOUR_NORMS,
        gemma=True,
        gelu=True,
        window_period=2,
        attention_softcap=50.0,
        logits_softcap=30.0,
    ),
    "gemma3": Family(
        neox=True,
        head_norm=True,
        norms=_FOUR_NORMS,
        gemma=True,
        gelu=True,
        window_period=6,
        local_rope_base=10000.0,
    ),
    "gemma4": Family(
        neox=True,
        head_norm=True,
        norms=_FOUR_NORMS,
        gemma=True,
        gelu=True,
        gemma4=True,
        window_period=6,
        local_rope_base=10000.0,
        logits_softcap=30.0,
    ),
}
