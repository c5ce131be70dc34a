"""Families of Hugging Face folders whose layers have experts: rows of ``huggingface_families``."""

from collections.abc import Mapping

from llamad_tools.checkpoints.huggingface_experts import (
    arrange_mixture,
    granite_moe_keys,
    lfm2_moe_keys,
    lfm2_moe_layers,
    mixture_keys,
    mixture_layers,
    normed_mixture_keys,
    plain_mixture_keys,
)
from llamad_tools.checkpoints.huggingface_family import (
    ATTENTION,
    HEAD_NORMS,
    LATE_FEED_NORM,
    Family,
)
from llamad_tools.checkpoints.huggingface_gpt_oss import (
    arrange_gpt_oss,
    gpt_oss_keys,
    gpt_oss_layers,
)
from llamad_tools.checkpoints.huggingface_lfm2 import (
    LFM2,
    LFM2_HEAD_NORMS,
    LFM2_NORMS,
    LFM2_OUTER,
    arrange_lfm2,
)

_QWEN = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
GRANITE_EXPERTS = {
    "block_sparse_moe.router.layer": "ffn_gate_inp",
    "block_sparse_moe.input_linear": "ffn_gate_up_exps",
    "block_sparse_moe.output_linear": "ffn_down_exps",
}

MIXTURES: Mapping[str, Family] = {
    "qwen2_moe": Family(
        "qwen2moe",
        matrices={**ATTENTION, **_QWEN},
        experts="mlp",
        qkv_bias=True,
        output_bias=False,
        defaults={"shared_expert_intermediate_size": 5632},
        keys=plain_mixture_keys,
        arrange=arrange_mixture,
        layers=mixture_layers,
    ),
    "qwen3_moe": Family(
        "qwen3moe",
        matrices={**ATTENTION, **_QWEN},
        experts="mlp",
        qk_norms=HEAD_NORMS,
        keys=normed_mixture_keys,
        layers=mixture_layers,
    ),
    "olmoe": Family(
        "olmoe",
        matrices={**ATTENTION, **_QWEN},
        experts="mlp",
        qk_norms=HEAD_NORMS,
        row_norm=True,
        keys=plain_mixture_keys,
        layers=mixture_layers,
    ),
    "mixtral": Family(
        "llama",
        interleaves=True,
        matrices={**ATTENTION, "block_sparse_moe.gate": "ffn_gate_inp"},
        experts="block_sparse_moe",
        always_slides=True,
        theta=1e6,
        keys=mixture_keys,
        layers=mixture_layers,
    ),
    "granitemoe": Family(
        "granitemoe",
        interleaves=True,
        matrices={
            **ATTENTION,
            **GRANITE_EXPERTS,
        },
        keys=granite_moe_keys,
        arrange=arrange_mixture,
        layers=mixture_layers,
    ),
    "lfm2_moe": Family(
        "lfm2moe",
        outer=LFM2_OUTER,
        output_norm="token_embd_norm",
        matrices={**LFM2, "feed_forward.gate": "ffn_gate_inp"},
        whole_names={"feed_forward.expert_bias": "exp_probs_b.bias"},
        experts="feed_forward",
        norms=LFM2_NORMS,
        qk_norms=LFM2_HEAD_NORMS,
        eps_keys=("norm_eps",),
        own_windows=True,
        theta=1e6,
        defaults={"conv_L_cache": 3, "block_auto_adjust_ff_dim": False},
        keys=lfm2_moe_keys,
        arrange=arrange_lfm2,
        layers=lfm2_moe_layers,
    ),
    "gpt_oss": Family(
        "gpt-oss",
        head_dim=64,
        matrices={**ATTENTION, "mlp.router": "ffn_gate_inp"},
        whole_names={
            "self_attn.sinks": "attn_sinks.weight",
            **{
                f"mlp.experts.{theirs}_proj_{part}": f"ffn_{ours}_exps.{part}"
                for theirs, ours in (("gate_up", "gate_up"), ("down", "down"))
                for part in ("blocks", "scales", "bias")
            },
        },
        norms=LATE_FEED_NORM,
        window_period=2,
        theta=150000.0,
        truncates_yarn=False,
        stored_as="mxfp4",
        defaults={
            "rms_norm_eps": 1e-5,
            "head_dim": 64,
            "num_key_value_heads": 8,
            "sliding_window": 128,
            "attention_bias": True,
            "num_experts_per_tok": 4,
        },
        keys=gpt_oss_keys,
        arrange=arrange_gpt_oss,
        layers=gpt_oss_layers,
    ),
}
