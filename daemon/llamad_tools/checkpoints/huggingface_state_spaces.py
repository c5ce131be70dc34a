"""Families of Hugging Face folders with layers of Mamba-2: rows of ``huggingface_families``."""

from collections.abc import Mapping

from llamad_tools.checkpoints.huggingface_falcon_h1 import (
    BARE_NORM,
    arrange_falcon_h1,
    falcon_h1_keys,
    falcon_h1_layers,
)
from llamad_tools.checkpoints.huggingface_family import ATTENTION, ONE_NORM, OUTER, Family
from llamad_tools.checkpoints.huggingface_granite_hybrid import (
    arrange_granite_hybrid,
    granite_hybrid_keys,
    granite_hybrid_layers,
)
from llamad_tools.checkpoints.huggingface_mamba2 import (
    arrange_mamba2,
    mamba2_keys,
    mamba2_layers,
)
from llamad_tools.checkpoints.huggingface_mixtures import GRANITE_EXPERTS

_MAMBA2 = {
    "mamba.in_proj": "ssm_in",
    "mamba.conv1d": "ssm_conv1d",
    "mamba.norm": "ssm_norm",
    "mamba.out_proj": "ssm_out",
}
_VECTORS = {"mamba.A_log": "ssm_a", "mamba.D": "ssm_d", "mamba.dt_bias": "ssm_dt.bias"}

STATE_SPACES: Mapping[str, Family] = {
    "granitemoehybrid": Family(
        "granitehybrid",
        interleaves=True,
        matrices={
            **ATTENTION,
            **_MAMBA2,
            **GRANITE_EXPERTS,
            "shared_mlp.input_linear": "ffn_up",
            "shared_mlp.output_linear": "ffn_down",
        },
        whole_names=_VECTORS,
        own_windows=True,
        defaults={
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 1024,
            "mamba_n_heads": 128,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
        keys=granite_hybrid_keys,
        arrange=arrange_granite_hybrid,
        layers=granite_hybrid_layers,
    ),
    "mamba2": Family(
        "mamba2",
        outer={
            "backbone.embeddings": "token_embd",
            "backbone.norm_f": "output_norm",
            "lm_head": "output",
        },
        layer_prefix="backbone.layers",
        matrices={theirs.replace("mamba.", "mixer."): ours for theirs, ours in _MAMBA2.items()},
        whole_names={"mixer.A_log": "ssm_a", "mixer.D": "ssm_d", "mixer.dt_bias": "ssm_dt.bias"},
        norms={"norm": "attn_norm"},
        eps_keys=("layer_norm_epsilon",),
        own_windows=True,
        defaults={
            "num_attention_heads": 1,  # there are none; nothing is made of it
            "max_position_embeddings": 1 << 20,  # it has no end; as llama.cpp's converter writes
            "num_heads": 128,
            "head_dim": 64,
            "n_groups": 8,
            "state_size": 128,
            "conv_kernel": 4,
            "expand": 2,
            "layer_norm_epsilon": 1e-5,
        },
        keys=mamba2_keys,
        arrange=arrange_mamba2,
        layers=mamba2_layers,
    ),
    "falcon_h1": Family(
        "falcon-h1",
        outer={**OUTER, "model.final_layernorm": "output_norm"},
        unties=True,
        matrices={
            **ATTENTION,
            **_MAMBA2,
            "feed_forward.gate_proj": "ffn_gate",
            "feed_forward.up_proj": "ffn_up",
            "feed_forward.down_proj": "ffn_down",
        },
        whole_names={**_VECTORS, "pre_ff_layernorm.weight": BARE_NORM},
        norms=ONE_NORM,
        own_windows=True,
        defaults={
            "rms_norm_eps": 1e-5,
            "mamba_n_heads": 128,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
        keys=falcon_h1_keys,
        arrange=arrange_falcon_h1,
        layers=falcon_h1_layers,
    ),
}
