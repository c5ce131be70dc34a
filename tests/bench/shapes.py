"""Write files of the shapes of published models, with random weights: for figures of speed.

    PYTHONPATH=tests .venv/bin/python -m bench.shapes NAME OUT.gguf [--weight-type T] [--layers N]

Shapes as in the published configurations of LFM2-1.2B, Qwen3.5-2B, Qwen3-30B-A3B, Mamba-2 370M,
Gemma 3 1B and Gemma 4 E2B, from memory but for what shared/FAMILIES.md gives. The text such a file
writes is noise; llama.cpp reads it, too, so `llamad bench` and shared/tools/peer_bench.py compare.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from tiny_gguf import FORMATS, TinySpec, write_tiny_model

SHAPES = {
    "lfm2-1.2b": TinySpec(
        architecture="lfm2",
        dim=2048,
        hidden_dim=8192,
        n_layers=16,
        n_heads=32,
        n_kv_heads=8,
        recurrent=tuple(i for i in range(16) if i not in (2, 5, 8, 10, 12, 14)),
        vocab_size=65_536,
        n_ctx_train=32_768,
        tied_output=True,
        rope_freq_base=1e6,
    ),
    "qwen35-2b": TinySpec(
        architecture="qwen35",
        dim=2048,
        hidden_dim=6144,
        n_layers=24,
        n_heads=8,
        n_kv_heads=2,
        head_dim=256,
        rope_dimension_count=64,
        recurrent=tuple(i for i in range(24) if i % 4 != 3),
        conv_width=4,
        delta_k_heads=16,
        delta_v_heads=16,
        delta_dim=128,
        vocab_size=248_320,
        n_ctx_train=32_768,
        tied_output=True,
        rope_freq_base=1e7,
    ),
    "mamba2-370m": TinySpec(
        architecture="mamba2",
        dim=1024,
        n_layers=48,
        recurrent=tuple(range(48)),
        conv_width=4,
        ssm_groups=1,
        ssm_state=128,
        ssm_head_dim=64,
        vocab_size=50_288,
        n_ctx_train=1 << 20,
        tied_output=True,
    ),
    "qwen3-30b-a3b": TinySpec(
        architecture="qwen3moe",
        dim=2048,
        hidden_dim=6144,
        expert_dim=768,
        n_experts=128,
        n_experts_used=8,
        n_layers=48,
        n_heads=32,
        n_kv_heads=4,
        head_dim=128,
        vocab_size=151_936,
        n_ctx_train=32_768,
        rope_freq_base=1e6,
    ),
    "gemma3-1b": TinySpec(
        architecture="gemma3",
        dim=1152,
        hidden_dim=6912,
        n_layers=26,
        n_heads=4,
        n_kv_heads=1,
        head_dim=256,
        window=512,
        vocab_size=262_144,
        n_ctx_train=32_768,
        tied_output=True,
        rope_freq_base=1e6,
    ),
    "gemma4-e2b": TinySpec(
        architecture="gemma4",
        dim=1536,
        hidden_dim=6144,
        n_layers=35,
        n_heads=8,
        n_kv_heads=1,
        head_dim=512,
        local_head_dim=256,
        is_local=tuple(i % 5 != 4 for i in range(35)),
        n_shared_kv=20,
        layer_input_dim=256,
        window=512,
        rope_freqs=True,
        rope_freq_base=1e6,
        vocab_size=262_144,
        n_ctx_train=32_768,
        tied_output=True,
        metadata={"gemma4.final_logit_softcapping": 30.0},
    ),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weight-type", choices=FORMATS, default="Q4_0")
    parser.add_argument("--layers", type=int, help="write so many only, of a model that is large")
    arguments = parser.parse_args()
    spec = replace(SHAPES[arguments.name], weight_type=arguments.weight_type)
    if arguments.layers:
        spec = replace(spec, n_layers=arguments.layers)
    write_tiny_model(arguments.out, spec)


if __name__ == "__main__":
    main()
